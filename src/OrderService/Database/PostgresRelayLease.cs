using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Outbox;

namespace OrderService.Database;

/// <summary>
/// Shares the shards evenly among the instances that relay, by rows with an expiry on the database's clock. An instance above its share
/// gives shards back once nothing of them is under way; one below it takes what is free. Whoever has not renewed in time, by its own
/// monotonic clock, holds nothing, whether it was frozen or the database was out of reach.
/// </summary>
public sealed class PostgresRelayLease(PostgresDatabase database, IOptions<OutboxOptions> options, TimeProvider clock) : IRelayLease
{
    private const string Now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

    private readonly string owner = database.ApplicationName;
    private readonly long duration = (long)options.Value.LeaseDuration.TotalMilliseconds;
    private readonly HashSet<int> held = [];

    // Not relayed any more, and given back when nothing of them is under way.
    private readonly HashSet<int> leaving = [];
    private bool wantsMore = true;

    // Read by the relay's publishing loop.
    private long renewedAt;
    private volatile bool ever;

    public bool SharesStreams => true;

    /// <summary>A tenth earlier than the database has it, for the time between this check and the publish.</summary>
    public bool IsCurrent => ever && clock.GetElapsedTime(Volatile.Read(ref renewedAt)) < options.Value.LeaseDuration * 0.9;

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
                var connection = transaction.Connection!;
                await connection.ExecuteAsync(
                    $"""
                    INSERT INTO relay_members (owner, expires_at) VALUES (@owner, {Now} + @duration)
                    ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at
                    """,
                    new { owner, duration }, transaction);
                var members = (await connection.QueryAsync<string>(
                    $"SELECT owner FROM relay_members WHERE expires_at > {Now} ORDER BY owner", null, transaction)).AsList();
                // Rows of the long dead; locked ones are being renewed.
                await connection.ExecuteAsync(
                    $"DELETE FROM relay_members WHERE owner IN (SELECT owner FROM relay_members WHERE expires_at < {Now} - 60 * @duration FOR UPDATE SKIP LOCKED)",
                    new { duration }, transaction);
                await connection.ExecuteAsync(
                    "UPDATE relay_leases SET owner = '', expires_at = 0 WHERE owner = @owner AND shard = ANY(@release)", new { owner, release }, transaction);
                var renewed = (await connection.QueryAsync<long>(
                    $"UPDATE relay_leases SET expires_at = {Now} + @duration WHERE owner = @owner RETURNING shard", new { owner, duration }, transaction)).AsList();
                var share = (Shard.Count / members.Count) + (members.IndexOf(owner) < Shard.Count % members.Count ? 1 : 0);
                if (renewed.Count < share)
                {
                    renewed.AddRange(await connection.QueryAsync<long>(
                        $"""
                        UPDATE relay_leases SET owner = @owner, epoch = epoch + 1, expires_at = {Now} + @duration
                        WHERE shard IN (SELECT shard FROM relay_leases WHERE expires_at < {Now} ORDER BY shard LIMIT @free FOR UPDATE SKIP LOCKED)
                        RETURNING shard
                        """,
                        new { owner, duration, free = share - renewed.Count }, transaction));
                }
                return (renewed, share);
            },
            cancellationToken);

        held.Clear();
        held.UnionWith(mine.Select(shard => (int)shard));
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
                await transaction.Connection!.ExecuteAsync("UPDATE relay_leases SET owner = '', expires_at = 0 WHERE owner = @owner", new { owner }, transaction);
                await transaction.Connection!.ExecuteAsync("DELETE FROM relay_members WHERE owner = @owner", new { owner }, transaction);
            });
        }
        catch (StoreUnavailableException)
        {
            // They expire by themselves.
        }
    }

    private int[] Relayed() => [.. held.Where(shard => !leaving.Contains(shard))];
}
