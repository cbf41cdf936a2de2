using OrderService.DeadLetters;

namespace OrderService.Admin;

/// <summary>Incidents for the API: their states and counts as they are now, their orders, customers and money as of a moment ago.</summary>
internal sealed class IncidentList(DeadLetterQueries letters, TimeProvider clock) : IDisposable
{
    private readonly Kept<IReadOnlyDictionary<string, IncidentCosts>> costs = new(token => letters.CostsAsync(null, token), clock);

    /// <param name="fingerprint">One incident; null for all.</param>
    public async Task<IReadOnlyList<IncidentRecord>> ReadAsync(string? fingerprint, CancellationToken cancellationToken)
    {
        var known = await costs.ReadAsync(cancellationToken);
        var found = await letters.IncidentsAsync(fingerprint, known, cancellationToken);
        return found.All(incident => known.ContainsKey(incident.Fingerprint))
            ? found
            : await letters.IncidentsAsync(fingerprint, await costs.ReadAgainAsync(known, cancellationToken), cancellationToken);
    }

    public async Task<IncidentRecord?> FindAsync(string fingerprint, CancellationToken cancellationToken) => (await ReadAsync(fingerprint, cancellationToken)).SingleOrDefault();

    public void Dispose() => costs.Dispose();
}
