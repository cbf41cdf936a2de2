using System.CommandLine;
using System.Globalization;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary><c>relay</c>: looks at events that a subscriber's queue refuses, and has them tried at once.</summary>
internal static class RelayCommands
{
    public static Command Create() => new("relay", "Looks at events that wait because a subscriber's queue refuses them, and has them tried at once.") { List(), Release() };

    private static Command List()
    {
        var command = new Command("list", "Lists the routing keys that events wait for: how many, since when, why, and which queue.");
        command.SetAction((_, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var waiting = await stations.GetRequiredService<OutboxStore>().StuckAsync(null, token);
            foreach (var key in waiting)
            {
                var since = DateTimeOffset.FromUnixTimeMilliseconds(key.Since).ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
                Console.WriteLine($"{key.Key}  {key.Events} events since {since}: {key.Reason ?? "others of the same orders wait"}");
                foreach (var sentence in await stations.GetRequiredService<SubscriberQueues>().FindAsync(key.Key, token) ?? [])
                {
                    Console.WriteLine($"  {sentence}");
                }
            }
            if (waiting.Count == 0)
            {
                Console.WriteLine("No event waits for a queue.");
            }
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    private static Command Release()
    {
        var key = new Argument<string>("KEY") { Description = $"The routing key, as list shows it; {RelayLane.Unsendable} for events that can't be sent as they are." };
        var reason = new Option<string>("--reason") { Description = "Why, for the audit log.", DefaultValueFactory = _ => "" };
        var command = new Command("release", "Has the running service try a routing key at once; when the queue takes the first event, the rest follows.") { key, reason };
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var wanted = parsed.GetValue(key)!;
            var events = await stations.GetRequiredService<OutboxStore>().AskForReleaseAsync(
                wanted, DeadLetterCommands.Who, parsed.GetValue(reason)!, stations.GetRequiredService<TimeProvider>().GetUtcNow().ToUnixTimeMilliseconds(), token);
            if (events == 0)
            {
                await Console.Error.WriteLineAsync($"No event waits for {wanted}.");
                return ExitCode.SomeFailed;
            }
            Console.WriteLine($"{events} events wait for {wanted}; the service tries the first now.");
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }
}
