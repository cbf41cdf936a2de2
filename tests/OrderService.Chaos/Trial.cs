using System.Globalization;
using System.Text;
using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>A service under load, as a fault finds it.</summary>
internal sealed class Trial(World world, IReadOnlyList<Service> services, Subscriber subscriber, Receiver receiver, Load load)
{
    public World World => world;

    public IReadOnlyList<Service> Services => services;

    /// <summary>The first instance.</summary>
    public Service Service => services[0];

    public Subscriber Subscriber => subscriber;

    public Receiver Receiver => receiver;

    public Load Load => load;

    public List<Violation> Violations { get; } = [];

    public List<string> Figures { get; } = [];

    /// <summary>Lets the world be as it is for a while.</summary>
    public static Task LastAsync(double seconds) => Task.Delay(TimeSpan.FromSeconds(seconds), TimeProvider.System);

    /// <summary>Notes that the promise to acknowledge only what is durable was kept or broken while nothing could become durable.</summary>
    /// <param name="seconds">
    /// How long it is watched, after some seconds in which orders still arrive and the broker's count, renewed every 5 s, catches up.
    /// </param>
    public async Task JudgeAcknowledgementsAsync(double seconds)
    {
        await LastAsync(3);
        await load.PauseAsync();
        await LastAsync(8);
        var before = await world.DepthAsync("orders");
        await LastAsync(seconds);
        var after = await world.DepthAsync("orders");
        load.Continue();
        Figures.Add(string.Create(
            CultureInfo.InvariantCulture, $"{before} messages were in the queue while nothing could be written, {after} at the end of {seconds} s"));
        if (before == 0)
        {
            throw new ChaosException("The queue was empty: nothing shows whether it acknowledges.");
        }
        if (after < before)
        {
            Violations.Add(new Violation("acknowledged only when durable", $"{before - after} messages left the queue while the store took no write"));
        }
    }
}

/// <summary>Several producers that send as they can until they are told to stop.</summary>
internal sealed class Load : IAsyncDisposable
{
    private const int Producers = 3;
    private const int OrdersAtOnce = 12;
    private static readonly TimeSpan Every = TimeSpan.FromMilliseconds(120);

    private readonly List<Producer> producers = [];
    private readonly CancellationTokenSource stop = new();
    private readonly SemaphoreSlim[] turns = [.. Enumerable.Range(0, Producers).Select(_ => new SemaphoreSlim(1))];
    private readonly Task sending;
    private Task? ended;

    public Load(World world, int seed)
    {
        var tasks = new List<Task>();
        for (var number = 0; number < Producers; number++)
        {
            var producer = new Producer(world, (number + 1).ToString(CultureInfo.InvariantCulture));
            producers.Add(producer);
            tasks.Add(SendAsync(producer, new Workload(new Random((seed * 31) + number), $"A{number}"), turns[number]));
        }
        sending = Task.WhenAll(tasks);
    }

    public IReadOnlyList<SentMessage> Sent => [.. producers.SelectMany(producer => { lock (producer.Sent) { return producer.Sent.ToArray(); } })];

    /// <summary>Waits until nobody is sending; they go on with <see cref="Continue"/>.</summary>
    public Task PauseAsync() => Task.WhenAll(turns.Select(turn => turn.WaitAsync()));

    public void Continue()
    {
        foreach (var turn in turns)
        {
            turn.Release();
        }
    }

    /// <summary>Sends some messages more, beside the load.</summary>
    public async Task SendAsync(World world, IEnumerable<SentMessage> messages)
    {
        var producer = new Producer(world, Guid.NewGuid().ToString("N")[..6]);
        await producer.PublishAsync(messages);
        lock (producers)
        {
            producers.Add(producer);
        }
    }

    /// <summary>No message is sent from now on; waits for the outcomes of those that were.</summary>
    public Task StopAsync() => ended ??= EndAsync();

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        foreach (var producer in producers)
        {
            await producer.DisposeAsync();
        }
        stop.Dispose();
        foreach (var turn in turns)
        {
            turn.Dispose();
        }
    }

    private async Task EndAsync()
    {
        await stop.CancelAsync();
        await sending;
    }

    private async Task SendAsync(Producer producer, Workload workload, SemaphoreSlim turn)
    {
        using var tick = new PeriodicTimer(Every);
        while (!stop.IsCancellationRequested)
        {
            await turn.WaitAsync();
            try
            {
                await producer.PublishAsync(Enumerable.Range(0, OrdersAtOnce).SelectMany(_ => workload.Next()));
            }
            finally
            {
                turn.Release();
            }
            await tick.WaitForNextTickAsync();
        }
    }
}

/// <summary>The usual trial: load, fault, healing, quiet, judgement.</summary>
internal static class UsualTrial
{
    /// <summary>Events that must have come out before a fault begins.</summary>
    private const int Warm = 300;

    private static readonly TimeSpan UsualPatience = TimeSpan.FromMinutes(3);

    /// <param name="disturb">Makes the world misbehave, heals it, and says what shows that it took effect.</param>
    /// <param name="tells">Whether readiness must have told of it.</param>
    /// <param name="startWith">The build that is there before the fault; the one under trial unless said.</param>
    /// <param name="patience">How long everything may take to drain.</param>
    /// <param name="memoryLimit">That of the container in which each process runs, in MiB; null for processes of this machine.</param>
    public static async Task<Verdict> RunAsync(
        World world, TrialOptions options, Func<Trial, Task<string>> disturb, bool tells, TimeSpan? patience = null, string? startWith = null,
        int? memoryLimit = null)
    {
        await using var receiver = new Receiver();
        var services = new List<Service>();
        try
        {
            for (var number = 0; number < options.Instances; number++)
            {
                // The first one makes the store.
                services.Add(await Service.StartReadyAsync(world, Settings(receiver), startWith, memoryLimit));
            }
            return await JudgedAsync(world, services, receiver, options, disturb, tells, patience ?? UsualPatience);
        }
        finally
        {
            foreach (var service in services)
            {
                await service.DisposeAsync();
            }
        }
    }

    private static async Task<Verdict> JudgedAsync(
        World world, List<Service> services, Receiver receiver, TrialOptions options, Func<Trial, Task<string>> disturb, bool tells, TimeSpan patience)
    {
        await using var subscriber = await Subscriber.StartAsync(world);
        await using var load = new Load(world, options.Seed);
        var trial = new Trial(world, services, subscriber, receiver, load);
        await using var watch = new Watch(world, services[^1], subscriber);
        await Until.TrueAsync(() => Task.FromResult(subscriber.Distinct >= Warm), TimeSpan.FromSeconds(60), "events come out before the fault");

        // A broker that is killed within seconds of a declaration may forget the queue or its binding; that is no fault of the service.
        await Trial.LastAsync(5);
        world.Progress.Report("the world misbehaves");
        var began = watch.Elapsed;
        var effect = await disturb(trial);
        var healed = watch.Elapsed;
        trial.Figures.Add(string.Create(CultureInfo.InvariantCulture, $"took effect: {effect}; healed after {(healed - began).TotalSeconds:0.0} s"));

        var before = subscriber.Distinct;
        await Until.TrueAsync(() => Task.FromResult(subscriber.Distinct > before + 50), TimeSpan.FromSeconds(120), "events come out again after healing");
        trial.Figures.Add(string.Create(CultureInfo.InvariantCulture, $"events came out again {(watch.Elapsed - healed).TotalSeconds:0.0} s after healing"));
        await Trial.LastAsync(2);
        await load.StopAsync();

        world.Progress.Report($"waiting for quiet: {load.Sent.Count:N0} messages sent");
        var letters = await SettledAsync(trial, patience);
        await watch.StopAsync();
        trial.Figures.Add(string.Create(
            CultureInfo.InvariantCulture,
            $"{load.Sent.Count:N0} messages sent, {load.Sent.Count(message => message.Outcome == Sending.Unknown):N0} of unknown outcome, "
            + $"{subscriber.Distinct:N0} events, {Judge.Copies(subscriber.Heard):N0} copies, {letters.Count:N0} dead letters, "
            + $"{receiver.Heard.Count} alerts, at most {watch.PeakMemory / 1048576.0:0} MiB resident"));

        var sent = load.Sent;
        var heard = subscriber.Heard;
        var service = services[^1];
        var stored = await service.AllAsync("/api/events", 500);
        var bodies = new Dictionary<long, byte[]>();
        foreach (var letter in letters)
        {
            var id = letter.GetProperty("id").GetInt64();
            bodies[id] = await service.BytesAsync(string.Create(CultureInfo.InvariantCulture, $"/api/dead-letters/{id}/body"));
        }
        return new Verdict(
            [
                .. trial.Violations,
                .. Judge.Conservation(sent, heard, letters),
                .. Judge.OneDecision(heard),
                .. Judge.Bytes(sent, letters, bodies),
                .. Judge.Complete(heard, stored),
                .. Judge.Order(heard),
                .. Judge.Epochs(heard),
                .. Judge.Streams(stored, await service.AllAsync("/api/orders")),
                .. Judge.Alerts(letters, receiver.Heard),
                .. Judge.Truth(watch.Samples, tells ? (began, healed + TimeSpan.FromSeconds(5)) : null),
                .. Judge.Secrets(services, receiver.Heard, await service.TextAsync("/metrics")),
            ],
            trial.Figures);
    }

    /// <summary>Waits until every confirmed message has ended and each letter was told of; what has not by the deadline is for the judge.</summary>
    private static async Task<List<JsonElement>> SettledAsync(Trial trial, TimeSpan patience)
    {
        var service = trial.Services[^1];
        var confirmed = trial.Load.Sent.Where(message => message.Outcome == Sending.Confirmed).Select(message => message.Key).ToHashSet();
        var unplaced = Judge.OrdersNotSurelyPlaced(trial.Load.Sent);
        var waiting = trial.Load.Sent.Where(message => unplaced.Contains(message.OrderId)).Select(message => message.Key).ToHashSet();
        List<JsonElement> letters = [];
        var began = TimeProvider.System.GetTimestamp();
        using var tick = new PeriodicTimer(TimeSpan.FromSeconds(1));
        var last = -1;
        while (TimeProvider.System.GetElapsedTime(began) < patience && await tick.WaitForNextTickAsync())
        {
            // Reading all letters is work for the service: only when nothing comes any more.
            if (trial.Subscriber.Distinct is var now && now != last)
            {
                last = now;
                continue;
            }
            if (await service.HealthAsync() is not { Status: 200 })
            {
                continue;
            }
            letters = await service.AllAsync("/api/dead-letters");
            var causes = trial.Subscriber.Heard.Where(one => one.Cause is not null).Select(one => one.Cause!);
            var ended = letters.Select(letter => letter.GetProperty("key").GetString()!).Concat(causes).ToHashSet();
            if (confirmed.All(key => ended.Contains(key) || waiting.Contains(key)) && Judge.Alerts(letters, trial.Receiver.Heard).Count == 0
                && await trial.World.DepthAsync("orders") + await trial.World.DepthAsync("orders.dlq") == 0)
            {
                var took = TimeProvider.System.GetElapsedTime(began).TotalSeconds;
                trial.Figures.Add(string.Create(CultureInfo.InvariantCulture, $"quiet {took:0} s after the last message"));
                return letters;
            }
        }
        trial.Violations.Add(new Violation(
            "everything drains after healing", string.Create(CultureInfo.InvariantCulture, $"it was not quiet {patience.TotalMinutes:0} minutes after the last message")));
        return letters;
    }

    private static Dictionary<string, string> Settings(Receiver receiver) => new()
    {
        ["Alerts__Webhook__Enabled"] = "true",
        ["Alerts__Webhook__Url"] = receiver.Url.AbsoluteUri,
        ["Alerts__Webhook__Secret"] = "whsec_" + Convert.ToBase64String(Encoding.ASCII.GetBytes("0123456789abcdef0123456789abcdef")),
        ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
        ["Alerts__DigestInterval"] = "00:00:10",
        // The judge reads everything there is.
        ["Api__RateLimit__PerKey"] = "20000",
        ["Api__RateLimit__PerKeyBurst"] = "40000",
        ["Api__RateLimit__Global"] = "20000",
        ["Api__RateLimit__GlobalBurst"] = "40000",
    };
}
