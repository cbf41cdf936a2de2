using System.Globalization;
using System.Text;

namespace OrderService.Chaos.Faults;

/// <summary>
/// 10,000 orders of 500 lines each are decided while the broker's memory alarm blocks every publish, so that their events wait in the store; the
/// memory is what .NET takes for a container of 256 MiB.
/// Everything comes out once and in order when the alarm ends.
/// </summary>
internal static class RelayBehindAlarm
{
    private const int Orders = 10_000;
    private const int Lines = 500;

    public static async Task<Verdict> RunAsync(World world, TrialOptions options)
    {
        var orders = options.Rounds > 0 ? options.Rounds : Orders;
        await using var service = await Service.StartReadyAsync(world, Service.SmallContainer);
        await using var subscriber = await Subscriber.StartAsync(world);
        await service.KillAsync();
        await using var producer = new Producer(world);
        await producer.PublishAsync(Enumerable.Range(0, orders).Select(number => SentMessage.Of("order.place", $"A-{number}", Large($"A-{number}"))));
        world.Progress.Report($"{orders} orders of {Lines} lines sent");

        await using var connection = await world.ConnectAsync("looks");
        await using var channel = await connection.CreateChannelAsync();
        var clock = TimeProvider.System;
        var violations = new List<Violation>();
        long peak = 0;
        int heardDuring;
        var began = clock.GetTimestamp();
        TimeSpan decided;
        // Ready once, because a process that never could publish is not.
        service.Start();
        await service.UntilReadyAsync("the service is ready again");
        await world.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_vm_memory_high_watermark", "absolute", "1");
        try
        {
            var before = subscriber.Heard.Count;
            await DrainAsync(async () => (await channel.QueueDeclarePassiveAsync("orders")).MessageCount == 0, "all orders are taken in behind the alarm");
            decided = clock.GetElapsedTime(began);
            heardDuring = subscriber.Heard.Count - before;
        }
        finally
        {
            await world.Broker.ExecuteAsync("rabbitmqctl", "-q", "set_vm_memory_high_watermark", "0.6");
        }
        await DrainAsync(() => Task.FromResult(subscriber.Distinct >= orders), "every event comes out");
        var all = clock.GetElapsedTime(began);
        await Until.TrueAsync(service.IsReadyAsync, TimeSpan.FromMinutes(1), "the service is ready at the end");
        if (heardDuring >= orders / 2)
        {
            throw new ChaosException($"The alarm held nothing back: {heardDuring} events came out behind it.");
        }
        violations.AddRange(Judge.Conservation(producer.Sent, subscriber.Heard, await service.AllAsync("/api/dead-letters")));
        violations.AddRange(Judge.Order(subscriber.Heard));
        return new Verdict(violations,
        [
            $"{service.Starts - 2} restarts, at most {peak / 1048576.0:0} MiB resident",
            $"decided after {decided.TotalSeconds:0} s, {heardDuring:N0} events out by then; everything out after {all.TotalSeconds:0} s, {Judge.Copies(subscriber.Heard):N0} copies",
        ]);

        async Task DrainAsync(Func<Task<bool>> isDone, string what)
        {
            try
            {
                await Until.TrueAsync(
                    async () =>
                    {
                        if (service.HasExited)
                        {
                            violations.Add(new Violation("the process lives", $"it ended while: {what}"));
                            service.Start();
                        }
                        peak = Math.Max(peak, service.PeakMemory);
                        return await isDone();
                    },
                    TimeSpan.FromMinutes(10), what);
            }
            catch (ChaosException exception)
            {
                violations.Add(new Violation("everything drains", exception.Message));
            }
        }
    }

    private static string Large(string orderId)
    {
        var body = new StringBuilder($$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[""");
        for (var line = 0; line < Lines; line++)
        {
            body.Append(line == 0 ? "" : ",").Append(CultureInfo.InvariantCulture, $$"""{"sku":"SKU-{{line:0000}}","quantity":2,"unitPrice":49.90}""");
        }
        return body.Append("]}").ToString();
    }
}
