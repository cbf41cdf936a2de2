namespace OrderService.Chaos.Faults;

/// <summary>The broker dies, freezes, throws everybody out, or takes nothing.</summary>
internal static class BrokerFaults
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        Fault.Usual("broker-killed", "F1", "The broker is killed and starts again.", KillAsync),
        Fault.Usual("broker-stopped", "F2", "The broker is stopped as an administrator stops it, and starts again.", StopAsync),
        Fault.Usual("broker-frozen", "F3", "The broker freezes for 30 s.", FreezeAsync, tells: true),
        Fault.Usual("connections-closed", "F13", "An administrator closes all connections of the service, again and again.", CloseConnectionsAsync),
        Fault.Usual("dead-letters-full", "F19", "The queue of dead letters takes no more for 20 s.", FillDeadLettersAsync,
            // The broker tries what it holds again only after minutes.
            patience: TimeSpan.FromMinutes(8)),
        Fault.Usual("memory-alarm", "F20", "The broker's memory alarm blocks everybody who publishes for 30 s.", AlarmMemoryAsync, tells: true),
        Fault.Usual("disk-alarm", "F21", "The broker's disk alarm blocks everybody who publishes for 30 s.", AlarmDiskAsync, tells: true),
    ];

    private static async Task<string> KillAsync(Trial trial)
    {
        await trial.World.Broker.KillAsync();
        await Trial.LastAsync(3);
        await trial.World.Broker.StartAsync();
        return await AnswersAgainAsync(trial);
    }

    private static async Task<string> StopAsync(Trial trial)
    {
        await trial.World.Broker.StopAsync();
        await trial.World.Broker.StartAsync();
        return await AnswersAgainAsync(trial);
    }

    private static async Task<string> FreezeAsync(Trial trial)
    {
        await trial.World.Broker.PauseAsync();
        await Trial.LastAsync(1);
        var heard = trial.Subscriber.Distinct;
        await Trial.LastAsync(29);
        var during = trial.Subscriber.Distinct - heard;
        await trial.World.Broker.ContinueAsync();
        return during == 0 ? "nothing came out while it was frozen" : throw new ChaosException($"{during} events came out of a frozen broker.");
    }

    private static async Task<string> CloseConnectionsAsync(Trial trial)
    {
        var closed = 0;
        for (var round = 0; round < 8; round++)
        {
            await Trial.LastAsync(1 + (2 * trial.World.Random.NextDouble()));
            closed += await trial.World.CloseConnectionsAsync();
        }
        return closed > 8 ? $"{closed} connections were closed" : throw new ChaosException($"Only {closed} connections were closed.");
    }

    private static async Task<string> FillDeadLettersAsync(Trial trial)
    {
        // Ready messages count; the service takes them away at once, so its consumer is kept from them by a queue that has no room at all.
        await trial.World.SetPolicyAsync("orders.dlq", new Dictionary<string, object> { ["max-length"] = 0, ["overflow"] = "reject-publish" });
        await trial.Load.SendAsync(trial.World, Enumerable.Range(0, 50).Select(number => SentMessage.Malformed($"FULL-{number}")));
        await Trial.LastAsync(20);
        var held = await trial.World.DepthAsync("orders");
        await trial.World.SetPolicyAsync("orders.dlq", null);
        return held >= 50 ? $"{held} messages were held in orders" : throw new ChaosException($"Only {held} messages were held back.");
    }

    private static async Task<string> AlarmMemoryAsync(Trial trial)
    {
        await trial.World.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_vm_memory_high_watermark", "absolute", "1");
        return await BlockedAsync(trial, () => trial.World.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_vm_memory_high_watermark", "0.6"));
    }

    private static async Task<string> AlarmDiskAsync(Trial trial)
    {
        await trial.World.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_disk_free_limit", "100TB");
        return await BlockedAsync(trial, () => trial.World.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_disk_free_limit", "50MB"));
    }

    private static async Task<string> BlockedAsync(Trial trial, Func<Task> heal)
    {
        await Trial.LastAsync(5);
        var heard = trial.Subscriber.Distinct;
        await Trial.LastAsync(25);
        var during = trial.Subscriber.Distinct - heard;
        await heal();
        return during == 0 ? "nothing came out while publishing was blocked" : throw new ChaosException($"{during} events came out while publishing was to be blocked.");
    }

    private static async Task<string> AnswersAgainAsync(Trial trial)
    {
        var connection = await trial.World.ConnectPatientlyAsync("waits");
        await connection.AbandonAsync();
        return "all connections broke, and the broker answers again";
    }
}
