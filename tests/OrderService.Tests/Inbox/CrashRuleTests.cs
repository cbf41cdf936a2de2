using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Tests.Inbox;

/// <summary>Kills from outside blame nobody, and a message that ends the process is found. The simulation has the flow's steps and their durations on a slow disk.</summary>
public sealed class CrashRuleTests
{
    private const int MaxCrashes = 2;
    private const int SuspectAfterReturns = 2;
    private const int DeliveryLimit = 20;
    private const int Kills = 10_000;

    [Theory]
    [InlineData(1, Kills, 2, 0.0)]
    [InlineData(2, 3000, 3, 0.0)]
    [InlineData(3, 3000, 2, 0.02)]
    public void None_of_ten_thousand_kills_blames_a_message_or_has_the_broker_give_one_up(int seed, int kills, double slowness, double storesPause)
    {
        var shop = new Shop(seed) { Slowness = slowness, StoresPause = storesPause };

        for (var kill = 0; kill < kills; kill++)
        {
            shop.Live(endsAfter: 0.6 + (shop.Random.NextDouble() * 1.6));
        }

        Assert.Empty(shop.Blamed);
        Assert.Empty(shop.GivenUp);
        Assert.True(shop.EndedOverSuspects > 50, $"Only {shop.EndedOverSuspects} kills hit messages that were noted as begun: the simulation shows nothing.");
        Assert.True(shop.Decided > kills * 100, $"Only {shop.Decided} messages were decided.");
    }

    [Fact]
    public void Counting_blames_innocents_in_the_same_simulation()
    {
        var shop = new Shop(1) { Counts = true };

        for (var kill = 0; kill < Kills; kill++)
        {
            shop.Live(endsAfter: 0.6 + (shop.Random.NextDouble() * 1.6));
        }

        Assert.NotEmpty(shop.Blamed);
    }

    [Fact]
    public void The_message_that_ends_the_process_is_found_within_the_promised_starts_wherever_it_lies_and_costs_no_other()
    {
        for (var seed = 1; seed <= 200; seed++)
        {
            var shop = new Shop(seed) { Killer = new Random(seed).Next(seed % 2 == 0 ? 30 : 2000), Length = seed % 2 == 0 ? 30 : 5000 };

            var starts = shop.LiveOn();

            Assert.Equal([shop.Killer], shop.Blamed);
            Assert.InRange(starts, SuspectAfterReturns + MaxCrashes, MaxCrashes + 5);
            Assert.Equal(shop.Length - 1, shop.Decided);
        }
    }

    [Fact]
    public void It_is_found_after_many_kills_from_outside_too_before_the_broker_gives_it_up()
    {
        for (var seed = 1; seed <= 20; seed++)
        {
            var shop = new Shop(seed);
            for (var kill = 0; kill < 50; kill++)
            {
                shop.Live(endsAfter: 0.6 + (shop.Random.NextDouble() * 1.6));
            }
            shop.Killer = shop.Next + 3000;
            shop.Length = shop.Next + 5000;

            shop.LiveOn();

            Assert.Equal([shop.Killer], shop.Blamed);
            Assert.Empty(shop.GivenUp);
        }
    }

    [Fact]
    public void Of_two_of_them_each_is_found_or_given_up_by_the_broker_and_no_other_is()
    {
        var shop = new Shop(1) { Killer = 100, SecondKiller = 700, Length = 2000 };

        shop.LiveOn();

        Assert.Equal([100, 700], shop.Blamed.Concat(shop.GivenUp).Order());
        Assert.NotEmpty(shop.Blamed);
        Assert.Equal(shop.Length - 2, shop.Decided);
    }

    [Fact]
    public void What_ended_processes_in_company_is_begun_alone_and_what_ended_one_alone_comes_last()
    {
        var suspects = Enumerable.Repeat(new Suspicion(0, 0, 3), 100).ToList();
        suspects[10] = new Suspicion(1, 0, 3);
        suspects[20] = new Suspicion(1, 1, 4);
        suspects[30] = new Suspicion(0, 1, 4);

        var trials = new CrashRule(SuspectAfterReturns, MaxCrashes, DeliveryLimit).Arrange(suspects, index => index == 30 ? 8 : 3);

        Assert.Equal([10], trials.Alone);
        Assert.Equal([20], trials.Accused);
        Assert.Equal([30], trials.Urgent);
        Assert.Equal(97, trials.Groups.Sum(group => group.Count));
        Assert.All(trials.Groups, group => Assert.InRange(group.Count, 1, CrashRule.LargestGroup));
    }

    /// <summary>A queue, a store and one process after the other, in simulated time.</summary>
    private sealed class Shop(int seed)
    {
        private const int Prefetch = 2000;
        private const double Connect = 0.05, Batch = 0.06, Look = 0.004, Mark = 0.006, Commit = 0.006, Control = 0.006, Hold = 0.03;

        private readonly CrashRule rule = new(SuspectAfterReturns, MaxCrashes, DeliveryLimit);
        private readonly Dictionary<int, Row> started = [];
        private readonly Queue<double> ended = [];
        private readonly HashSet<int> lives = [];

        // Messages that came back, with how often; the rest of what is in hand is fresh and lies in a row.
        private readonly Dictionary<int, int> returned = [];
        private (int From, int To) fresh;
        private double now;
        private double end;
        private int life;

        public Random Random { get; } = new(seed);
        public int Killer { get; set; } = -1;
        public int SecondKiller { get; set; } = -1;
        public int Length { get; set; } = int.MaxValue;

        /// <summary>How many times as long every step takes.</summary>
        public double Slowness { get; init; } = 1;

        /// <summary>How likely a step takes twenty times as long.</summary>
        public double StoresPause { get; init; }

        public List<int> Blamed { get; } = [];
        public int Next => fresh.To;
        public int Decided { get; private set; }
        public int EndedOverSuspects { get; private set; }

        /// <summary>What the broker gave up, for it was returned too often.</summary>
        public List<int> GivenUp { get; } = [];

        /// <summary>Crashes are counted, as they were before: each suspect is begun alone, and two ends blame it.</summary>
        public bool Counts { get; init; }

        /// <summary>Nobody kills it from outside.</summary>
        /// <returns>How many starts it took until everything was decided.</returns>
        public int LiveOn()
        {
            var starts = 1;
            while (Live(endsAfter: double.MaxValue))
            {
                Assert.True(++starts < 50, "It is not found.");
            }
            return starts;
        }

        /// <returns>Whether the process ended before everything was decided.</returns>
        public bool Live(double endsAfter)
        {
            life++;
            end = now + endsAfter;
            var (noted, connected) = (false, false);
            try
            {
                now += 0.35 + (Random.NextDouble() * 0.35);
                Take(0);
                noted = true;
                while (true)
                {
                    Take(Connect);
                    connected = true;
                    fresh.To = Math.Min(Length, fresh.From + Prefetch - returned.Count);
                    if (returned.Count == 0 && fresh.From == fresh.To)
                    {
                        return false;
                    }
                    var young = returned.Where(message => message.Value < SuspectAfterReturns).Select(message => message.Key).ToArray();
                    var half = Math.Min(fresh.To, fresh.From + (Prefetch / 2));
                    Begin(message => (message >= fresh.From && message < half) || young.Contains(message));
                    Take(Batch);
                    Decide(young);
                    Decided += half - fresh.From;
                    fresh.From = half;
                    TrySuspects();
                    Begin(message => message >= fresh.From && message < fresh.To);
                    Take(Batch);
                    Decided += fresh.To - fresh.From;
                    fresh.From = fresh.To;
                }
            }
            catch (TimeoutException)
            {
                now = end;
                // What was not handed out is not returned.
                foreach (var message in connected ? returned.Keys.ToArray() : [])
                {
                    if (++returned[message] > DeliveryLimit)
                    {
                        returned.Remove(message);
                        GivenUp.Add(message);
                    }
                }
                for (var message = fresh.From; message < fresh.To; message++)
                {
                    returned[message] = 1;
                }
                fresh.From = fresh.To;
                if (noted)
                {
                    ended.Enqueue(now);
                    lives.Add(life);
                }
                EndedOverSuspects += started.Values.Any(row => row.Life == life) ? 1 : 0;
                return true;
            }
        }

        private void TrySuspects()
        {
            var suspects = returned.Keys.Order().ToList();
            if (suspects.Count == 0)
            {
                return;
            }
            Take(Look);
            var known = suspects.ConvertAll(Known);
            if (Counts)
            {
                foreach (var (suspect, suspicion) in suspects.Zip(known))
                {
                    if (suspicion.Alone >= MaxCrashes)
                    {
                        Blame(suspect);
                        continue;
                    }
                    Try([suspect], alone: true);
                }
                return;
            }
            var trials = rule.Arrange(known, index => returned[suspects[index]]);
            foreach (var index in trials.Urgent)
            {
                if (rule.IsToBlame(known[index]))
                {
                    Blame(suspects[index]);
                    continue;
                }
                Try([suspects[index]], alone: false);
            }
            foreach (var index in trials.Alone)
            {
                Try([suspects[index]], alone: true);
            }
            foreach (var group in trials.Groups)
            {
                Try([.. group.Select(index => suspects[index])], alone: false);
            }
            foreach (var accused in trials.Accused.Select(index => suspects[index]))
            {
                Take(Hold + Look);
                if (rule.IsToBlame(Known(accused)))
                {
                    Blame(accused);
                    continue;
                }
                Take(Control);
                Try([accused], alone: true);
            }
        }

        private void Blame(int message)
        {
            Take(Commit);
            Blamed.Add(message);
            started.Remove(message);
            returned.Remove(message);
            ended.Clear();
        }

        private void Try(int[] messages, bool alone)
        {
            Take(Mark);
            foreach (var message in messages)
            {
                var known = Known(message);
                started[message] = new Row(life, alone, known.InCompany, known.Alone);
            }
            Begin(messages.Contains);
            Take(Commit);
            Decide(messages);
        }

        private Suspicion Known(int message)
        {
            while (ended.TryPeek(out var first) && first < now - CrashRule.Memory.TotalSeconds)
            {
                ended.Dequeue();
            }
            if (!started.TryGetValue(message, out var row))
            {
                return new Suspicion(0, 0, ended.Count);
            }
            var more = row.Life != life && lives.Contains(row.Life) ? 1 : 0;
            return new Suspicion(row.InCompany + (row.Alone ? 0 : more), row.EndsAlone + (row.Alone ? more : 0), ended.Count);
        }

        private void Begin(Func<int, bool> isBegun)
        {
            if ((Killer >= 0 && isBegun(Killer)) || (SecondKiller >= 0 && isBegun(SecondKiller)))
            {
                end = now;
                throw new TimeoutException();
            }
        }

        private void Decide(int[] messages)
        {
            foreach (var message in messages)
            {
                started.Remove(message);
                returned.Remove(message);
            }
            Decided += messages.Length;
        }

        /// <summary>Time passes; what was to be done by then is done only if the process lives as long.</summary>
        private void Take(double seconds)
        {
            now += Slowness * seconds * (0.5 + Random.NextDouble()) * (Random.NextDouble() < StoresPause ? 20 : 1);
            if (now >= end)
            {
                throw new TimeoutException();
            }
        }

        private sealed record Row(int Life, bool Alone, int InCompany, int EndsAlone);
    }
}
