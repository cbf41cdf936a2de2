using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

public abstract class ReplayJobTests : LetterContract
{
    private static readonly LetterSelection Everything = new(null, new LetterFilter());

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task A_forecast_is_what_then_happens(int seed)
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        var random = new Random(seed);
        const int Letters = 120, Orders = 30;
        for (var number = 0; number < Letters; number++)
        {
            var (key, order) = ($"key-{number}", $"A-{random.Next(Orders)}");
            switch (random.Next(9))
            {
                case 0: await flow.GiveUpAsync(Messages.Place(key, order)); break;
                case 1: await flow.GiveUpAsync(Messages.Ship(key, order)); break;
                case 2: await flow.GiveUpAsync(Messages.Pay(key, order)); break;
                case 3: await flow.GiveUpAsync(Messages.Cancel(key, order)); break;
                case 4: await flow.SendAsync(Messages.Of(key, "order.place", """{"orderId":"A-1","customerId":"C-1","currency":"EURO","lines":[]}""")); break;
                case 5:
                    await flow.SendAsync(Messages.Place(key, order));
                    await flow.SendAsync(Messages.Place(key, order, quantity: 3));
                    break;
                case 6: await world.TakeInAsync(Letter(Messages.Place(key, order), Death("delivery_limit"))); break;
                case 7: await world.TakeInAsync(Letter(Messages.Place(key, order), [])); break;
                default: await flow.GiveUpAsync(Messages.Of(key, "order.ship", """{"orderId":""")); break;
            }
        }
        // The world goes on after the letters died: orders come, and commands that wait for others.
        for (var number = 0; number < Orders; number += 3)
        {
            await flow.SendAsync(Messages.Place($"late-{number}", $"A-{number}"));
            await flow.SendAsync(Messages.Ship($"early-{number}", $"A-{number + 1}"));
        }
        var before = await world.Store.ScalarAsync<long>("SELECT count(*) FROM outbox");

        var forecast = await world.Store.ForecastAsync(world, Everything);
        Assert.Equal(before, await world.Store.ScalarAsync<long>("SELECT count(*) FROM outbox"));

        var real = new List<(long, string)>();
        foreach (var item in forecast)
        {
            var answer = await world.Replay.ReplayAsync(new ReplayRequest(item.LetterId, "ann"), Stopping);
            real.Add((item.LetterId, answer is LetterAnswer.Conflict ? ForecastOutcome.Conflicts : Assert.Single(await flow.DeliverAsync()) switch
            {
                { Fate: Fate.Accepted } => ForecastOutcome.Succeeds,
                { Fate: Fate.Duplicate } => ForecastOutcome.AlreadyApplied,
                { Fate: Fate.Deferred } => ForecastOutcome.Waits,
                { Fate: Fate.Refused } => ForecastOutcome.Refused,
                { Reason: RejectionReason.KeyConflict } => ForecastOutcome.Conflicts,
                _ => ForecastOutcome.StillFails,
            }));
        }

        Assert.True(forecast.Count > 80, $"{forecast.Count} letters");
        Assert.Equal(real, forecast.Select(item => (item.LetterId, item.Outcome)));
        Assert.True(forecast.Select(item => item.Outcome).Distinct().Count() >= 5, string.Join(' ', forecast.Select(item => item.Outcome).Distinct()));
        Assert.All(forecast, item => Assert.EndsWith(".", item.Detail, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_canary_whose_letters_fail_again_stops_and_leaves_the_rest_untouched()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(200);
        var job = await flow.StartAsync(Everything);

        var steps = await flow.RunAsync(job.Id, stillBroken: true);

        var stopped = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Stopped, 1L, 1L, 199L), (stopped.State, stopped.Sent, stopped.Failed, stopped.Untouched));
        Assert.StartsWith("1 of 1 letters failed again", stopped.StopReason, StringComparison.Ordinal);
        Assert.Equal(RejectionReason.InternalError, Assert.Single(stopped.Failures!).Reason);
        Assert.Equal(200, await world.Queries.CountAsync(new LetterFilter(LetterStatus.Parked), Stopping));
        Assert.Equal(1, await world.Store.ScalarAsync<long>("SELECT count(*) FROM replays"));
        Assert.Equal([1L], steps);
    }

    [Fact]
    public async Task An_outcome_that_the_store_does_not_take_down_holds_up_no_other()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(20);
        var job = await flow.StartAsync(Everything, ReplayMode.All);
        var first = await world.Store.ScalarAsync<long>("SELECT min(letter_id) FROM replay_job_letters");
        await Refusal.AddAsync(world.Store.Database, "replay_job_letters", $"NEW.letter_id IN ({first}, {first + 3}) AND NEW.state = 'succeeded'");

        await flow.RunAsync(job.Id);

        var waiting = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Running, 20L, 18L), (waiting.State, waiting.Sent, waiting.Succeeded));
        var trouble = Assert.Single(world.Troubles.Standing).Trouble;
        Assert.Equal("store:replay-outcomes", trouble.Key);
        Assert.Contains(Refusal.Code(world.Store.Database, "replay_job_letters"), trouble.Detail, StringComparison.Ordinal);
        await Refusal.RemoveAsync(world.Store.Database, "replay_job_letters");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await flow.RunAsync(job.Id);

        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 20L, 20L), (done.State, done.Sent, done.Succeeded));
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task A_canary_goes_on_step_by_step_when_its_letters_succeed()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(200);
        var job = await flow.StartAsync(Everything);

        var steps = await flow.RunAsync(job.Id);

        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 200L, 200L, 0L), (done.State, done.Sent, done.Succeeded, done.Failed));
        Assert.Equal([1L, 6, 16, 26], steps.Take(4));
        await flow.AssertOneEffectEachAsync(200);
    }

    [Fact]
    public async Task A_canary_stops_in_a_later_step_too()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(200);
        var job = await flow.StartAsync(Everything);

        await flow.RunAsync(job.Id, stopAt: 16);
        await flow.RunAsync(job.Id, stillBroken: true);

        var stopped = await flow.GetAsync(job.Id);
        Assert.Equal(ReplayJobState.Stopped, stopped.State);
        Assert.InRange(stopped.Failed, 1, 10);
        Assert.Equal(200 - 26, stopped.Untouched);
    }

    [Fact]
    public async Task A_patch_goes_to_the_letters_it_fits_and_one_that_mends_nothing_stops_before_anything_is_sent()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        for (var number = 1; number <= 20; number++)
        {
            var body = Order($"A-{number}", currency: number % 5 == 0 ? "Dollar" : "Euro");
            await flow.SendAsync(Messages.Of($"key-{number}", "order.place", System.Text.Encoding.UTF8.GetString(body)));
        }

        var wrong = await flow.StartAsync(Everything, patch: Patch("""{"type":"order.pay"}"""));
        await flow.RunAsync(wrong.Id);
        var stopped = await flow.GetAsync(wrong.Id);
        Assert.Equal((ReplayJobState.Stopped, 1L, 19L, 0L), (stopped.State, stopped.Failed, stopped.Untouched, stopped.Succeeded));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM replays"));

        var job = await flow.StartAsync(
            Everything, patch: Patch("""{"body":[{"op":"test","path":"/currency","value":"Euro"},{"op":"replace","path":"/currency","value":"EUR"}]}"""));
        await flow.RunAsync(job.Id);
        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 16L, 0L, 4L), (done.State, done.Succeeded, done.Failed, done.Skipped));
        Assert.All(done.Skips!, skip => Assert.Equal(DeadLetterReplay.PatchNotApplicable, skip.Reason));
        Assert.Equal([5L, 10, 15, 20], done.Skips!.Select(skip => skip.LetterId));
        Assert.Equal(16, await world.Store.ScalarAsync<long>("SELECT count(*) FROM orders"));

        // What came and what went out instead are both kept.
        var letter = (await world.Queries.GetAsync(1, Stopping))!;
        Assert.Contains("\"EUR\"", Assert.Single(letter.Replays).Body, StringComparison.Ordinal);
        Assert.Equal(Order("A-1", currency: "Euro"), Assert.Single(await world.Store.BodiesAsync("SELECT body FROM dead_letters WHERE id = 1")));
        Assert.DoesNotContain("EUR", string.Join(' ', await world.Store.QueryAsync<string>("SELECT detail FROM audit")), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_letter_that_an_older_build_parked_does_not_close_under_another_type_but_is_mended_all_the_same()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        for (var number = 1; number <= 2; number++)
        {
            await flow.SendAsync(Messages.Of($"key-{number}", "Shop.OrderPlaced", System.Text.Encoding.UTF8.GetString(Order($"A-{number}"))));
        }
        // As they were before there were such fingerprints.
        await world.Store.ExecuteAsync("UPDATE dead_letters SET twins = NULL, keyless = 0 WHERE id = 1");

        for (var number = 1; number <= 2; number++)
        {
            await flow.SendAsync(Messages.Of($"key-{number}", "order.place", System.Text.Encoding.UTF8.GetString(Order($"A-{number}"))));
        }
        Assert.Equal([LetterStatus.Parked, LetterStatus.Superseded], await world.Store.QueryAsync<string>("SELECT status FROM dead_letters ORDER BY id"));

        var job = await flow.StartAsync(Everything, patch: Patch("""{"type":"order.place"}"""));
        await flow.RunAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 1L), ((await flow.GetAsync(job.Id)).State, (await flow.GetAsync(job.Id)).Succeeded));
        Assert.Equal([LetterStatus.Resolved, LetterStatus.Superseded], await world.Store.QueryAsync<string>("SELECT status FROM dead_letters ORDER BY id"));
        Assert.Equal(2, await world.Store.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task A_restart_in_the_middle_doubles_nothing()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(120);
        var job = await flow.StartAsync(Everything, ReplayMode.All, rate: 50);
        await flow.RunAsync(job.Id, stopAt: 50);
        // Sent, and the process died before it learnt of any outcome.
        await flow.Runner.WorkAsync(Stopping);
        var middle = await flow.GetAsync(job.Id);
        Assert.InRange(middle.Sent, 50, 119);

        using var another = new Flow(world);
        await another.RunAsync(job.Id);

        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 120L, 120L, 0L), (done.State, done.Sent, done.Succeeded, done.Skipped));
        Assert.Equal(120, await world.Store.ScalarAsync<long>("SELECT count(*) FROM replays"));
        await flow.AssertOneEffectEachAsync(120);
    }

    [Fact]
    public async Task Two_jobs_over_the_same_letters_and_two_instances_have_one_effect()
    {
        await using var world = await OpenAsync();
        using var one = new Flow(world);
        using var two = new Flow(world);
        await one.GiveUpAsync(60);
        var first = await one.StartAsync(Everything, ReplayMode.All, rate: 100);
        var second = await one.StartAsync(Everything, ReplayMode.All, rate: 100);

        for (var round = 0; round < 20; round++)
        {
            await Task.WhenAll(one.Runner.WorkAsync(Stopping), two.Runner.WorkAsync(Stopping));
            await one.DeliverAsync();
            world.Clock.Advance(TimeSpan.FromSeconds(1));
        }

        var (a, b) = (await one.GetAsync(first.Id), await one.GetAsync(second.Id));
        Assert.Equal((ReplayJobState.Done, ReplayJobState.Done), (a.State, b.State));
        Assert.Equal((60L, 60L, 60L), (a.Succeeded + b.Succeeded, a.Skipped + b.Skipped, a.Sent + b.Sent));
        await one.AssertOneEffectEachAsync(60);
    }

    [Fact]
    public async Task A_job_is_paused_resumed_and_cancelled_and_the_slower_operator_is_told_who_was_first()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(40);
        var job = await flow.StartAsync(Everything, ReplayMode.All, rate: 10);
        await flow.RunAsync(job.Id, stopAt: 5);

        Assert.IsType<ReplayJobAnswer.Done>(await flow.Jobs.PauseAsync(job.Id, "ann", Stopping));
        var conflict = Assert.IsType<ReplayJobAnswer.Conflict>(await flow.Jobs.PauseAsync(job.Id, "ben", Stopping));
        Assert.Matches("^Replay 1 is paused by ann since 2026-03-01 03:00:0.Z.$", conflict.Detail);
        var sent = (await flow.GetAsync(job.Id)).Sent;
        await flow.RunAsync(job.Id);
        var paused = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Paused, sent, sent), (paused.State, paused.Sent, paused.Succeeded));

        Assert.IsType<ReplayJobAnswer.Done>(await flow.Jobs.ResumeAsync(job.Id, "ann", Stopping));
        await flow.RunAsync(job.Id, stopAt: sent + 5);
        Assert.IsType<ReplayJobAnswer.Done>(await flow.Jobs.CancelAsync(job.Id, "ben", Stopping));
        await flow.RunAsync(job.Id);

        var cancelled = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Cancelled, "ben"), (cancelled.State, cancelled.StateBy));
        Assert.InRange(cancelled.Sent, sent + 5, 39);
        Assert.Equal(cancelled.Untouched, await world.Queries.CountAsync(new LetterFilter(LetterStatus.Parked), Stopping));
        Assert.IsType<ReplayJobAnswer.Conflict>(await flow.Jobs.ResumeAsync(job.Id, "ann", Stopping));
        Assert.IsType<ReplayJobAnswer.NotFound>(await flow.Jobs.CancelAsync(99, "ann", Stopping));
        Assert.Equal(["replay.start", "replay.pause", "replay.resume", "replay.cancel"], await world.Store.QueryAsync<string>("SELECT action FROM audit WHERE subject = 'replay 1' ORDER BY id"));
    }

    [Fact]
    public async Task A_job_keeps_to_its_rate_and_waits_while_the_queue_is_deep()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(60);
        var job = await flow.StartAsync(Everything, ReplayMode.All, rate: 10);

        for (var quarter = 0; quarter <= 8; quarter++)
        {
            await flow.Runner.WorkAsync(Stopping);
            world.Clock.Advance(TimeSpan.FromMilliseconds(250));
        }
        Assert.InRange((await flow.GetAsync(job.Id)).Sent, 19, 21);

        flow.Depth = 5000;
        world.Clock.Advance(TimeSpan.FromHours(1));
        await flow.Runner.WorkAsync(Stopping);
        var waiting = await flow.GetAsync(job.Id);
        Assert.InRange(waiting.Sent, 19, 21);
        Assert.Equal("The queue orders is 5,000 messages deep; it goes on below 1,001.", waiting.Waiting);

        flow.Depth = 10;
        await flow.Runner.WorkAsync(Stopping);
        var after = await flow.GetAsync(job.Id);
        Assert.Null(after.Waiting);
        // An hour's pause is not made up for.
        Assert.InRange(after.Sent, 29, 31);
    }

    /// <param name="seen">False when the process looks at the clock only after the job's next steps.</param>
    [Theory]
    [InlineData(2, true)]
    [InlineData(2, false)]
    [InlineData(-2, true)]
    [InlineData(-2, false)]
    public async Task A_clock_that_is_set_neither_holds_a_job_up_nor_hurries_it(int hours, bool seen)
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        using var other = new Flow(world);
        await flow.GiveUpAsync(60);
        await world.Steps.LookAsync(Stopping);
        var job = await flow.StartAsync(Everything, ReplayMode.All, rate: 10);
        await flow.RunAsync(job.Id, stopAt: 10);
        var before = (await flow.GetAsync(job.Id)).Sent;

        world.Clock.Step(TimeSpan.FromHours(hours));
        if (seen)
        {
            await world.Steps.LookAsync(Stopping);
        }

        await flow.RunAsync(job.Id, stopAt: before + 20);
        Assert.InRange((await flow.GetAsync(job.Id)).Sent, before + 20, before + 21);
        await world.Steps.LookAsync(Stopping);

        // Its process dies as the clock is set again; another one goes on as soon as the dead one's turn is over.
        before = (await flow.GetAsync(job.Id)).Sent;
        world.Clock.Step(TimeSpan.FromHours(hours));
        if (seen)
        {
            await world.Steps.LookAsync(Stopping);
            await other.Runner.WorkAsync(Stopping);
            Assert.Equal(before, (await flow.GetAsync(job.Id)).Sent);
        }
        world.Clock.Advance(TimeSpan.FromSeconds(10));
        await other.RunAsync(job.Id);

        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 60L, 60L), (done.State, done.Sent, done.Succeeded));
        await flow.AssertOneEffectEachAsync(60);
    }

    [Fact]
    public async Task A_job_waits_while_intake_is_paused_and_says_so()
    {
        await using var world = await OpenAsync();
        using var flow = new Flow(world);
        await flow.GiveUpAsync(5);
        flow.IntakePaused = "Intake of orders is paused by anna: the disk is changed.";
        var job = await flow.StartAsync(Everything, ReplayMode.All, rate: 100);

        await flow.Runner.WorkAsync(Stopping);
        var waiting = await flow.GetAsync(job.Id);
        Assert.Equal((0, "Intake of orders is paused by anna: the disk is changed. It goes on when intake does."), (waiting.Sent, waiting.Waiting));

        flow.IntakePaused = null;
        world.Clock.Advance(TimeSpan.FromSeconds(1));
        await flow.Runner.WorkAsync(Stopping);
        var after = await flow.GetAsync(job.Id);
        Assert.Equal((5, null), (after.Sent, after.Waiting?.Contains("paused", StringComparison.Ordinal) == true ? after.Waiting : null));
    }

    [Fact]
    public async Task A_job_takes_the_letters_there_were_and_none_that_may_not_be_sent()
    {
        await using var world = await OpenAsync(letters: new DeadLettersOptions { MaxReplays = 1 });
        using var flow = new Flow(world);
        await flow.GiveUpAsync(3);
        // Replayed as often as it may be.
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);
        await flow.DeliverAsync(stillBroken: true);
        await world.TakeInAsync(Letter(Messages.Place("foreign", "A-foreign"), []));
        var job = await flow.StartAsync(Everything);
        await flow.GiveUpAsync(Messages.Place("later", "A-later"));

        await flow.RunAsync(job.Id);

        var done = await flow.GetAsync(job.Id);
        Assert.Equal((ReplayJobState.Done, 4L, 2L, 2L, 2L), (done.State, done.Total, done.Sent, done.Succeeded, done.Skipped));
        Assert.Equal(["replay_exhausted", "confirmation_needed"], await world.Store.QueryAsync<string>("SELECT reason FROM replay_job_letters WHERE state = 'skipped' ORDER BY letter_id"));
        Assert.Null(await flow.Jobs.CreateAsync(new ReplayJobRequest(new LetterSelection([2], new LetterFilter()), "ann", ""), Stopping));
    }

    private static LetterArrival Letter(Incoming incoming, Dictionary<string, object?> headers)
    {
        var properties = incoming.Properties;
        var more = new Dictionary<string, object?>(properties.Headers ?? new Dictionary<string, object?>(), StringComparer.Ordinal);
        foreach (var (name, value) in headers)
        {
            more[name] = value;
        }
        return new LetterArrival(incoming.Body, new MessageProperties { MessageId = properties.MessageId, Type = properties.Type, CorrelationId = properties.CorrelationId, Headers = more });
    }

    /// <summary>The order flow and one instance's runner, without a broker between them.</summary>
    private static LetterPatch Patch(string json)
    {
        var patch = LetterPatch.Read(System.Text.Json.Nodes.JsonNode.Parse(json), forMany: true, out _, out var mistake);
        Assert.True(patch is not null, mistake);
        return patch;
    }

    private sealed class Flow : IDisposable
    {
        private readonly LetterWorld world;
        private readonly InboxCommit commit;

        public Flow(LetterWorld world)
        {
            this.world = world;
            IOrderEventStore store = world.Store.Database is PostgresDatabase postgres
                ? new PostgresOrderEventStore(postgres, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance)
                : new SqliteOrderEventStore((SqliteDatabase)world.Store.Database);
            commit = new InboxCommit(store, [], Options.Create(new OrdersOptions()), world.Clock);
            Jobs = new ReplayJobs(world.Store.Database, world.Clock);
            Runner = new ReplayJobRunner(world.Store.Database, world.Replay, world.Parking, () => Depth, () => IntakePaused, Options.Create(new DeadLettersOptions()), world.Troubles, world.Time, world.Clock, NullLogger<ReplayJobRunner>.Instance);
        }

        public ReplayJobs Jobs { get; }

        public ReplayJobRunner Runner { get; }

        public long? Depth { get; set; } = 0;

        public string? IntakePaused { get; set; }

        public async Task<ReplayJob> GetAsync(long id) => (await Jobs.GetAsync(id, Stopping))!;

        public async Task<ReplayJob> StartAsync(LetterSelection selection, string mode = ReplayMode.Canary, double rate = 1000, LetterPatch? patch = null) =>
            (await Jobs.CreateAsync(new ReplayJobRequest(selection, "ann", "mended", mode, rate, patch), Stopping))!;

        /// <summary>Sound orders that a mistake of ours gave up.</summary>
        public async Task GiveUpAsync(int count)
        {
            for (var number = 1; number <= count; number++)
            {
                await GiveUpAsync(Messages.Place($"key-{number}", $"A-{number}"));
            }
        }

        public async Task GiveUpAsync(Incoming incoming)
        {
            await commit.CommitAsync([incoming.GivenUp()], Stopping);
            await world.TakeInAsync(Letter(incoming, Death()));
        }

        /// <summary>What the intake does with a delivery, and what the broker does with one that is rejected.</summary>
        public async Task<Incoming> SendAsync(Incoming incoming)
        {
            await commit.CommitAsync([incoming], Stopping);
            if (incoming.Fate == Fate.Rejected)
            {
                await world.TakeInAsync(Letter(incoming, Death()));
            }
            return incoming;
        }

        /// <summary>Hands out what was replayed.</summary>
        public async Task<IReadOnlyList<Incoming>> DeliverAsync(bool stillBroken = false)
        {
            var delivered = new List<Incoming>();
            foreach (var row in (await world.Store.QueryAsync<LetterWorld.OutboxRow>("SELECT message, body FROM outbox WHERE kind = 3 ORDER BY id")).Select(row => row.Opened(world.Store)))
            {
                var message = Announcement.Parse(row.Message);
                var properties = new MessageProperties
                {
                    MessageId = message.MessageId,
                    Type = message.Type,
                    ContentType = message.ContentType,
                    CorrelationId = message.CorrelationId,
                    Headers = message.Headers!.ToDictionary(header => header.Key, header => (object?)header.Value),
                };
                var incoming = new Incoming(EnvelopeDecoder.Decode(properties, row.Body), row.Body, properties);
                delivered.Add(await SendAsync(stillBroken ? incoming.GivenUp() : incoming));
            }
            await world.Store.ExecuteAsync("DELETE FROM outbox WHERE kind = 3");
            return delivered;
        }

        /// <summary>Lets the job run, a second a round, until it ends, is paused or has sent <paramref name="stopAt"/>.</summary>
        /// <returns>How many had been sent after each round that sent some.</returns>
        public async Task<List<long>> RunAsync(long id, bool stillBroken = false, long stopAt = long.MaxValue)
        {
            var sent = new List<long>();
            for (var round = 0; round < 100; round++)
            {
                await Runner.WorkAsync(Stopping);
                var job = await GetAsync(id);
                if (job.Sent > 0 && (sent.Count == 0 || sent[^1] != job.Sent))
                {
                    sent.Add(job.Sent);
                }
                await DeliverAsync(stillBroken);
                world.Clock.Advance(TimeSpan.FromSeconds(1));
                if (job.Sent >= stopAt || (job.State != ReplayJobState.Running && job.UnderWay == 0))
                {
                    break;
                }
            }
            return sent;
        }

        public async Task AssertOneEffectEachAsync(int orders)
        {
            Assert.Equal(orders, await world.Store.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(orders, await world.Store.ScalarAsync<long>("SELECT count(DISTINCT order_id) FROM events"));
            Assert.Equal(orders, await world.Queries.CountAsync(new LetterFilter(LetterStatus.Resolved), Stopping));
        }

        public void Dispose()
        {
            commit.Dispose();
            Runner.Dispose();
        }
    }
}

internal static class Forecasts
{
    public static Task<IReadOnlyList<ForecastItem>> ForecastAsync(this TestStore store, LetterWorld world, LetterSelection selection) =>
        new ReplayForecast(store.Database, store.Log, Options.Create(new OrdersOptions()), Options.Create(new DeadLettersOptions()), world.Clock).EachAsync(selection, Stopping);
}

public sealed class ReplayJobOnSqliteTests : ReplayJobTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class ReplayJobOnPostgresTests(PostgresContainerFixture postgres) : ReplayJobTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}
