
namespace OrderService.Chaos.Faults;

/// <summary>Large bodies between good orders, and little memory. No good order pays for it, and everything drains.</summary>
internal static class LargeBodies
{
    private const int Good = 500;

    /// <summary>300 bodies of 4 MiB, and a heap of 500 MiB.</summary>
    public static Task<Verdict> RunAsync(World world, TrialOptions options) =>
        RunAsync(world, large: 300, bytes: 4 << 20, Service.Memory("DOTNET_GCHeapHardLimit", 500));

    /// <summary>100 bodies nearly as large as the broker takes them, all of them dead letters, and what .NET takes for a container of 256 MiB.</summary>
    public static Task<Verdict> RunRejectedAsync(World world, TrialOptions options) =>
        RunAsync(world, large: 100, bytes: 16 << 20, Service.SmallContainer);

    private static async Task<Verdict> RunAsync(World world, int large, int bytes, IReadOnlyDictionary<string, string> memory)
    {
        await using var service = await Service.StartReadyAsync(world, memory);
        await using var subscriber = await Subscriber.StartAsync(world);
        await service.KillAsync();

        await using var producer = new Producer(world);
        var body = new byte[bytes];
        world.Random.NextBytes(body);
        for (var number = 0; number < Good; number++)
        {
            await producer.PublishAsync([SentMessage.Place($"A-{number}")]);
            if (number < large)
            {
                await producer.PublishAsync([new SentMessage($"large-{number}", "", "order.place", body, "body_too_large")]);
            }
            if (number % 100 == 0)
            {
                world.Progress.Report($"{number} of {Good} good orders sent");
            }
        }

        await using var connection = await world.ConnectAsync("looks");
        await using var channel = await connection.CreateChannelAsync();
        var clock = TimeProvider.System;
        var began = clock.GetTimestamp();
        service.Start();
        long peak = 0;
        var violations = new List<Violation>();
        try
        {
            await Until.TrueAsync(
                async () =>
                {
                    if (service.HasExited)
                    {
                        service.Start();
                    }
                    peak = Math.Max(peak, service.PeakMemory);
                    return (await channel.QueueDeclarePassiveAsync("orders")).MessageCount == 0 && (await channel.QueueDeclarePassiveAsync("orders.dlq")).MessageCount == 0
                        && await service.IsReadyAsync() && (await service.AllAsync("/api/dead-letters")).Count >= large
                        && subscriber.Heard.Select(one => one.Id).Distinct().Count() >= Good;
                },
                TimeSpan.FromMinutes(10), "everything drained");
        }
        catch (ChaosException exception)
        {
            violations.Add(new Violation("everything drains", exception.Message));
        }
        await Until.TrueAsync(service.IsReadyAsync, TimeSpan.FromMinutes(1), "the service is ready at the end");
        violations.AddRange(Judge.Conservation(producer.Sent, subscriber.Heard, await service.AllAsync("/api/dead-letters")));
        return new Verdict(violations,
            [$"{service.Starts - 2} restarts, {clock.GetElapsedTime(began).TotalSeconds:0} s, at most {peak / 1048576.0:0} MiB resident"]);
    }
}
