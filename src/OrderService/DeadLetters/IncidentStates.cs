using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>What operators say about an incident: seen, quiet for a while, dealt with. It comes back by itself (regressed) when a new letter of it is parked after it was resolved.</summary>
public sealed class IncidentStates(IDatabase database, TimeProvider clock)
{
    public Task<bool> AcknowledgeAsync(string fingerprint, Caller who, string reason, CancellationToken cancellationToken) =>
        ChangeAsync("incident.acknowledge", fingerprint, who, reason, (transaction, now) => IncidentsTable.SetStateAsync(transaction, fingerprint, "acknowledged", who.Shown, now), cancellationToken);

    public Task<bool> ResolveAsync(string fingerprint, Caller who, string reason, CancellationToken cancellationToken) =>
        ChangeAsync("incident.resolve", fingerprint, who, reason, (transaction, now) => IncidentsTable.SetStateAsync(transaction, fingerprint, "resolved", who.Shown, now), cancellationToken);

    /// <param name="until">Null ends it.</param>
    public Task<bool> MuteAsync(string fingerprint, DateTimeOffset? until, Caller who, string reason, CancellationToken cancellationToken) => ChangeAsync(
        until is null ? "incident.unmute" : "incident.mute", fingerprint, who, reason,
        (transaction, _) => IncidentsTable.MuteAsync(transaction, fingerprint, until?.ToUnixTimeMilliseconds()), cancellationToken);

    /// <returns>False when there is no such incident.</returns>
    private Task<bool> ChangeAsync(string action, string fingerprint, Caller who, string reason, Func<StoreTransaction, long, Task<bool>> change, CancellationToken cancellationToken) =>
        database.WriteAsync(async transaction =>
        {
            var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
            if (!await change(transaction, now))
            {
                return false;
            }
            await AuditTrail.WriteAsync(transaction, who, action, $"incident {fingerprint}", reason, now);
            return true;
        }, cancellationToken);
}
