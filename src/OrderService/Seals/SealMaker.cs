using System.Security.Cryptography;
using OrderService.Store;

namespace OrderService.Seals;

/// <summary>What a round of sealing did.</summary>
/// <param name="Rows">How many rows have a seal now that had none before, or that changed since.</param>
/// <param name="Foreign">How many of them nobody vouches for.</param>
/// <param name="Unknown">How many marks wait because they, or the key that they name, are not known here.</param>
internal sealed record SealRound(long Rows, long Foreign, long Unknown)
{
    public static SealRound Nothing { get; } = new(0, 0, 0);
}

/// <summary>
/// Seals what was committed: reads rows beside the store's writers, page by page, and adds one row to the chain for each page. New events lie behind the last one that is sealed, in the order of
/// commits; everything else that happened left a signed mark. Any number of instances may try: the number of a seal is taken once.
/// </summary>
internal sealed class SealMaker(IDatabase database, TimeProvider clock)
{
    /// <summary>Rows of a seal: a manifest of about 140 KB.</summary>
    internal const int RowsPerSeal = 4_096;

    /// <summary>Marks of a seal: letters may be large.</summary>
    internal const int MarksPerSeal = 500;

    private SealKeys Keys => database.Keys.Seals;

    /// <summary>Seals all that is there and has no seal.</summary>
    /// <param name="pause">Called between two seals with the time that the one before took.</param>
    /// <exception cref="StoreConflictException">Another instance sealed meanwhile; nothing is lost.</exception>
    public async Task<SealRound> RunAsync(Func<TimeSpan, Task> pause, CancellationToken cancellationToken)
    {
        Keys.Refresh();
        var (store, newest) = await database.ReadAsync(
            async connection => (await EpochsTable.StoreIdAsync(connection), await SealsTable.NewestAsync(connection)), cancellationToken);
        var chain = new Chain(store, newest);
        var round = SealRound.Nothing;
        foreach (var subject in SealSubject.All)
        {
            var passed = 0L;
            while (true)
            {
                var began = clock.GetTimestamp();
                var page = await database.ReadAsync(connection => NextAsync(connection, subject, passed), cancellationToken);
                if (page is null)
                {
                    break;
                }
                passed = page.PassedMark;
                round = new SealRound(round.Rows + page.Entries.Count, round.Foreign + page.Entries.Count(entry => entry.State == SealedState.Foreign), round.Unknown + page.Unknown);
                if (page.Entries.Count > 0 || page.IsBeginning)
                {
                    await AddAsync(chain, subject, page, cancellationToken);
                }
                await pause(clock.GetElapsedTime(began));
            }
        }
        if (chain.Newest is { } last && last.Head(store) is var head && head.ToString() != Keys.Head(store)?.ToString())
        {
            Keys.NoteHead(store, head);
        }
        return round;
    }

    private async Task AddAsync(Chain chain, SealSubject subject, Page page, CancellationToken cancellationToken)
    {
        var manifest = SealManifest.Write(page.Entries);
        var seal = new Seal
        {
            Number = (chain.Newest?.Number ?? 0) + 1,
            Subject = subject.Table,
            FirstRow = page.Entries.Count == 0 ? 0 : page.Entries[0].Row,
            LastRow = page.Entries.Count == 0 ? 0 : page.Entries[^1].Row,
            RowCount = page.Entries.Count,
            FoundTo = page.FoundTo,
            SealedAt = clock.GetUtcNow().ToUnixTimeMilliseconds(),
            KeyId = Keys.Current.Id,
            Previous = chain.Newest?.Hash(chain.Store) ?? Seal.Beginning,
            Root = SHA256.HashData(manifest),
            Manifest = manifest,
        };
        seal.Signature = Keys.Sign(seal.Signed(chain.Store));
        await database.WriteAsync(
            async transaction =>
            {
                await SealsTable.AddAsync(transaction, seal);
                await SealsTable.RemoveMarksAsync(transaction, page.Marks);
                return true;
            },
            cancellationToken);
        chain.Newest = seal;
    }

    /// <summary>The next rows of a subject that need a seal; null when there are none.</summary>
    /// <param name="passed">The last mark that was looked at in this round: what can't be sealed stays behind.</param>
    private async Task<Page?> NextAsync(StoreConnection connection, SealSubject subject, long passed)
    {
        var (sealedTo, foundTo, hasSeal) = await SealsTable.ReachAsync(connection, subject.Table);
        if (foundTo > sealedTo)
        {
            var found = await subject.RowsAsync(connection, sealedTo, foundTo, RowsPerSeal);
            if (found.Count > 0)
            {
                return new Page([.. found.Select(row => new SealEntry(row.Row, SealedState.Found, row.Hash, []))], [], found.Count == RowsPerSeal ? foundTo : 0, passed, 0);
            }
        }
        if (!hasSeal)
        {
            // Without a row, so that from the first minute on it stands under the key that nothing of this table is older than seals.
            return new Page([], [], 0, passed, 0) { IsBeginning = true };
        }
        if (subject == SealSubject.Events)
        {
            var rows = await subject.RowsAsync(connection, sealedTo, long.MaxValue, RowsPerSeal);
            if (rows.Count > 0)
            {
                return new Page([.. rows.Select(Vouched)], [], 0, passed, 0);
            }
        }
        var marks = await SealsTable.MarksAsync(connection, subject.Table, passed, MarksPerSeal);
        return marks.Count == 0 ? null : await MarkedAsync(connection, subject, marks, subject == SealSubject.Events ? sealedTo : long.MaxValue);
    }

    private SealEntry Vouched(SealedRow row) => new(
        row.Row, Keys.CheckEvent(row.EventHash, row.Mark) == SealCheck.Right ? SealedState.Added : SealedState.Foreign, row.Hash, []);

    /// <summary>Only what is signed is sealed. The rest stays, for <c>verify</c> to tell of.</summary>
    /// <param name="sealedTo">What happened to later rows waits until those have their first seal: the next one begins behind the last row that has any.</param>
    private async Task<Page> MarkedAsync(StoreConnection connection, SealSubject subject, List<WaitingMark> marks, long sealedTo)
    {
        var signed = marks.Where(mark => mark.Check(Keys) == SealCheck.Right).ToList();
        var unknown = marks.Count - signed.Count;
        signed.RemoveAll(mark => mark.RowId > sealedTo);
        var byRow = signed.GroupBy(mark => mark.RowId).OrderBy(group => group.Key).ToList();
        // After the marks: a row is at least as new as they are.
        var rows = byRow.Count == 0 ? [] : (await subject.RowsAsync(connection, [.. byRow.Select(group => group.Key)])).ToDictionary(row => row.Row, row => row.Hash);
        return new Page([.. byRow.Select(Entry)], [.. signed.Select(mark => mark.Id)], 0, marks[^1].Id, unknown);

        SealEntry Entry(IGrouping<long, WaitingMark> row)
        {
            List<byte[]> nonces = [.. row.Where(mark => mark.MarkKind == SealMarkKind.Changed).Select(mark => mark.Nonce)];
            return row.Any(mark => mark.MarkKind == SealMarkKind.Removed) ? new SealEntry(row.Key, SealedState.Removed, null, nonces)
                : !rows.TryGetValue(row.Key, out var hash) ? new SealEntry(row.Key, SealedState.Missing, null, nonces)
                : new SealEntry(row.Key, row.Any(mark => mark.MarkKind == SealMarkKind.Added) ? SealedState.Added : SealedState.Changed, hash, nonces);
        }
    }

    private sealed class Chain(string store, Seal? newest)
    {
        public string Store => store;
        public Seal? Newest { get; set; } = newest;
    }

    /// <param name="PassedMark">See <see cref="NextAsync"/>.</param>
    /// <param name="Unknown">Marks that were left where they are.</param>
    private sealed record Page(IReadOnlyList<SealEntry> Entries, IReadOnlyList<long> Marks, long FoundTo, long PassedMark, int Unknown)
    {
        public bool IsBeginning { get; init; }
    }
}
