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
                if (differences.Count == 0)
                {
                    Console.WriteLine("All queues and exchanges are as they should be. Bindings can't be looked at; --declare makes them.");
                }
                return differences.Count == 0 ? ExitCode.Done : ExitCode.SomeFailed;
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
