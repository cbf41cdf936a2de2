using System.Globalization;

namespace OrderService.Chaos.Faults;

/// <summary>50,000 payments wait for an order that is not there yet. When it comes, each takes effect once, and other orders go on meanwhile.</summary>
internal static class EarlyCommands
{
    private const int Payments = 50_000;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    public static async Task<Verdict> RunAsync(World world, TrialOptions options)
    {
        var payments = options.Rounds > 0 ? options.Rounds : Payments;
        await using var service = await Service.StartReadyAsync(world);
        await using var subscriber = await Subscriber.StartAsync(world);
        await using var producer = new Producer(world);
        await producer.PublishAsync(Enumerable.Range(1, payments).Select(number => new SentMessage(
            $"pay-{number}", "LATE-1", "order.pay",
            System.Text.Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $$"""{"orderId":"LATE-1","paymentReference":"P-{{number}}","amount":0.01}""")))));
        await Until.TrueAsync(async () => await world.ReadyAsync("orders") == 0, TimeSpan.FromMinutes(3), "all payments are taken in");
        await Until.TrueAsync(async () => await world.DepthAsync("orders") == 0, TimeSpan.FromMinutes(3), "all payments are noted");
        if (subscriber.Distinct > 0)
        {
            throw new ChaosException("A payment took effect without its order.");
        }

        var clock = TimeProvider.System;
        var began = clock.GetTimestamp();
        await producer.PublishAsync([SentMessage.Place("LATE-1")]);
        var violations = new List<Violation>();
        var slowest = TimeSpan.Zero;
        for (var number = 1; subscriber.Distinct < payments && clock.GetElapsedTime(began) < TimeSpan.FromMinutes(10); number++)
        {
            var sent = clock.GetTimestamp();
            var order = $"OTHER-{number}";
            await producer.PublishAsync([SentMessage.Place(order)]);
            try
            {
                await Until.TrueAsync(() => Task.FromResult(subscriber.Heard.Any(one => one.OrderId == order)), Patience, "another order's event comes out");
            }
            catch (ChaosException exception)
            {
                violations.Add(new Violation("other orders go on", exception.Message));
            }
            var took = clock.GetElapsedTime(sent);
            slowest = took > slowest ? took : slowest;
        }
        var all = clock.GetElapsedTime(began);
        await Until.QuietAsync(() => subscriber.Heard.Count, TimeSpan.FromSeconds(5), TimeSpan.FromMinutes(3));
        var letters = await service.AllAsync("/api/dead-letters");
        violations.AddRange(Judge.Conservation(producer.Sent, subscriber.Heard, letters));
        violations.AddRange(Judge.OneDecision(subscriber.Heard));
        violations.AddRange(Judge.Order(subscriber.Heard));
        return new Verdict(violations,
        [
            string.Create(CultureInfo.InvariantCulture, $"{payments:N0} payments waited; all were out {all.TotalSeconds:0} s after the order came"),
            string.Create(CultureInfo.InvariantCulture, $"another order meanwhile took {slowest.TotalSeconds:0.0} s at most; {service.Starts - 1} restarts, {letters.Count} dead letters"),
        ]);
    }
}
