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
        var administrator = new Option<string>("--administrator-file")
        {
            HelpName = "FILE",
            Description = "A file with the broker's address and a user who may configure it (amqp://USER:PASSWORD@HOST/VHOST), in place of the service's own: the service's user then needs no right to configure.",
        };
        var command = new Command("topology", "Prints the queues, exchanges and bindings that the service uses.") { declare, check, administrator };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.Validators.Add(result =>
        {
            if (result.ValueOf(declare) && result.ValueOf(check))
            {
                result.AddError("--declare changes the broker and --check does not: choose one.");
            }
            if (result.ValueOf(administrator) is not null && !result.ValueOf(declare) && !result.ValueOf(check))
            {
                result.AddError("--administrator-file goes with --declare or --check: nothing else asks the broker.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var topology = stations.GetRequiredService<Topology>();
            if (parsed.GetValue(check))
            {
                var (_, differences) = await Broker.CheckAsync(stations, token);
                var (policies, unknown) = await Broker.UnsafePoliciesAsync(stations, token);
                if (parsed.GetValue(json))
                {
                    JsonOutput.Write(new { Differences = differences, UnsafePolicies = policies, PoliciesUnknown = unknown });
                    return differences.Count + policies.Count == 0 ? ExitCode.Done : ExitCode.SomeFailed;
                }
                foreach (var difference in differences)
                {
                    Console.WriteLine(difference.Sentence);
                }
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
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(new { topology.Queues, topology.Exchanges, topology.Bindings });
                return ExitCode.Done;
            }
            foreach (var line in topology.Describe())
            {
                Console.WriteLine(line);
            }
            return ExitCode.Done;
        }, cancellationToken, needsStore: false, As(parsed.GetValue(administrator))));
        return command;
    }

    // The address replaces the service's own whole, with whatever file its parts come from.
    private static Dictionary<string, string?>? As(string? administratorFile) => administratorFile is null ? null : new()
    {
        ["RabbitMq:UriFile"] = administratorFile,
        ["RabbitMq:Uri"] = null,
        ["RabbitMq:Username"] = null,
        ["RabbitMq:UsernameFile"] = null,
        ["RabbitMq:Password"] = null,
        ["RabbitMq:PasswordFile"] = null,
    };
}
