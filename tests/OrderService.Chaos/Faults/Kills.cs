namespace OrderService.Chaos.Faults;

/// <summary>SIGKILL at random moments. Nobody may be blamed for it: there is no dead letter, and every order takes effect once.</summary>
internal static class Kills
{
    private const int Orders = 60_000;
    private const int UsualKills = 120;

    public static async Task<Verdict> RunAsync(World world, TrialOptions options)
    {
        await using var service = await Service.StartReadyAsync(world);
        await using var subscriber = await Subscriber.StartAsync(world);
        await service.KillAsync();
        await using var producer = new Producer(world);
        await producer.PublishAsync(Enumerable.Range(0, Orders).Select(number => SentMessage.Place($"A-{number}")));

        var kills = options.Rounds > 0 ? options.Rounds : UsualKills;
        await using var connection = await world.ConnectAsync("looks");
        await using var channel = await connection.CreateChannelAsync();
        var (met, heard) = (0, subscriber.Heard.Count);
        for (var kill = 1; kill <= kills; kill++)
        {
            service.Start();
            // Every other one is killed wherever its start has come to, the others at work.
            if (kill % 2 == 0)
            {
                await Until.TrueAsync(service.IsReadyAsync, TimeSpan.FromSeconds(60), "the service is ready");
            }
            await Task.Delay(TimeSpan.FromSeconds(0.6 + (1.6 * world.Random.NextDouble())), TimeProvider.System);
            await service.KillAsync();
            met += subscriber.Heard.Count > heard ? 1 : 0;
            heard = subscriber.Heard.Count;
            if (kill % 10 == 0)
            {
                var ready = (await channel.QueueDeclarePassiveAsync("orders")).MessageCount;
                world.Progress.Report($"{kill} of {kills} kills, {ready:N0} of {producer.Sent.Count:N0} orders wait");
                if (ready < 10_000)
                {
                    // A queue that is empty puts nobody in danger.
                    var first = producer.Sent.Count;
                    await producer.PublishAsync(Enumerable.Range(first, Orders - (int)ready).Select(number => SentMessage.Place($"A-{number}")));
                }
            }
        }

        service.Start();
        await Until.TrueAsync(async () => await service.IsReadyAsync() && (await channel.QueueDeclarePassiveAsync("orders")).MessageCount == 0, TimeSpan.FromMinutes(5), "the queue is empty");
        await Until.QuietAsync(() => subscriber.Heard.Count, TimeSpan.FromSeconds(10), TimeSpan.FromMinutes(15));
        var letters = await service.AllAsync("/api/dead-letters");
        // A process that is killed before it works puts nobody in danger.
        Violation[] vain = met * 3 < kills ? [new Violation("kills", $"only {met} of {kills} kills came after events had come out")] : [];
        return new Verdict(
            [.. vain, .. Judge.Conservation(producer.Sent, subscriber.Heard, letters), .. Judge.Order(subscriber.Heard)],
            [$"{kills} kills, {met} of them after events had come out, {producer.Sent.Count:N0} good orders, {letters.Count} dead letters, {Judge.Copies(subscriber.Heard):N0} copies of events"]);
    }
}
