namespace OrderService.Store;

/// <summary>Which queues somebody paused, and what the instances have left in hand of them.</summary>
internal static class IntakeTable
{
    public static Task<List<PauseRow>> PausesAsync(StoreConnection connection) =>
        connection.QueryAsync<PauseRow>("SELECT queue, paused_at, paused_by, reason FROM intake_pauses ORDER BY queue");

    /// <returns>False when it is paused already: then who was first stays.</returns>
    public static async Task<bool> PauseAsync(StoreTransaction transaction, string queue, string who, string reason, long now)
    {
        // What was said about an earlier pause is not about this one.
        await transaction.ExecuteAsync("DELETE FROM intake_in_hand WHERE queue = @queue AND NOT EXISTS (SELECT 1 FROM intake_pauses WHERE queue = @queue)", new { queue });
        return await transaction.ExecuteAsync(
            "INSERT INTO intake_pauses (queue, paused_at, paused_by, reason) VALUES (@queue, @now, @who, @reason) ON CONFLICT (queue) DO NOTHING",
            new { queue, now, who, reason }) == 1;
    }

    /// <returns>False when it is not paused.</returns>
    public static async Task<bool> ResumeAsync(StoreTransaction transaction, string queue)
    {
        await transaction.ExecuteAsync("DELETE FROM intake_in_hand WHERE queue = @queue", new { queue });
        return await transaction.ExecuteAsync("DELETE FROM intake_pauses WHERE queue = @queue", new { queue }) == 1;
    }

    /// <summary>An instance says what it has left in hand; nothing happens once the queue is resumed.</summary>
    public static Task SayAsync(StoreTransaction transaction, string queue, string instance, long inHand, long now) => transaction.ExecuteAsync(
        """
        INSERT INTO intake_in_hand (queue, instance, in_hand, seen_at) SELECT queue, @instance, @inHand, @now FROM intake_pauses WHERE queue = @queue
        ON CONFLICT (queue, instance) DO UPDATE SET in_hand = excluded.in_hand, seen_at = excluded.seen_at
        """,
        new { queue, instance, inHand, now });

    /// <param name="since">Instances that said nothing since are gone, and what they had is in the queue again.</param>
    public static Task<List<InHandRow>> InHandAsync(StoreConnection connection, long since) => connection.QueryAsync<InHandRow>(
        "SELECT queue, instance, in_hand, seen_at FROM intake_in_hand WHERE seen_at >= @since ORDER BY queue, instance", new { since });
}

internal sealed class PauseRow
{
    public string Queue { get; init; } = "";
    public long PausedAt { get; init; }
    public string PausedBy { get; init; } = "";
    public string Reason { get; init; } = "";
}

internal sealed class InHandRow
{
    public string Queue { get; init; } = "";
    public string Instance { get; init; } = "";
    public long InHand { get; init; }
    public long SeenAt { get; init; }
}
