using System.Globalization;
using System.Security.Cryptography;
using OrderService.Store;

namespace OrderService.Seals;

/// <summary>What a check of the seals found.</summary>
/// <param name="Seals">How many there are.</param>
/// <param name="Rows">How many rows are as their seals say.</param>
/// <param name="Unsealed">Rows that are too young for a seal, or changed since their last one.</param>
/// <param name="Tampered">What somebody without the key did.</param>
/// <param name="NotVerifiable">What is under a key that is not here, with no later seal that vouches for it.</param>
/// <param name="Head">The newest seal: its number and its hash; null when there is none.</param>
/// <param name="Findings">One sentence each; the first hundred.</param>
/// <param name="Notes">What is worth knowing and not wrong.</param>
public sealed record SealReport(
    long Seals, long Rows, long Unsealed, long Tampered, long NotVerifiable, string? Head, IReadOnlyList<string> Findings, IReadOnlyList<string> Notes)
{
    public bool IsSound => Tampered + NotVerifiable == 0;
}

/// <summary>
/// Compares every event, dead letter and audit row with what its seals say, and the seals with one another: finds what somebody did who has the store and not the key. It reads page by page, beside
/// a service that runs: what does not fit is looked at again before it is told.
/// </summary>
public sealed class SealVerification(IDatabase database, TimeProvider clock)
{
    private const int MaxFindings = 100;
    private const int SealsPerPage = 64;
    private const int RowsPerPage = 50_000;

    /// <summary>So often is looked at what does not fit: it may have been written between two reads.</summary>
    internal int Looks { get; init; } = 4;

    /// <summary>The store's own name, where it does not have it yet: a copy gets it when it is found to be right.</summary>
    public string? StoreName { get; init; }

    private static readonly TimeSpan BetweenLooks = TimeSpan.FromMilliseconds(100);

    private SealKeys Keys => database.Keys.Seals;

    /// <param name="expected">A head that was noted somewhere else: it has to be a part of the chain.</param>
    /// <param name="isHere">The store is the one of this place, so what lies beside the keys speaks of it. A backup is not.</param>
    /// <param name="progress">Told the seals checked so far and of all.</param>
    public async Task<SealReport> RunAsync(SealHead? expected, bool isHere, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        var findings = new Findings();
        // Before the chain is read: it only grows.
        var noted = isHere ? Keys.Head(await database.ReadAsync(EpochsTable.StoreIdAsync, cancellationToken)) : null;
        var chain = await ChainAsync(findings, progress, cancellationToken);
        foreach (var (head, where) in new[] { (noted, "beside the keys of this place"), (expected, "outside") })
        {
            if (head is not null)
            {
                await CheckHeadAsync(head, where, chain, findings, cancellationToken);
            }
        }
        long rows = 0, unsealed = 0;
        foreach (var subject in SealSubject.All)
        {
            var (sound, young) = await SubjectAsync(subject, findings, cancellationToken);
            rows += sound;
            unsealed += young;
        }
        if (chain.Seals == 0 && unsealed == 0 && rows == 0)
        {
            findings.Note("Nothing is sealed yet: the service seals what it finds when it runs.");
        }
        if (unsealed > 0)
        {
            findings.Note(string.Create(CultureInfo.InvariantCulture, $"{unsealed} rows are younger than the newest seal, or changed since it; nothing is said about them."));
        }
        return new SealReport(chain.Seals, rows, unsealed, findings.Tampered, findings.NotVerifiable, chain.Newest?.Head(chain.Store).ToString(), findings.Sentences, findings.Notes);
    }

    private async Task<ChainEnd> ChainAsync(Findings findings, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        var (store, total) = await database.ReadAsync(
            async connection => (StoreName ?? await EpochsTable.StoreIdAsync(connection), await SealsTable.CountAsync(connection)), cancellationToken);
        Seal? last = null;
        var count = 0L;
        // Those behind the last seal that could be verified: what is before it is as it was when that one was made.
        var (unknown, unknownKeys) = (0L, new SortedSet<string>(StringComparer.Ordinal));
        var (vouched, vouchedKeys) = (0L, new SortedSet<string>(StringComparer.Ordinal));
        while (true)
        {
            var before = count;
            var after = last?.Number ?? long.MinValue;
            await database.ReadAsync(
                async connection =>
                {
                    await foreach (var seal in SealsTable.AfterAsync(connection, after, SealsPerPage).WithCancellation(cancellationToken))
                    {
                        var (check, mistake) = Look(seal, last, store);
                        if (mistake is not null)
                        {
                            findings.Add(mistake);
                        }
                        if (check == SealCheck.UnknownKey)
                        {
                            unknown++;
                            unknownKeys.Add(seal.KeyId);
                        }
                        else if (check == SealCheck.Right)
                        {
                            vouched += unknown;
                            vouchedKeys.UnionWith(unknownKeys);
                            unknown = 0;
                            unknownKeys.Clear();
                        }
                        last = seal;
                        count++;
                    }
                    return true;
                },
                cancellationToken);
            progress?.Report((count, Math.Max(count, total)));
            if (count - before < SealsPerPage)
            {
                break;
            }
        }
        if (vouched > 0)
        {
            findings.Note(string.Create(
                CultureInfo.InvariantCulture, $"{vouched} seals are not verifiable by themselves: the key {string.Join(", ", vouchedKeys)} is not here. Later seals under a known key vouch for them."));
        }
        if (unknown > 0)
        {
            findings.AddNotVerifiable(unknown, string.Create(
                CultureInfo.InvariantCulture,
                $"{unknown} seals are not verifiable: the key {string.Join(", ", unknownKeys)} is not here (Seals:KeyFile, Seals:Old). That proves neither that something was changed nor that nothing was."));
        }
        return new ChainEnd(store, count, last);
    }

    /// <summary>A seal by itself, and whether it follows the one before.</summary>
    private (SealCheck Check, string? Mistake) Look(Seal seal, Seal? last, string store)
    {
        var check = Keys.Check(seal.KeyId, seal.Signed(store), seal.Signature);
        string? mistake = null;
        if (check == SealCheck.Wrong)
        {
            mistake = "is not what was made: its signature does not fit";
        }
        else if (!SHA256.HashData(seal.Manifest).AsSpan().SequenceEqual(seal.Root))
        {
            mistake = "is not what was made: its list of rows does not fit";
        }
        else if (seal.Number != (last?.Number ?? 0) + 1)
        {
            mistake = string.Create(CultureInfo.InvariantCulture, $"follows seal {last?.Number ?? 0}: those between are missing");
        }
        else if (!seal.Previous.AsSpan().SequenceEqual(last?.Hash(store) ?? Seal.Beginning))
        {
            mistake = "does not follow the one before it: that one is not what was made";
        }
        return (check, mistake is null ? null : string.Create(CultureInfo.InvariantCulture, $"Seal {seal.Number} {mistake}."));
    }

    private async Task CheckHeadAsync(SealHead head, string where, ChainEnd chain, Findings findings, CancellationToken cancellationToken)
    {
        var there = await database.ReadAsync(connection => SealsTable.FindAsync(connection, head.Number), cancellationToken);
        if (there is null || !there.Hash(chain.Store).AsSpan().SequenceEqual(head.Hash))
        {
            findings.Add(string.Create(
                CultureInfo.InvariantCulture,
                $"The chain {(there is null ? $"ends at seal {chain.Newest?.Number ?? 0}" : $"has another seal {head.Number}")}, and seal {head.Number} was noted {where}: the end of it was cut off or replaced, unless the store was put back from a backup since (then orderservice store restore says so)."));
        }
    }

    private async Task<(long Sound, long Young)> SubjectAsync(SealSubject subject, Findings findings, CancellationToken cancellationToken)
    {
        long sound = 0, young = 0, after = long.MinValue;
        while (true)
        {
            var begin = after;
            var last = await database.ReadAsync(connection => SealsTable.StretchAsync(connection, subject, begin, SealsPerPage, RowsPerPage), cancellationToken);
            var page = await database.ReadAsync(connection => PageAsync(connection, subject, begin, last), cancellationToken);
            for (var look = 1; look < Looks && page.Mistakes.Count > 0; look++)
            {
                await Task.Delay(BetweenLooks, clock, cancellationToken);
                var again = await database.ReadAsync(connection => PageAsync(connection, subject, begin, last), cancellationToken);
                // What is wrong stays wrong.
                again.Mistakes.IntersectWith(page.Mistakes);
                page = again;
            }
            foreach (var mistake in page.Mistakes.Order(StringComparer.Ordinal))
            {
                findings.Add(mistake);
            }
            if (page.NotVerifiable > 0)
            {
                findings.AddNotVerifiable(page.NotVerifiable, string.Create(
                    CultureInfo.InvariantCulture, $"{subject.Table}: {page.NotVerifiable} rows are signed by a key that is not here: not verifiable (Seals:KeyFile, Seals:Old)."));
            }
            sound += page.Sound;
            young += page.Young;
            if (last == long.MaxValue)
            {
                return (sound, young);
            }
            after = last;
        }
    }

    private async Task<PageReport> PageAsync(StoreConnection connection, SealSubject subject, long after, long last)
    {
        var page = new PageReport();
        // Marks before seals before rows: whatever is written between two of these reads is younger than what was read first.
        var (sealedTo, foundTo, _) = await SealsTable.ReachAsync(connection, subject.Table);
        var waiting = (await SealsTable.MarksOfRowsAsync(connection, subject.Table, after, last)).ToLookup(mark => mark.RowId);
        var told = new Dictionary<long, Told>();
        await foreach (var seal in SealsTable.CoveringAsync(connection, subject.Table, after, last))
        {
            try
            {
                foreach (var entry in SealManifest.Read(seal.Manifest).Where(entry => entry.Row > after && entry.Row <= last))
                {
                    if (!told.TryGetValue(entry.Row, out var row))
                    {
                        told[entry.Row] = row = new Told();
                    }
                    row.Tell(entry);
                }
            }
            catch (InvalidDataException)
            {
                // The look at the chain tells of it; rows that it spoke of seem to have no seal.
            }
        }
        foreach (var row in await subject.RowsAsync(connection, after, last, int.MaxValue))
        {
            told.Remove(row.Row, out var said);
            Compare(subject, row, said, waiting[row.Row].ToList(), sealedTo, foundTo, page);
        }
        foreach (var (number, said) in told)
        {
            var marks = waiting[number].ToList();
            if (said.Mistake is { } mistake)
            {
                page.Add(subject, number, mistake);
            }
            if (!said.IsRemoved)
            {
                if (marks.Any(mark => mark.MarkKind == SealMarkKind.Removed && mark.Check(Keys) == SealCheck.Right))
                {
                    page.Young++;
                }
                else
                {
                    page.Add(subject, number, "was deleted");
                }
            }
        }
        foreach (var mark in waiting.SelectMany(group => group))
        {
            switch (mark.Check(Keys))
            {
                case SealCheck.Wrong:
                    page.Add(subject, mark.RowId, "has a note of a change that the service did not write");
                    break;
                case SealCheck.UnknownKey:
                    page.NotVerifiable++;
                    break;
            }
        }
        return page;
    }

    private void Compare(SealSubject subject, SealedRow row, Told? said, List<WaitingMark> marks, long sealedTo, long foundTo, PageReport page)
    {
        if (said?.Mistake is { } mistake)
        {
            page.Add(subject, row.Row, mistake);
            return;
        }
        if (said is null)
        {
            Unsealed(subject, row, marks, sealedTo, foundTo, page);
            return;
        }
        if (said.IsRemoved)
        {
            page.Add(subject, row.Row, "was taken out by the service and is there again");
            return;
        }
        if (said.Hash is { } hash && hash.AsSpan().SequenceEqual(row.Hash))
        {
            Foreign(subject, row, said, page);
            return;
        }
        if (marks.Any(mark => mark.MarkKind == SealMarkKind.Changed && !said.Knows(mark.Nonce) && mark.Check(Keys) == SealCheck.Right))
        {
            page.Young++;
            return;
        }
        page.Add(subject, row.Row, "is not what was sealed: it was changed");
    }

    /// <summary>An event that nobody vouched for when it was sealed: another key may be here now.</summary>
    private void Foreign(SealSubject subject, SealedRow row, Told said, PageReport page)
    {
        switch (said.IsForeign ? Keys.CheckEvent(row.EventHash, row.Mark) : SealCheck.Right)
        {
            case SealCheck.Right:
                page.Sound++;
                break;
            case SealCheck.UnknownKey:
                page.NotVerifiable++;
                break;
            default:
                page.Add(subject, row.Row, "was not written by the service");
                break;
        }
    }

    private void Unsealed(SealSubject subject, SealedRow row, List<WaitingMark> marks, long sealedTo, long foundTo, PageReport page)
    {
        if (row.Row > sealedTo && row.Row <= foundTo)
        {
            // Older than seals; its turn comes.
            page.Young++;
            return;
        }
        var check = subject == SealSubject.Events
            ? row.Row > sealedTo ? Keys.CheckEvent(row.EventHash, row.Mark) : SealCheck.Wrong
            : marks.Where(mark => mark.MarkKind == SealMarkKind.Added).Select(mark => mark.Check(Keys)).DefaultIfEmpty(SealCheck.Wrong).Min();
        switch (check)
        {
            case SealCheck.Right:
                page.Young++;
                break;
            case SealCheck.UnknownKey:
                page.NotVerifiable++;
                break;
            default:
                page.Add(subject, row.Row, "was not written by the service, or the seals that spoke of it are gone");
                break;
        }
    }

    /// <param name="Store">The store's own name.</param>
    private sealed record ChainEnd(string Store, long Seals, Seal? Newest);

    /// <summary>What all seals together say of a row.</summary>
    private sealed class Told
    {
        private HashSet<string>? nonces;
        private bool isFirst = true;

        public byte[]? Hash { get; private set; }
        public bool IsRemoved { get; private set; }
        public bool IsForeign { get; private set; }
        public string? Mistake { get; private set; }

        public bool Knows(byte[] nonce) => nonces?.Contains(Convert.ToHexString(nonce)) == true;

        public void Tell(SealEntry entry)
        {
            foreach (var nonce in entry.Nonces)
            {
                nonces ??= new HashSet<string>(StringComparer.Ordinal);
                if (!nonces.Add(Convert.ToHexString(nonce)))
                {
                    Mistake ??= "was changed by somebody who used a note of an earlier change";
                }
            }
            if (!isFirst && entry.State is SealedState.Added or SealedState.Found or SealedState.Foreign)
            {
                Mistake ??= "was sealed a second time as if it were new";
            }
            if (isFirst && entry.State == SealedState.Changed)
            {
                Mistake ??= "was changed before it was written: the seals that spoke of it are gone, or the service did not write it";
            }
            if (IsRemoved && entry.Hash is not null)
            {
                Mistake ??= "was taken out by the service and was there again";
            }
            isFirst = false;
            Hash = entry.Hash;
            IsForeign = entry.State == SealedState.Foreign || (IsForeign && entry.State == SealedState.Changed);
            IsRemoved |= entry.State == SealedState.Removed;
        }
    }

    private sealed class PageReport
    {
        public HashSet<string> Mistakes { get; } = new(StringComparer.Ordinal);
        public long Sound { get; set; }
        public long Young { get; set; }
        public long NotVerifiable { get; set; }

        public void Add(SealSubject subject, long row, string mistake) => Mistakes.Add(string.Create(CultureInfo.InvariantCulture, $"Row {row} of {subject.Table} {mistake}."));
    }

    private sealed class Findings
    {
        public List<string> Sentences { get; } = [];
        public List<string> Notes { get; } = [];
        public long Tampered { get; private set; }
        public long NotVerifiable { get; private set; }

        public void Add(string sentence)
        {
            Tampered++;
            Tell(sentence);
        }

        public void AddNotVerifiable(long count, string sentence)
        {
            NotVerifiable += count;
            Tell(sentence);
        }

        public void Note(string sentence) => Notes.Add(sentence);

        private void Tell(string sentence)
        {
            if (Sentences.Count < MaxFindings)
            {
                Sentences.Add(sentence);
            }
        }
    }
}
