using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>What operators say about an incident: seen, quiet for a while, dealt with. It comes back by itself (regressed) when a new letter of it is parked after it was resolved.</summary>
public sealed class IncidentStates(IDatabase database, TimeProvider clock)
{
    public Task<bool> AcknowledgeAsync(string fingerprint, Caller who, string reason, CancellationToken cancellationToken) =>
        ChangeAsync(fingerprint, "state = 'acknowledged', state_by = @who, state_at = @now", "incident.acknowledge", who, reason, null, cancellationToken);

    public Task<bool> ResolveAsync(string fingerprint, Caller who, string reason, CancellationToken cancellationToken) =>
        ChangeAsync(fingerprint, "state = 'resolved', state_by = @who, state_at = @now", "incident.resolve", who, reason, null, cancellationToken);

    /// <param name="until">Null ends it.</param>
    public Task<bool> MuteAsync(string fingerprint, DateTimeOffset? until, Caller who, string reason, CancellationToken cancellationToken) =>
        ChangeAsync(fingerprint, "muted_until = @until", until is null ? "incident.unmute" : "incident.mute", who, reason, until?.ToUnixTimeMilliseconds(), cancellationToken);

    /// <returns>False when there is no such incident.</returns>
    private Task<bool> ChangeAsync(string fingerprint, string change, string action, Caller who, string reason, long? until, CancellationToken cancellationToken) =>
        database.WriteAsync(async transaction =>
        {
            var parameters = new { fingerprint, who = who.Shown, until, now = clock.GetUtcNow().ToUnixTimeMilliseconds() };
            var changed = await transaction.ExecuteAsync($"UPDATE incidents SET {change} WHERE fingerprint = @fingerprint", parameters);
            if (changed == 1)
            {
                await AuditTrail.WriteAsync(transaction, who, action, $"incident {fingerprint}", reason, parameters.now);
            }
            return changed == 1;
        }, cancellationToken);
}
