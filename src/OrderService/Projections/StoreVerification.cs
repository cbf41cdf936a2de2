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
            if (streams.Count == 0)
            {
                break;
            }
            // Page by page, which is many times faster. What does not fit, or was written meanwhile, is looked at alone.
            var (soundEvents, sound) = await database.ReadAsync(connection => SoundAsync(connection, after, streams[^1]), cancellationToken);
            eventCount += soundEvents;
            orderCount += sound.Count;
            foreach (var stream in streams.Where(stream => !sound.Contains(stream)))
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
        var redacted = await database.ReadAsync(connection => RedactionsTable.OfStreamAsync(connection, stream), cancellationToken);
        if (Walk(stream, findings, redacted) is not (var order, var hash))
        {
            return (stream.Count, findings);
        }
        var difference = Difference(await database.ReadAsync(connection => OrderQueries.FindAsync(connection, number), cancellationToken), order, hash);
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

    /// <summary>The streams of a page in which all is as it was written, and how many events they have.</summary>
    private static async Task<(long Events, HashSet<long> Streams)> SoundAsync(StoreConnection connection, long after, long last)
    {
        // Before the events: a row that is written in between is newer than they are, and looked at again.
        var heads = (await OrderQueries.FindAsync(connection, after, last)).ToDictionary(head => head.Seq);
        var (count, sound) = (0L, new HashSet<long>());
        var findings = new List<string>();
        await foreach (var (number, stream) in EventQueries.StreamsAsync(connection, after, last))
        {
            findings.Clear();
            if (Walk(stream, findings) is (var order, var hash) && findings.Count == 0 && Difference(heads.GetValueOrDefault(number), order, hash) is null)
            {
                sound.Add(number);
                count += stream.Count;
            }
        }
        return (count, sound);
    }

    /// <summary>Recomputes a stream.</summary>
    /// <returns>Where its order stands, and its last hash; null when an event can't be read.</returns>
    /// <param name="redacted">Versions of which a signed record says what is left of them.</param>
    private static (Order Order, byte[] Hash)? Walk(IReadOnlyList<RecordedEvent> stream, List<string> findings, IReadOnlySet<long>? redacted = null)
    {
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
            if (!hash.AsSpan().SequenceEqual(recorded.Hash) && redacted?.Contains(recorded.Version) == true)
            {
                // What was taken out is vouched for, and the chain goes on from what stood here.
                hash = recorded.Hash;
            }
            else if (!hash.AsSpan().SequenceEqual(recorded.Hash))
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
                return null;
            }
        }
        return (order, hash);
    }

    private static string? Difference(OrderQueries.Row? row, Order order, byte[] hash) => row switch
    {
        null => "there is no row",
        _ when row.OrderId != order.OrderId => $"it names order {row.OrderId}",
        _ when row.Version != order.Version => $"version {row.Version} instead of {order.Version}",
        _ when row.Status != order.Status => "another status",
        _ when row.CustomerId != order.CustomerId => "another customer",
        _ when row.Currency != order.Currency?.Code || row.TotalMinor != order.TotalMinor || row.LineCount != order.Lines.Count => "other amounts",
        _ when row.PaymentStatus != order.PaymentStatus => "another payment status",
        _ when row.FulfillmentStatus != order.FulfillmentStatus => "another fulfillment status",
        _ when row.NeedsStream != (order.NeedsStream ? 1 : 0) => "another mark of how it is decided on",
        _ when !row.LastHash.AsSpan().SequenceEqual(hash) => "another hash",
        _ => null,
    };

    private Task RebuildAsync(long number, Order order, byte[] hash, IReadOnlyList<RecordedEvent> stream, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => OrderQueries.RebuildAsync(transaction, number, order, hash, stream[0].RecordedAt, stream[^1].RecordedAt), cancellationToken);
}
