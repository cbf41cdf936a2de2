using System.CommandLine;
using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary><c>topology</c>: prints, declares or checks the queues and exchanges.</summary>
internal static class TopologyCommand
{
    public static Command Create()
    {
        var declare = new Option<bool>("--declare") { Description = "Declare what is missing." };
        var check = new Option<bool>("--check") { Description = "Compare with the broker and change nothing; exit code 1 when something differs." };
        var command = new Command("topology", "Prints the queues, exchanges and bindings that the service uses.") { declare, check };
        command.Validators.Add(result =>
        {
            if (result.ValueOf(declare) && result.ValueOf(check))
            {
                result.AddError("--declare changes the broker and --check does not: choose one.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var topology = stations.GetRequiredService<Topology>();
            if (parsed.GetValue(check))
            {
                var (_, differences) = await Broker.CheckAsync(stations, token);
                foreach (var difference in differences)
                {
                    Console.WriteLine(difference.Sentence);
                }
                var (policies, unknown) = await Broker.UnsafePoliciesAsync(stations, token);
                foreach (var policy in policies)
                {
                    Console.WriteLine(policy);
                }
                if (differences.Count == 0)
                {
                    Console.WriteLine("All queues and exchanges are as they should be. Bindings can't be looked at; --declare makes them.");
                }
                Console.WriteLine(unknown is not null ? $"{char.ToUpperInvariant(unknown[0])}{unknown[1..]}." : policies.Count == 0 ? "No policy that could lose messages is in force." : "");
                return differences.Count + policies.Count == 0 ? ExitCode.Done : ExitCode.SomeFailed;
            }
            if (parsed.GetValue(declare))
            {
                await Broker.RequireAsync(stations, token);
            }
            foreach (var line in topology.Describe())
            {
                Console.WriteLine(line);
            }
            return ExitCode.Done;
        }, cancellationToken, needsStore: false));
        return command;
    }
}
