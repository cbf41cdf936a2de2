using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Domain;
using OrderService.EventStore;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>What a replay would do, found out by asking the decoder and the decider against the streams as they are now. Writes nothing.</summary>
public sealed class ReplayForecast(IDatabase database, IOptions<OrdersOptions> orders)
{
    /// <summary>How many letters one forecast looks at.</summary>
    public const int MostChecked = 2_000;

    private const int MostItems = 100;

    /// <summary>Looks at parked letters in the order in which a job would send them.</summary>
    public Task<Forecast> OfAsync(ReplaySelection selection, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        var parameters = new DynamicParameters();
        var where = selection.Where(parameters);
        var (count, upTo) = await connection.QuerySingleAsync<(long, long?)>($"SELECT count(*), max(l.id) FROM dead_letters l WHERE {where}", parameters);
        count = Math.Min(count, selection.Limit ?? long.MaxValue);
        parameters.Add("limit", Math.Min(MostChecked, count));
        var letters = (await connection.QueryAsync<LetterRow>(
            $"SELECT l.id AS Id, l.key AS Key, l.order_id AS OrderId, l.reason AS Reason, l.body AS Body, l.properties AS Properties FROM dead_letters l WHERE {where} ORDER BY l.id LIMIT @limit", parameters)).AsList();
        var items = await JudgeAsync(connection, letters);
        return new Forecast(
            count, letters.Count, upTo ?? 0,
            items.GroupBy(item => item.Outcome).ToDictionary(group => group.Key, group => (long)group.Count()),
            [.. items.OrderBy(item => item.Outcome is ForecastOutcome.Succeeds or ForecastOutcome.AlreadyApplied ? 1 : 0).ThenBy(item => item.LetterId).Take(MostItems)]);
    }, cancellationToken);

    /// <summary>The same for one letter with an edited body; null when there is no such letter.</summary>
    public Task<ForecastItem?> OfEditedAsync(long letterId, byte[] body, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        var letter = await connection.QuerySingleOrDefaultAsync<LetterRow>(
            "SELECT id AS Id, key AS Key, order_id AS OrderId, reason AS Reason, body AS Body, properties AS Properties FROM dead_letters WHERE id = @letterId", new { letterId });
        return letter is null ? null : (await JudgeAsync(connection, [letter.With(body)])).Single();
    }, cancellationToken);

    private async Task<List<ForecastItem>> JudgeAsync(System.Data.Common.DbConnection connection, IReadOnlyList<LetterRow> letters)
    {
        var rules = new OrderRules(orders.Value.RequirePaymentBeforeShipping);
        var decoded = letters.Select(letter => (letter, Decoded: Decode(letter))).ToList();
        var inbox = await InboxAsync(connection, [.. letters.Select(letter => letter.Key).Distinct()]);
        var heads = await HeadsAsync(connection, [.. decoded.Select(pair => pair.Decoded).OfType<Decoded.Valid>().Select(valid => valid.Envelope.Command.OrderId).Distinct()]);
        var items = new List<ForecastItem>(letters.Count);
        foreach (var (letter, what) in decoded)
        {
            if (what is Decoded.Invalid invalid)
            {
                items.Add(new(letter.Id, letter.OrderId, ForecastOutcome.StillFails, invalid.Rejection.Reason, invalid.Rejection.Detail, invalid.Rejection.Field));
                continue;
            }
            var envelope = ((Decoded.Valid)what).Envelope;
            var command = envelope.Command;
            if (inbox.GetValueOrDefault(letter.Key) is { Outcome: not (long)InboxOutcome.Rejected } known)
            {
                var same = known.Fingerprint.AsSpan().SequenceEqual(envelope.Fingerprint);
                items.Add(new(letter.Id, command.OrderId, same ? ForecastOutcome.AlreadyApplied : ForecastOutcome.Conflicts, same ? null : RejectionReason.KeyConflict,
                    same ? "The same message was decided before; a replay changes nothing." : "Another message with the same key was decided before.", null));
                continue;
            }
            // Letters of one order build on one another, as they will when they are sent.
            var order = heads.GetValueOrDefault(command.OrderId) ?? Order.None(command.OrderId);
            switch (OrderDecider.Decide(order, command, rules))
            {
                case Decision.Accepted accepted:
                    heads[command.OrderId] = order.Apply(accepted.Event);
                    items.Add(new(letter.Id, command.OrderId, ForecastOutcome.Succeeds, null, $"{accepted.Event.Type} would be appended.", null));
                    break;
                case Decision.Refused refused:
                    items.Add(new(letter.Id, command.OrderId, ForecastOutcome.Conflicts, refused.Code, refused.Reason, null));
                    break;
                default:
                    items.Add(new(letter.Id, command.OrderId, ForecastOutcome.Waits, RejectionReason.OrderUnknown, "Its order does not exist yet: it would wait for it.", null));
                    break;
            }
        }
        return items;
    }

    private static Decoded Decode(LetterRow letter)
    {
        var original = MessagePropertiesJson.Read(letter.Properties);
        return EnvelopeDecoder.Decode(
            letter.IsEdited
                ? new MessageProperties { MessageId = letter.Key, Type = original.Type }
                : new MessageProperties { MessageId = letter.Key, Type = original.Type, ContentType = original.ContentType, ContentEncoding = original.ContentEncoding },
            letter.Body);
    }

    private static async Task<Dictionary<string, InboxRow>> InboxAsync(System.Data.Common.DbConnection connection, IReadOnlyList<string> keys)
    {
        var found = new Dictionary<string, InboxRow>(StringComparer.Ordinal);
        foreach (var chunk in keys.Chunk(500))
        {
            var parameters = new DynamicParameters();
            var list = SqlList.Add(parameters, "key", chunk);
            foreach (var row in await connection.QueryAsync<InboxRow>($"SELECT key AS Key, fingerprint AS Fingerprint, outcome AS Outcome FROM inbox WHERE key IN {list}", parameters))
            {
                found[row.Key] = row;
            }
        }
        return found;
    }

    private static async Task<Dictionary<string, Order>> HeadsAsync(System.Data.Common.DbConnection connection, IReadOnlyList<string> orderIds)
    {
        var found = new Dictionary<string, Order>(StringComparer.Ordinal);
        foreach (var chunk in orderIds.Chunk(500))
        {
            var parameters = new DynamicParameters();
            var list = SqlList.Add(parameters, "id", chunk);
            foreach (var row in await connection.QueryAsync<HeadRow>($"SELECT order_id AS OrderId, status AS Status, version AS Version, currency AS Currency FROM orders WHERE order_id IN {list}", parameters))
            {
                Currency.TryGet(row.Currency, out var currency);
                found[row.OrderId] = Order.AtHead(row.OrderId, (OrderStatus)row.Status, row.Version, currency);
            }
        }
        return found;
    }

    private sealed class LetterRow
    {
        public long Id { get; init; }
        public string Key { get; init; } = "";
        public string? OrderId { get; init; }
        public string Reason { get; init; } = "";
        public byte[] Body { get; init; } = [];
        public string Properties { get; init; } = "{}";
        public bool IsEdited { get; private init; }

        public LetterRow With(byte[] body) => new() { Id = Id, Key = Key, OrderId = OrderId, Reason = Reason, Properties = Properties, Body = body, IsEdited = true };
    }

    private sealed class InboxRow
    {
        public string Key { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public long Outcome { get; init; }
    }

    private sealed class HeadRow
    {
        public string OrderId { get; init; } = "";
        public long Status { get; init; }
        public long Version { get; init; }
        public string? Currency { get; init; }
    }
}

/// <summary>How a replay would end.</summary>
public static class ForecastOutcome
{
    public const string Succeeds = "succeeds";
    public const string AlreadyApplied = "already_applied";
    public const string StillFails = "still_fails";
    public const string Conflicts = "conflicts";
    public const string Waits = "waits";

    public static IReadOnlyList<string> All { get; } = [Succeeds, AlreadyApplied, StillFails, Conflicts, Waits];
}

/// <param name="Count">How many letters a job would send.</param>
/// <param name="Checked">How many of them this forecast looked at, the oldest first.</param>
/// <param name="UpTo">The highest letter that existed: hand it to the job, so that letters that come later are not swept in.</param>
/// <param name="Items">At most a hundred, failures first.</param>
public sealed record Forecast(long Count, long Checked, long UpTo, IReadOnlyDictionary<string, long> Outcomes, IReadOnlyList<ForecastItem> Items);

/// <param name="Outcome">One of <see cref="ForecastOutcome"/>.</param>
public sealed record ForecastItem(long LetterId, string? OrderId, string Outcome, string? Reason, string Detail, string? Field);

/// <summary>Which parked letters: by number, or by filter.</summary>
/// <param name="UpTo">Only letters up to this number.</param>
public sealed record ReplaySelection(IReadOnlyList<long>? Ids, LetterFilter Filter, long? UpTo = null, long? Limit = null)
{
    /// <summary>The most letters that may be named by number.</summary>
    public const int MostIds = 5_000;

    internal string Where(DynamicParameters parameters)
    {
        var where = (Filter with { Status = LetterStatus.Parked }).Where(parameters);
        if (Ids is { } ids)
        {
            where += ids.Count == 0 ? " AND 1 = 0" : $" AND l.id IN {SqlList.Add(parameters, "chosen", ids)}";
        }
        if (UpTo is { } last)
        {
            parameters.Add("up_to", last);
            where += " AND l.id <= @up_to";
        }
        return where;
    }
}
