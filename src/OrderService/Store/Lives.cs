
namespace OrderService.Store;

/// <summary>
/// Which process began what, and which processes ended without a stop. A process is one life: it is noted when it begins to take orders in and forgotten when it is told to stop,
/// so that only an end that nobody asked for is evidence. Whatever is written here may be written twice.
/// </summary>
/// <param name="life">The name of this process.</param>
/// <param name="living">Of the processes named, those that are there now; this one is not asked about.</param>
public sealed class Lives(IDatabase database, string life, Func<StoreTransaction, IReadOnlyCollection<string>, Task<IReadOnlyCollection<string>>> living)
{
    private const int RowsPerStatement = 400;
    private static readonly TimeSpan OldestMark = TimeSpan.FromDays(7);
    private volatile bool hasBegun;

    /// <summary>Notes that this process takes orders in from now on.</summary>
    /// <param name="memory">For how long an end is remembered.</param>
    public async Task BeginAsync(long now, TimeSpan memory, CancellationToken cancellationToken)
    {
        await database.WriteAsync(transaction => BeginAsync(transaction, now, memory), cancellationToken);
        hasBegun = true;
    }

    private async Task BeginAsync(StoreTransaction transaction, long now, TimeSpan memory)
    {
        if (database.LastToldToStop is { } stopped)
        {
            await transaction.ExecuteAsync("DELETE FROM lives WHERE life = @stopped", new { stopped });
        }
        await transaction.ExecuteAsync(
            "INSERT INTO lives (life, began_at) VALUES (@life, @now) ON CONFLICT (life) DO UPDATE SET ended_at = NULL", new { life, now });
        await FindEndedAsync(transaction, now);
        await transaction.ExecuteAsync("DELETE FROM lives WHERE ended_at < @before", new { before = now - (long)memory.TotalMilliseconds });
        await transaction.ExecuteAsync("DELETE FROM started WHERE last_at < @before", new { before = now - (long)OldestMark.TotalMilliseconds });
    }

    /// <summary>Notes that this process was told to stop: whatever ends it from now on is no message's fault. Beside the store where that can be, for what is in hand may hold the store up.</summary>
    public Task EndAsync(CancellationToken cancellationToken) => hasBegun && database.NoteStop(life)
        ? Task.CompletedTask
        : database.WriteAsync(transaction => transaction.ExecuteAsync("DELETE FROM lives WHERE life = @life", new { life }), cancellationToken);

    /// <summary>A message was found that explains the ends so far: they speak for nothing else any more.</summary>
    public Task ExplainAsync(CancellationToken cancellationToken) => database.WriteAsync(
        transaction => transaction.ExecuteAsync("DELETE FROM lives WHERE ended_at IS NOT NULL"), cancellationToken);

    /// <summary>What speaks against each message.</summary>
    /// <param name="memory">For how long an end is remembered.</param>
    public Task<IReadOnlyList<Suspicion>> LookAtAsync(IReadOnlyList<byte[]> hashes, long now, TimeSpan memory, CancellationToken cancellationToken) => database.WriteAsync<IReadOnlyList<Suspicion>>(
        async transaction =>
        {
            await FindEndedAsync(transaction, now);
            var ended = (int)await transaction.ExecuteScalarAsync<long>(
                "SELECT count(*) FROM lives WHERE life <> @life AND ended_at >= @since", new { life, since = now - (long)memory.TotalMilliseconds });
            var marks = await ReadAsync(transaction, hashes);
            return [.. hashes.Select(hash => marks.TryGetValue(Convert.ToHexString(hash), out var mark) ? new Suspicion((int)mark.Ends, (int)mark.EndsAlone, ended) : new Suspicion(0, 0, ended))];
        },
        cancellationToken);

    /// <summary>Notes that messages are begun. A process that ends before they are decided leaves the note behind. Noted twice by one process, it counts once.</summary>
    public Task MarkStartedAsync(IReadOnlyList<byte[]> hashes, bool alone, long now, CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            // A stop in between, or somebody who took this process for dead, must not leave a mark that nobody believes.
            await transaction.ExecuteAsync("UPDATE lives SET ended_at = NULL WHERE life = @life AND ended_at IS NOT NULL", new { life });
            var before = await ReadAsync(transaction, hashes);
            foreach (var hash in hashes.DistinctBy(Convert.ToHexString).OrderBy(Convert.ToHexString, StringComparer.Ordinal))
            {
                var mark = before.GetValueOrDefault(Convert.ToHexString(hash));
                await transaction.ExecuteAsync(
                    """
                    INSERT INTO started (fingerprint, life, company, ends, ends_alone, last_at) VALUES (@hash, @life, @company, @ends, @alone, @now)
                    ON CONFLICT (fingerprint) DO UPDATE SET life = excluded.life, company = excluded.company, ends = excluded.ends, ends_alone = excluded.ends_alone, last_at = excluded.last_at
                    """,
                    new { hash, life, company = alone ? 0L : 1L, ends = mark?.Ends ?? 0, alone = mark?.EndsAlone ?? 0, now });
            }
        },
        cancellationToken);

    /// <summary>The notes of these messages are not needed any more: they were decided. The order flow does that with the append.</summary>
    internal static Task ForgetAsync(StoreTransaction transaction, IReadOnlyList<byte[]> hashes) =>
        transaction.ExecuteAsync($"DELETE FROM started WHERE fingerprint {transaction.In("@hashes")}", new { hashes });

    /// <summary>Finds processes that are gone without having been told to stop.</summary>
    private async Task FindEndedAsync(StoreTransaction transaction, long now)
    {
        var others = await transaction.QueryAsync<string>("SELECT life FROM lives WHERE life <> @life AND ended_at IS NULL", new { life });
        Forget(others);
        if (others.Count == 0)
        {
            return;
        }
        foreach (var ended in others.Except(await living(transaction, others), StringComparer.Ordinal))
        {
            await transaction.ExecuteAsync("UPDATE lives SET ended_at = @now WHERE life = @ended", new { now, ended });
        }
    }

    /// <summary>The marks of these messages by the hash in hexadecimal, with the ends that they are evidence of.</summary>
    private async Task<Dictionary<string, Mark>> ReadAsync(StoreTransaction transaction, IReadOnlyList<byte[]> hashes)
    {
        var marks = new Dictionary<string, Mark>(StringComparer.Ordinal);
        foreach (var chunk in hashes.Chunk(RowsPerStatement))
        {
            foreach (var mark in await transaction.QueryAsync<Mark>(
                $"SELECT fingerprint, life, company, ends, ends_alone FROM started WHERE fingerprint {transaction.In("@chunk")}",
                new { chunk }))
            {
                marks[Convert.ToHexString(mark.Fingerprint)] = mark;
            }
        }
        var others = marks.Values.Select(mark => mark.Life).Where(other => other != life).Distinct(StringComparer.Ordinal).ToList();
        if (others.Count == 0)
        {
            return marks;
        }
        // One that was told to stop has no row any more, and its end says nothing.
        var unasked = new List<string>();
        foreach (var chunk in others.Chunk(RowsPerStatement))
        {
            unasked.AddRange(await transaction.QueryAsync<string>($"SELECT life FROM lives WHERE life {transaction.In("@chunk")}", new { chunk }));
        }
        Forget(unasked);
        var alive = unasked.Count == 0 ? [] : await living(transaction, unasked);
        foreach (var mark in marks.Values.Where(mark => mark.Life != life && unasked.Contains(mark.Life) && !alive.Contains(mark.Life)))
        {
            if (mark.Company == 0)
            {
                mark.EndsAlone++;
            }
            else
            {
                mark.Ends++;
            }
        }
        return marks;
    }

    /// <summary>Its row is still there until this process has begun, which may come after the first look.</summary>
    private void Forget(List<string> lives)
    {
        if (database.LastToldToStop is { } stopped)
        {
            lives.Remove(stopped);
        }
    }

    private sealed class Mark
    {
        public byte[] Fingerprint { get; init; } = [];
        public string Life { get; init; } = "";
        public long Company { get; init; }
        public long Ends { get; set; }
        public long EndsAlone { get; set; }
    }
}
