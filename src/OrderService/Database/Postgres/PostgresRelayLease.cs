using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Outbox;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// Shares the shards evenly among the instances that relay, by rows with an expiry on the database's clock. An instance above its share
/// gives shards back once nothing of them is under way; one below it takes what is free. Whoever has not renewed in time, by its own
/// monotonic clock, holds nothing, whether it was frozen or the database was out of reach. A row that nobody renews is over after the
/// same time by the monotonic clock of whoever watches it, whatever it says: the database's clock may have been set back since.
/// </summary>
public sealed class PostgresRelayLease(PostgresDatabase database, IOptions<OutboxOptions> options, TimeProvider clock) : IRelayLease
{
    private const string Now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

    private readonly string owner = database.ApplicationName;
    private readonly long duration = (long)options.Value.LeaseDuration.TotalMilliseconds;
    private readonly HashSet<int> held = [];

    // What others wrote last, and since when it stands unchanged, by this process's monotonic clock.
    private readonly Dictionary<string, (long ExpiresAt, long Since)> watchedMembers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (long ExpiresAt, long Since)> watchedShards = new(StringComparer.Ordinal);

    // Not relayed any more, and given back when nothing of them is under way.
    private readonly HashSet<int> leaving = [];
    private bool wantsMore = true;

    // Read by the relay's publishing loop.
    private long renewedAt;
    private volatile bool ever;
    private volatile long[] epochs = new long[Shard.Count];

    /// <summary>The store was put back, or came from elsewhere: numbers that were given out before must not come again.</summary>
    internal static Task JumpAsync(StoreTransaction transaction, long above) => transaction.ExecuteAsync("UPDATE relay_leases SET epoch = @above WHERE epoch < @above", new { above });

    /// <summary>The highest number given out.</summary>
    internal static Task<long> HighestAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT coalesce(max(epoch), 0) FROM relay_leases");

    public bool SharesStreams => true;

    /// <summary>A tenth earlier than the database has it, for the time between this check and the publish.</summary>
    public bool IsCurrent => ever && clock.GetElapsedTime(Volatile.Read(ref renewedAt)) < options.Value.LeaseDuration * 0.9;

    public long EpochOf(int shard) => epochs[shard];

    public async Task<IReadOnlyCollection<int>> RenewAsync(IReadOnlySet<int> busy, CancellationToken cancellationToken)
    {
        var release = leaving.Where(shard => !busy.Contains(shard)).Select(shard => (long)shard).ToArray();
        if (ever && !wantsMore && release.Length == 0 && clock.GetElapsedTime(renewedAt) < options.Value.LeaseDuration / 4)
        {
            return Relayed();
        }
        // What the database grants counts from before the question, not from the answer.
        var asked = clock.GetTimestamp();
        var (mine, share) = await database.WriteVitalAsync(
            async transaction =>
            {
                await transaction.ExecuteAsync(
                    $"""
                    INSERT INTO relay_members (owner, expires_at) VALUES (@owner, {Now} + @duration)
                    ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at
                    """,
                    new { owner, duration });
                var allMembers = await transaction.QueryAsync<(string Owner, long ExpiresAt, bool IsCurrent)>(
                    $"SELECT owner, expires_at, expires_at > {Now} FROM relay_members ORDER BY owner");
                var silent = Silent(watchedMembers, allMembers.Select(member => (member.Owner, member.ExpiresAt)));
                var members = allMembers.Where(member => member.Owner == owner || (member.IsCurrent && !silent.ContainsKey(member.Owner))).Select(member => member.Owner).ToList();
                // Rows of the long dead; locked ones are being renewed.
                await transaction.ExecuteAsync(
                    $"DELETE FROM relay_members WHERE owner IN (SELECT owner FROM relay_members WHERE expires_at < {Now} - 60 * @duration FOR UPDATE SKIP LOCKED)",
                    new { duration });
                await transaction.ExecuteAsync(
                    "UPDATE relay_leases SET owner = '', expires_at = 0 WHERE owner = @owner AND shard = ANY(@release)", new { owner, release });
                var renewed = await transaction.QueryAsync<(long Shard, long Epoch)>(
                    $"UPDATE relay_leases SET expires_at = {Now} + @duration WHERE owner = @owner RETURNING shard, epoch", new { owner, duration });
                var share = (Shard.Count / members.Count) + (members.IndexOf(owner) < Shard.Count % members.Count ? 1 : 0);
                if (renewed.Count < share)
                {
                    var others = await transaction.QueryAsync<(long Shard, long ExpiresAt)>("SELECT shard, expires_at FROM relay_leases WHERE owner <> @owner", new { owner });
                    var left = Silent(watchedShards, others.Select(lease => (lease.Shard.ToString(CultureInfo.InvariantCulture), lease.ExpiresAt)));
                    renewed.AddRange(await transaction.QueryAsync<(long Shard, long Epoch)>(
                        $"""
                        UPDATE relay_leases SET owner = @owner, epoch = epoch + 1, expires_at = {Now} + @duration
                        WHERE shard IN (
                            SELECT shard FROM relay_leases
                            WHERE expires_at < {Now} OR (owner <> @owner AND EXISTS (SELECT 1 FROM unnest(@shards, @expiries) AS left_over (id, until) WHERE id = shard AND until = expires_at))
                            ORDER BY shard LIMIT @free FOR UPDATE SKIP LOCKED)
                        RETURNING shard, epoch
                        """,
                        new
                        {
                            owner,
                            duration,
                            free = share - renewed.Count,
                            shards = left.Keys.Select(shard => long.Parse(shard, CultureInfo.InvariantCulture)).ToArray(),
                            expiries = left.Values.ToArray(),
                        }));
                }
                return (renewed, share);
            },
            cancellationToken);

        held.Clear();
        held.UnionWith(mine.Select(lease => (int)lease.Shard));
        PlantedBug.Plant("lease-is-ignored", () => held.UnionWith(Enumerable.Range(0, Shard.Count)));
        var numbers = new long[Shard.Count];
        foreach (var (shard, epoch) in mine)
        {
            numbers[shard] = epoch;
        }
        epochs = numbers;
        leaving.IntersectWith(held);
        foreach (var shard in held.OrderDescending().Where(shard => !leaving.Contains(shard)).Take(held.Count - leaving.Count - share).ToList())
        {
            leaving.Add(shard);
        }
        foreach (var shard in leaving.Order().Take(share - (held.Count - leaving.Count)).ToList())
        {
            // An instance went away; the shard stays after all.
            leaving.Remove(shard);
        }
        wantsMore = held.Count < share;
        Volatile.Write(ref renewedAt, asked);
        ever = true;
        return Relayed();
    }

    public Task<bool> MayTryAsync(string routingKey, TimeSpan interval, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => RelayKeysTable.TakeTurnAsync(transaction, routingKey, interval, Now), cancellationToken);

    public Task OpenAsync(string routingKey, CancellationToken cancellationToken) => database.WriteAsync(transaction => RelayKeysTable.OpenAsync(transaction, routingKey), cancellationToken);

    /// <summary>Gives everything back, so that the others need not wait for the expiry.</summary>
    public async ValueTask DisposeAsync()
    {
        if (!ever)
        {
            return;
        }
        ever = false;
        try
        {
            await database.WriteAsync(async transaction =>
            {
                await transaction.ExecuteAsync("UPDATE relay_leases SET owner = '', expires_at = 0 WHERE owner = @owner", new { owner });
                await transaction.ExecuteAsync("DELETE FROM relay_members WHERE owner = @owner", new { owner });
            });
        }
        catch (StoreUnavailableException)
        {
            // They expire by themselves.
        }
    }

    private int[] Relayed() => [.. held.Where(shard => !leaving.Contains(shard))];

    /// <summary>The rows that stand unchanged for longer than a lease lasts.</summary>
    private Dictionary<string, long> Silent(Dictionary<string, (long ExpiresAt, long Since)> watched, IEnumerable<(string Name, long ExpiresAt)> rows)
    {
        var now = clock.GetTimestamp();
        var silent = new Dictionary<string, long>(StringComparer.Ordinal);
        var there = new HashSet<string>(StringComparer.Ordinal);
        foreach (var (name, expiresAt) in rows)
        {
            there.Add(name);
            if (!watched.TryGetValue(name, out var known) || known.ExpiresAt != expiresAt)
            {
                watched[name] = (expiresAt, now);
            }
            else if (clock.GetElapsedTime(known.Since) > options.Value.LeaseDuration * 1.25)
            {
                // A quarter more than it lasts: it was renewed at any time since the look before the first at this value.
                silent[name] = expiresAt;
            }
        }
        foreach (var gone in watched.Keys.Where(name => !there.Contains(name)).ToList())
        {
            watched.Remove(gone);
        }
        return silent;
    }
}
