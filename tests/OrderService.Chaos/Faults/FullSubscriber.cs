using RabbitMQ.Client;

namespace OrderService.Chaos.Faults;

/// <summary>
/// A queue with room for one message that refuses the rest, bound to <c>order.cancelled</c>, beside a healthy one that is bound to everything. The healthy one gets each event once or
/// nearly so, new orders' events come out at once, and when there is room again the rest follows in order.
/// </summary>
internal static class FullSubscriber
{
    // More than the relay's memory holds, and each is stuck.
    private const int Orders = 11_000;
    private const string Full = "chaos.full";

    public static async Task<Verdict> RunAsync(World world, TrialOptions options)
    {
        var orders = options.Rounds > 0 ? options.Rounds : Orders;
        await using var service = await Service.StartReadyAsync(world);
        await using var subscriber = await Subscriber.StartAsync(world);
        await using var connection = await world.ConnectAsync("is full");
        await using var channel = await connection.CreateChannelAsync();
        await channel.QueueDeclareAsync(Full, durable: true, exclusive: false, autoDelete: false);
        await world.SetPolicyAsync(Full, new Dictionary<string, object> { ["max-length"] = 1, ["overflow"] = "reject-publish" });
        await channel.QueueBindAsync(Full, "order-events", "order.cancelled");

        await using var producer = new Producer(world);
        var clock = TimeProvider.System;
        var began = clock.GetTimestamp();
        await producer.PublishAsync(Enumerable.Range(0, orders).SelectMany(number => new[] { SentMessage.Place($"A-{number}"), SentMessage.Cancel($"A-{number}") }));
        var figures = new List<string>();
        foreach (var seconds in (int[])[30, 50])
        {
            await Until.TrueAsync(() => Task.FromResult(clock.GetElapsedTime(began).TotalSeconds >= seconds), TimeSpan.FromSeconds(120), "time passes");
            figures.Add($"after {seconds} s the healthy subscriber had {subscriber.Heard.Count:N0} messages of {2 * orders:N0} events");
        }

        var probe = clock.GetTimestamp();
        await producer.PublishAsync([SentMessage.Place("PROBE-1")]);
        var violations = new List<Violation>();
        try
        {
            await Until.TrueAsync(
                () => Task.FromResult(subscriber.Heard.Any(one => one.OrderId == "PROBE-1")), TimeSpan.FromSeconds(10), "a new order's ORDER_PLACED comes out");
            figures.Add($"a new order's ORDER_PLACED came out after {clock.GetElapsedTime(probe).TotalSeconds:0.0} s");
        }
        catch (ChaosException exception)
        {
            violations.Add(new Violation("other routing keys go on", exception.Message));
        }
        var copies = Judge.Copies(subscriber.Heard);
        var allowed = (0.01 * subscriber.Heard.Count) + 1 + (clock.GetElapsedTime(began).TotalSeconds / 10);
        figures.Add($"{copies:N0} copies in {clock.GetElapsedTime(began).TotalSeconds:0} s, {allowed:0} allowed");
        if (copies > allowed)
        {
            violations.Add(new Violation("copies are at most 1 % and one per stuck key and 10 s", $"{copies:N0} copies"));
        }

        var healed = clock.GetTimestamp();
        await world.SetPolicyAsync(Full, null);
        await using var refused = await Subscriber.StartAsync(world, Full, "order.cancelled");
        try
        {
            var patience = TimeSpan.FromMinutes(2) + (orders * TimeSpan.FromMilliseconds(50));
            await Until.TrueAsync(() => Task.FromResult(subscriber.Distinct == (2 * orders) + 1 && refused.Distinct == orders), patience, "both subscribers get each event");
            figures.Add($"all events were out {clock.GetElapsedTime(healed).TotalSeconds:0.0} s after there was room");
        }
        catch (ChaosException)
        {
            violations.Add(new Violation(
                "every subscriber gets every event of its keys", $"{refused.Distinct:N0} of {orders:N0} came to the queue that was full, {subscriber.Distinct:N0} of {(2 * orders) + 1:N0} to the other"));
        }
        violations.AddRange(Judge.Conservation(producer.Sent, subscriber.Heard, await service.AllAsync("/api/dead-letters")));
        violations.AddRange(Judge.Order(subscriber.Heard));
        return new Verdict(violations, figures);
    }
}
