using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Notifications;
using OrderService.Projections;
using OrderService.Seals;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Seals;

/// <summary>Who has the store and not the key changes nothing unnoticed; who works with the service is never accused of it. A subclass for each database.</summary>
public abstract class SealContract
{
    protected static CancellationToken Stopping => TestContext.Current.CancellationToken;

    /// <summary>How many random tamperings are tried.</summary>
    protected abstract int Tamperings { get; }

    protected abstract Task<TestStore> OpenStoreAsync();

    private async Task<SealWorld> OpenAsync() => new(await OpenStoreAsync());

    [Fact]
    public async Task Heavy_work_of_the_service_is_no_tampering()
    {
        await using var world = await OpenAsync();
        await world.SealAsync();
        for (var turn = 0; turn < 3; turn++)
        {
            await world.OrdersAsync(12);
            await world.OrderWithPlainEmailAsync($"E-{turn}", $"C-{turn}");
            await world.LettersAsync(14);
            // Not sealed yet: nothing is said about it, and nothing is wrong.
            Assert.True((await world.SoundAsync()).Unsealed > 0);
            await world.SealAsync();
            Assert.Equal(0, (await world.SoundAsync()).Unsealed);
            await world.ForgetAsync($"C-{turn}");
            await world.SoundAsync();
            if (turn == 1)
            {
                Assert.NotNull(world.Store.Database.Keys.Seals.Rotate());
            }
            await world.SealAsync();
            await world.SoundAsync();
        }
        var gone = await world.RetainAsync();
        Assert.All(["settled_dead_letters", "closed_orders", "audit"], kind => Assert.True(gone[kind] > 0, kind));
        await world.SoundAsync();

        await world.SealAsync();

        var report = await world.SoundAsync();
        Assert.Equal(0, report.Unsealed);
        Assert.Equal(
            await world.Store.ScalarAsync<long>("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM audit)"), report.Rows);
        Assert.Equal(SealRound.Nothing, await world.SealAsync());
    }

    [Fact]
    public async Task A_look_beside_work_and_sealing_accuses_nobody()
    {
        await using var world = await OpenAsync();
        using var enough = new CancellationTokenSource();
        var sealing = Task.Run(async () =>
        {
            while (!enough.IsCancellationRequested)
            {
                await world.SealAsync();
            }
        }, Stopping);
        var work = Task.Run(async () =>
        {
            await world.OrdersAsync(30);
            await world.LettersAsync(28);
            await world.RetainAsync();
        }, Stopping);
        while (!work.IsCompleted)
        {
            Assert.Empty((await world.VerifyAsync()).Findings);
        }
        await work;
        await enough.CancelAsync();
        await sealing;
        await world.SealAsync();

        Assert.Equal(0, (await world.SoundAsync()).Unsealed);
    }

    [Fact]
    public async Task Everything_that_is_done_without_the_key_is_found()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(5);
        await world.LettersAsync(7);
        var used = await world.Store.QueryAsync<WaitingMark>("SELECT id, subject, row_id, kind, nonce, mark FROM seal_marks");
        await world.SealAsync();
        await world.OrdersAsync(3);
        await world.LettersAsync(3);
        await world.SealAsync();
        await world.SoundAsync();

        var seed = Random.Shared.Next();
        var missed = await world.Store.Database.WriteAsync(
            async transaction =>
            {
                var inside = new StoreInside(world.Store.Database, transaction);
                var (seals, orders) = (new SealVerification(inside, TimeProvider.System) { Looks = 1 }, new StoreVerification(inside, new EventQueries(inside)));
                for (var attempt = 0; attempt < Tamperings; attempt++)
                {
                    await transaction.SaveAsync("before");
                    var done = await new Tampering(transaction, new Random(seed + attempt), inside.Provider == "Sqlite", used).DoAsync();
                    var isFound = done is null
                        || !(await seals.RunAsync(null, isHere: true, null, CancellationToken.None)).IsSound
                        || (await orders.RunAsync(repair: false, null, CancellationToken.None)).Wrong > 0;
                    await transaction.RollbackAsync("before");
                    await transaction.ReleaseAsync("before");
                    if (!isFound)
                    {
                        return $"{done} (seed {seed + attempt})";
                    }
                }
                return null;
            },
            Stopping);

        Assert.Null(missed);
        await world.SoundAsync();
    }

    [Fact]
    public async Task Only_what_the_service_wrote_is_sealed_and_the_rest_is_named_for_good()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(2);
        await world.LettersAsync(1);
        await world.SealAsync();

        // A forged event with a right hash and a right head, an audit row that nobody wrote, a letter that somebody settled.
        await world.Store.ExecuteAsync(
            """
            INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash)
            SELECT stream, order_id, version + 1, type, data, correlation_id, causation_id, recorded_at, hash FROM events ORDER BY position DESC LIMIT 1
            """);
        await world.Store.ExecuteAsync("INSERT INTO audit (at, who, action, subject, detail) VALUES (1, 'key:anna', 'dead-letter.discard', 'dead letter 1', 'forged')");
        await world.Store.ExecuteAsync("UPDATE dead_letters SET status = 'discarded', settled_by = 'key:anna', settled_at = 1");
        var round = await world.SealAsync();

        Assert.Equal((1, 0), (round.Foreign, round.Unknown));
        foreach (var again in (bool[])[false, true])
        {
            if (again)
            {
                await world.OrdersAsync(1);
                await world.SealAsync();
            }
            var findings = (await world.VerifyAsync()).Findings;
            Assert.Contains(findings, finding => finding.EndsWith("of events was not written by the service.", StringComparison.Ordinal));
            Assert.Contains(findings, finding => finding.Contains("of audit was not written by the service, or", StringComparison.Ordinal));
            Assert.Contains(findings, finding => finding.Contains("of dead_letters is not what was sealed: it was changed", StringComparison.Ordinal));
            Assert.Equal(3, findings.Count);
        }
    }

    [Fact]
    public async Task An_end_that_was_cut_off_is_found_beside_the_keys_and_by_the_head_that_somebody_kept()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(3);
        await world.SealAsync();
        var early = await world.HeadAsync();
        await world.OrdersAsync(3);
        await world.SealAsync();
        var late = await world.HeadAsync();
        Assert.True((await world.VerifyAsync(early)).IsSound && (await world.VerifyAsync(late)).IsSound);
        Assert.Equal(late, SealHead.Parse((await world.VerifyAsync()).Head!), (one, other) => one!.ToString() == other!.ToString());

        await world.Store.ExecuteAsync("DELETE FROM seals WHERE number > @Number", new { early.Number });

        var found = Assert.Single((await world.VerifyAsync()).Findings);
        Assert.Contains($"ends at seal {early.Number}, and seal {late.Number} was noted beside the keys", found, StringComparison.Ordinal);
        // Whoever reached what lies beside the keys too did not reach the mailbox.
        world.Store.Database.Keys.Seals.ForgetHead(await world.Store.Database.ReadAsync(EpochsTable.StoreIdAsync, Stopping));
        Assert.True((await world.VerifyAsync(early)).IsSound);
        Assert.Contains("was noted outside", Assert.Single((await world.VerifyAsync(late)).Findings), StringComparison.Ordinal);
        // The service seals what it finds again, and the head that was kept is not in that chain.
        await world.SealAsync();
        Assert.Contains("has another seal", Assert.Single((await world.VerifyAsync(late)).Findings), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_lost_key_proves_nothing_and_accuses_nobody_and_a_known_one_vouches_for_what_was_before()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(3);
        await world.LettersAsync(2);
        await world.SealAsync();
        await using var other = Reopen(world.Store, new SealsOptions { Key = Convert.ToBase64String(new byte[32]) });
        await LoseKeysAsync(world.Store);

        var lost = await new SealVerification(other, TimeProvider.System).RunAsync(null, isHere: true, null, Stopping);

        Assert.Equal((0, false), (lost.Tampered, lost.IsSound));
        Assert.Contains("not verifiable: the key", Assert.Single(lost.Findings), StringComparison.Ordinal);
        // Data is not lost, and a service with another key goes on.
        await new SealMaker(other, TimeProvider.System).RunAsync(_ => Task.CompletedTask, Stopping);
        await new StoreInstance(other, Log(other)).AppendAsync(Place("new-1", "N-1"));
        await new SealMaker(other, TimeProvider.System).RunAsync(_ => Task.CompletedTask, Stopping);
        var vouched = await new SealVerification(other, TimeProvider.System).RunAsync(null, isHere: true, null, Stopping);
        Assert.Empty(vouched.Findings);
        Assert.Contains(vouched.Notes, note => note.Contains("Later seals under a known key vouch for them", StringComparison.Ordinal));
        await world.Store.ExecuteAsync("UPDATE events SET causation_id = 'x' WHERE version = 1");
        Assert.True((await new SealVerification(other, TimeProvider.System).RunAsync(null, isHere: true, null, Stopping)).Tampered > 0);
    }

    [Fact]
    public async Task What_is_older_than_seals_is_sealed_as_it_is_found()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(3);
        await world.LettersAsync(3);
        // As the version before left it, and the migration found it.
        await world.Store.ExecuteAsync("UPDATE events SET mark = NULL");
        await world.Store.ExecuteAsync("DELETE FROM seal_marks");
        foreach (var subject in SealSubject.All)
        {
            await world.Store.ExecuteAsync($"UPDATE seal_beginnings SET found_to = (SELECT max({subject.Row}) FROM {subject.Table}) WHERE subject = '{subject.Table}'");
        }
        Assert.True((await world.SoundAsync()).Unsealed > 0);
        await world.LettersAsync(1);

        await world.SealAsync();

        Assert.Equal(0, (await world.SoundAsync()).Unsealed);
        await world.Store.ExecuteAsync("UPDATE events SET correlation_id = 'x' WHERE position = 1");
        Assert.Contains((await world.VerifyAsync()).Findings, finding => finding.StartsWith("Row 1 of events is not what was sealed", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_newest_seal_goes_out_with_each_digest_and_else_once_a_day_when_there_is_a_new_one()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(1);
        await world.SealAsync();
        var first = await world.HeadAsync();
        await world.LettersAsync(3);
        Assert.Contains($"\"seal\":\"{first}\"", await world.Store.ScalarAsync<string>("SELECT data FROM alerts WHERE kind = 'digest'"), StringComparison.Ordinal);
        Assert.Contains($"Newest seal: {first}", await world.Store.ScalarAsync<string>("SELECT text FROM alerts WHERE kind = 'digest'"), StringComparison.Ordinal);

        var clock = new SteppingTime(TimeProvider.System.GetUtcNow());
        var daily = new SealHeadAlerts(
            world.Store.Database, Options.Create(new AlertsOptions()), Options.Create(new SealsOptions()), new StoreTime(clock) { ServerClock = clock.GetUtcNow }, clock, NullLogger<SealHeadAlerts>.Instance);
        var maker = new SealMaker(world.Store.Database, clock);
        await world.Store.ExecuteAsync("UPDATE schedules SET last_at = 0 WHERE name = 'seal-head'");
        await maker.RunAsync(_ => Task.CompletedTask, Stopping);
        // The first day is not over, then nothing is new.
        Assert.Null(await daily.TellAsync(Stopping));
        clock.Advance(TimeSpan.FromHours(25));
        Assert.Null(await daily.TellAsync(Stopping));
        await world.OrdersAsync(1);
        await maker.RunAsync(_ => Task.CompletedTask, Stopping);

        var alert = await daily.TellAsync(Stopping);

        Assert.Equal(("seal", $"Seal of the day: {await world.HeadAsync()}"), await world.Store.Database.ReadAsync(
            connection => connection.QuerySingleAsync<(string, string)>("SELECT kind, subject FROM alerts WHERE id = @alert", new { alert }), Stopping));
        Assert.Null(await daily.TellAsync(Stopping));
    }

    [Fact]
    public async Task Every_column_is_under_seal()
    {
        await using var world = await OpenAsync();
        foreach (var subject in SealSubject.All)
        {
            var columns = world.Store.Folder is not null
                ? await world.Store.QueryAsync<string>($"SELECT name FROM pragma_table_info('{subject.Table}')")
                : await world.Store.QueryAsync<string>($"SELECT column_name::text FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '{subject.Table}'");
            Assert.Equal(columns.Order(StringComparer.Ordinal), subject.Columns.Select(column => column.Name).Order(StringComparer.Ordinal));
        }
    }

    [Fact]
    public async Task Two_instances_that_seal_at_once_make_one_chain()
    {
        await using var world = await OpenAsync();
        await world.OrdersAsync(20);
        await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(
            async () =>
            {
                try
                {
                    await world.SealAsync();
                }
                catch (StoreConflictException)
                {
                    // Another was faster.
                }
            },
            Stopping)));
        await world.SealAsync();

        Assert.Equal(0, (await world.SoundAsync()).Unsealed);
    }

    /// <summary>The same store with other settings of its seals.</summary>
    private protected abstract IDatabase Reopen(TestStore store, SealsOptions seals);

    /// <summary>The keys of seals are gone; what was noted of the chain with them.</summary>
    private protected abstract Task LoseKeysAsync(TestStore store);

    private protected abstract IOrderEventStore Log(IDatabase database);
}

public sealed class SealManifestTests
{
    [Fact]
    public void A_manifest_is_read_as_it_was_written()
    {
        var random = new Random(7);
        var row = 0L;
        List<SealEntry> entries = [.. Enumerable.Range(0, 500).Select(_ =>
        {
            row += random.NextInt64(1, random.Next(4) == 0 ? 1_000_000_000_000 : 3);
            var state = (SealedState)random.Next(1, 7);
            return new SealEntry(row, state, SealEntry.HasHash(state) ? Bytes(32) : null, [.. Enumerable.Range(0, random.Next(3)).Select(_ => Bytes(SealKeys.NonceLength))]);
        })];

        var read = SealManifest.Read(SealManifest.Write(entries)).ToList();

        Assert.Equal(entries.Select(Text), read.Select(Text));
        Assert.Throws<InvalidDataException>(() => SealManifest.Read(SealManifest.Write(entries)[..^1]).ToList());

        byte[] Bytes(int length)
        {
            var bytes = new byte[length];
            random.NextBytes(bytes);
            return bytes;
        }

        static string Text(SealEntry entry) => $"{entry.Row} {entry.State} {(entry.Hash is { } hash ? Convert.ToHexString(hash) : "")} {string.Join(' ', entry.Nonces.Select(Convert.ToHexString))}";
    }
}
