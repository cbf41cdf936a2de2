using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>What a check of the whole store found.</summary>
/// <param name="Findings">One sentence each, naming the order and the row; the first hundred.</param>
public sealed record VerificationReport(long Events, long Orders, long Wrong, IReadOnlyList<string> Findings);

/// <summary>Recomputes what can be recomputed: hash chains against events, the read model against the fold of its streams.</summary>
public sealed class StoreVerification(IDatabase database, EventQueries events)
{
    private const int PageSize = 500;
    private const int MaxFindings = 100;

    /// <summary>Checks every stream; with <paramref name="repair"/>, read model rows that differ are rebuilt from their events (events are never changed).</summary>
    /// <param name="progress">Told the number of orders checked so far and of all.</param>
    public async Task<VerificationReport> RunAsync(bool repair, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        var total = await database.ReadAsync(EventQueries.StreamCountAsync, cancellationToken);
        long eventCount = 0, orderCount = 0, wrong = 0;
        var findings = new List<string>();
        var after = 0L;
        while (true)
        {
            var streams = await database.ReadAsync(connection => EventQueries.StreamsAsync(connection, after, PageSize), cancellationToken);
            foreach (var stream in streams)
            {
                var (count, found) = await CheckAsync(stream, repair, cancellationToken);
                eventCount += count;
                orderCount++;
                wrong += found.Count;
                findings.AddRange(found.Take(MaxFindings - findings.Count));
            }
            progress?.Report((orderCount, total));
            if (streams.Count < PageSize)
            {
                break;
            }
            after = streams[^1];
        }
        var orphans = await database.ReadAsync(connection => OrderQueries.WithoutEventsAsync(connection, MaxFindings), cancellationToken);
        wrong += orphans.Count;
        findings.AddRange(orphans.Select(orderId => $"Order {orderId} is in the read model and has no events."));
        return new VerificationReport(eventCount, orderCount, wrong, findings);
    }

    private async Task<(int Events, List<string> Findings)> CheckAsync(long number, bool repair, CancellationToken cancellationToken)
    {
        var findings = new List<string>();
        var stream = await events.StreamAsync(number, cancellationToken);
        if (stream.Count == 0)
        {
            // It was closed and taken out since the page was read.
            return (0, findings);
        }
        var orderId = stream[0].OrderId;
        var hash = EventHash.Genesis;
        var order = Order.None(orderId);
        foreach (var recorded in stream)
        {
            if (recorded.Version != order.Version + 1)
            {
                findings.Add($"Order {orderId}: version {order.Version + 1} is missing before version {recorded.Version}.");
            }
            hash = EventHash.Next(
                hash, orderId, recorded.Version, recorded.Type, recorded.Data.Span, recorded.CorrelationId, recorded.CausationId, recorded.TraceContext, recorded.RecordedAt);
            if (!hash.AsSpan().SequenceEqual(recorded.Hash))
            {
                findings.Add($"Order {orderId}: the event at position {recorded.Position} (version {recorded.Version}) is not what was written: its hash does not fit.");
                hash = recorded.Hash;
            }
            try
            {
                order = order.Apply(EventSerializer.Read(recorded.Type, recorded.Data.Span));
            }
            catch (InvalidDataException exception)
            {
                findings.Add($"Order {orderId}: the event at position {recorded.Position} can't be read: {exception.Message}");
                return (stream.Count, findings);
            }
        }

        var difference = await database.ReadAsync(connection => DifferenceAsync(connection, number, order, hash), cancellationToken);
        if (difference is not null)
        {
            findings.Add($"Order {orderId}: the read model differs from the events ({difference}){(repair ? "; it was rebuilt" : "")}.");
            if (repair)
            {
                await RebuildAsync(number, order, hash, stream, cancellationToken);
            }
        }
        return (stream.Count, findings);
    }

    private static async Task<string?> DifferenceAsync(StoreConnection connection, long number, Order order, byte[] hash)
    {
        var row = await OrderQueries.FindAsync(connection, number);
        return row switch
        {
            null => "there is no row",
            _ when row.OrderId != order.OrderId => $"it names order {row.OrderId}",
            _ when row.Version != order.Version => $"version {row.Version} instead of {order.Version}",
            _ when row.Status != order.Status => "another status",
            _ when row.CustomerId != order.CustomerId => "another customer",
            _ when row.Currency != order.Currency?.Code || row.TotalMinor != order.TotalMinor || row.LineCount != order.Lines.Count => "other amounts",
            _ when !row.LastHash.AsSpan().SequenceEqual(hash) => "another hash",
            _ => null,
        };
    }

    private Task RebuildAsync(long number, Order order, byte[] hash, IReadOnlyList<RecordedEvent> stream, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => OrderQueries.RebuildAsync(transaction, number, order, hash, stream[0].RecordedAt, stream[^1].RecordedAt), cancellationToken);
}
