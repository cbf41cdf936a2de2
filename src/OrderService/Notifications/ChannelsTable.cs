using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>How the alert channels do, for whoever shows it: the process that sends may be another one.</summary>
internal static class ChannelsTable
{
    public static Task<List<ChannelRow>> ListAsync(StoreConnection connection) =>
        connection.QueryAsync<ChannelRow>("SELECT channel, state, reason, since FROM alert_channels");

    public static Task<ChannelRow?> FindAsync(StoreConnection connection, string channel) =>
        connection.QuerySingleOrDefaultAsync<ChannelRow>("SELECT channel, state, reason, since FROM alert_channels WHERE channel = @channel", new { channel });

    public static Task PutAsync(StoreTransaction transaction, string channel, string state, string? reason, long now) => transaction.ExecuteAsync(
        """
        INSERT INTO alert_channels (channel, state, reason, since) VALUES (@channel, @state, @reason, @now)
        ON CONFLICT (channel) DO UPDATE
        SET reason = excluded.reason, since = CASE WHEN alert_channels.state = excluded.state THEN alert_channels.since ELSE excluded.since END,
            state = excluded.state
        """,
        new { channel, state, reason, now });
}

internal sealed record ChannelRow(string Channel, string State, string? Reason, long Since);
