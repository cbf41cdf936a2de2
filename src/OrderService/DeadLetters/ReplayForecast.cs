using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>What would become of a replayed letter; stable strings.</summary>
public static class ForecastOutcome
{
    /// <summary>The command would be accepted.</summary>
    public const string Succeeds = "succeeds";

    /// <summary>The message has been decided before; it would be acknowledged without an effect.</summary>
    public const string AlreadyApplied = "already_applied";

    /// <summary>Its order does not exist; it would wait for it.</summary>
    public const string Waits = "waits";

    /// <summary>The order's state does not allow it; the refusal would be announced and the letter settled.</summary>
    public const string Refused = "refused";

    /// <summary>It would be a dead letter again.</summary>
    public const string StillFails = "still_fails";

    /// <summary>It would not be sent, or its key belongs to another message.</summary>
    public const string Conflicts = "conflicts";

    public static IReadOnlyList<string> All { get; } = [Succeeds, AlreadyApplied, Waits, Refused, StillFails, Conflicts];
}

/// <param name="Count">How many letters a job would send.</param>
/// <param name="Checked">How many of them this forecast looked at, the oldest first.</param>
/// <param name="UpTo">The highest letter that existed: hand it to the job, so that letters that come later are not swept in.</param>
/// <param name="Items">At most a hundred, failures first.</param>
public sealed record Forecast(long Count, long Checked, long UpTo, IReadOnlyDictionary<string, long> Outcomes, IReadOnlyList<ForecastItem> Items);

/// <param name="Outcome">One of <see cref="ForecastOutcome"/>.</param>
/// <param name="Reason">The stable reason or refusal code behind it; null when it succeeds.</param>
/// <param name="Detail">One sentence.</param>
/// <param name="Field">The field that it fails for.</param>
public sealed record ForecastItem(long LetterId, string? OrderId, string Outcome, string? Reason, string Detail, string? Field = null);

/// <summary>
/// Tells what a replay would lead to: each letter's bytes go through the decoder and the decision as they will, against the store as it is now and as the letters
/// before it would leave it. Writes nothing.
/// </summary>
public sealed class ReplayForecast(IDatabase database, IOptions<OrdersOptions> orders, IOptions<DeadLettersOptions> options, TimeProvider clock)
{
    /// <summary>How many letters one forecast looks at.</summary>
    public const int MostChecked = 2_000;

    private const int MostItems = 100;

    // Bodies may be large; few are in memory at a time.
    private const int ChunkSize = 50;

    private readonly BatchDecider decider = new(new OrderRules(orders.Value.RequirePaymentBeforeShipping), orders.Value.DeferFor);

    /// <summary>Looks at parked letters in the order in which a job would send them.</summary>
    /// <param name="patch">What is changed in each of them.</param>
    public async Task<Forecast> OfAsync(LetterSelection selection, CancellationToken cancellationToken, LetterPatch? patch = null)
    {
        var (count, upTo) = await database.ReadAsync(connection => LettersTable.CountAsync(connection, selection), cancellationToken);
        var items = await EachAsync(selection, cancellationToken, patch);
        return new Forecast(
            count, items.Count, upTo,
            items.GroupBy(item => item.Outcome).ToDictionary(group => group.Key, group => (long)group.Count()),
            [.. items.OrderBy(item => item.Outcome is ForecastOutcome.Succeeds or ForecastOutcome.AlreadyApplied ? 1 : 0).ThenBy(item => item.LetterId).Take(MostItems)]);
    }

    /// <summary>Every letter that is looked at, in the order in which a job would send them.</summary>
    internal async Task<IReadOnlyList<ForecastItem>> EachAsync(LetterSelection selection, CancellationToken cancellationToken, LetterPatch? patch = null)
    {
        var most = (int)Math.Min(selection.Limit ?? MostChecked, MostChecked);
        var run = new Run(decider, options.Value.MaxReplays, clock.GetUtcNow().ToUnixTimeMilliseconds());
        var items = new List<ForecastItem>();
        long after = 0;
        while (items.Count < most)
        {
            var chunk = await database.ReadAsync(async connection =>
            {
                var parameters = new DynamicParameters(new { after, take = Math.Min(ChunkSize, most - items.Count) });
                var rows = await connection.QueryAsync<Row>($"{Row.Select} WHERE l.id > @after AND {selection.Where(parameters)} ORDER BY l.id LIMIT @take", parameters);
                rows.ForEach(row => row.Patch = patch);
                await run.LoadAsync(connection, rows);
                return rows;
            }, cancellationToken);
            if (chunk.Count == 0)
            {
                break;
            }
            items.AddRange(chunk.Select(row => run.Try(row, selection.Confirmed)));
            after = chunk[^1].Id;
        }
        return items;
    }

    /// <summary>The same for one letter with an edit, and what the edit starts from; null when there is no such letter.</summary>
    public Task<(ForecastItem Item, LetterContent Before)?> OfEditedAsync(long letterId, LetterPatch edit, CancellationToken cancellationToken) =>
        database.ReadAsync<(ForecastItem, LetterContent)?>(async connection =>
    {
        var row = await connection.QuerySingleOrDefaultAsync<Row>($"{Row.Select} WHERE l.id = @letterId", new { letterId });
        if (row is null)
        {
            return null;
        }
        row.Patch = edit;
        var run = new Run(decider, options.Value.MaxReplays, clock.GetUtcNow().ToUnixTimeMilliseconds());
        await run.LoadAsync(connection, [row]);
        return (run.Try(row, confirmed: true), row.Before);
    }, cancellationToken);

    /// <summary>Letters that are tried one after the other, each upon what those before it would have done.</summary>
    private sealed class Run(BatchDecider decider, int maxReplays, long now)
    {
        private readonly BatchState state = new();
        private readonly HashSet<string> keys = new(StringComparer.Ordinal);
        private readonly HashSet<string> orderIds = new(StringComparer.Ordinal);

        /// <summary>Reads what the store knows about the letters, as the inbox would; what an earlier letter changed stays as it left it.</summary>
        public async Task LoadAsync(StoreConnection connection, IReadOnlyList<Row> rows)
        {
            var newKeys = rows.SelectMany(row => new[] { row.Key, row.SentKey }).Where(keys.Add).ToList();
            if (newKeys.Count > 0)
            {
                var parameters = new DynamicParameters();
                var list = SqlList.Add(parameters, "key", newKeys);
                foreach (var entry in await connection.QueryAsync<InboxRow>($"SELECT key, fingerprint, outcome, reason FROM inbox WHERE key IN {list}", parameters))
                {
                    state.Inbox[entry.Key] = new InboxEntry(entry.Fingerprint, (InboxOutcome)entry.Outcome, entry.Reason);
                }
                foreach (var open in await connection.QueryAsync<OpenRow>(
                    $"SELECT id, key, fingerprint, status FROM dead_letters WHERE key IN {list} AND status IN ('parked', 'replayed') ORDER BY id", parameters))
                {
                    if (!state.Letters.TryGetValue(open.Key, out var letters))
                    {
                        state.Letters[open.Key] = letters = [];
                    }
                    letters.Add(new OpenLetter(open.Id, open.Fingerprint, open.Status == LetterStatus.Replayed));
                }
            }

            var newOrders = rows.Select(row => row.Decoded).OfType<Decoded.Valid>().Select(valid => valid.Envelope.Command.OrderId).Where(orderIds.Add).ToList();
            if (newOrders.Count > 0)
            {
                var parameters = new DynamicParameters();
                var list = SqlList.Add(parameters, "order", newOrders);
                foreach (var head in await connection.QueryAsync<Head>(
                    $"SELECT order_id, version, status, currency, last_hash, total_minor FROM orders WHERE order_id IN {list}", parameters))
                {
                    state.Heads[head.OrderId] = HeadRow.Read(head.OrderId, head.Version, (OrderStatus)head.Status, head.Currency, head.LastHash, head.TotalMinor);
                }
                var payments = (await connection.QueryAsync<PaymentRow>(
                    $"""
                    SELECT e.order_id, e.type, e.data FROM orders o JOIN events e ON e.stream = o.seq
                    WHERE o.order_id IN {list} AND e.type IN ({HeadRow.PaymentTypes}) ORDER BY e.stream, e.version
                    """,
                    parameters)).ToLookup(row => row.OrderId, row => (row.Type, row.Data), StringComparer.Ordinal);
                foreach (var orderId in newOrders)
                {
                    if (state.Heads.TryGetValue(orderId, out var head))
                    {
                        state.Heads[orderId] = HeadRow.WithPayments(head, payments[orderId]);
                    }
                }
                foreach (var waiting in await connection.QueryAsync<DeferredRow>(
                    $"""
                    SELECT key, order_id, type, body, properties, fingerprint, correlation_id,
                           traceparent, received_at, expires_at
                    FROM deferred WHERE order_id IN {list} ORDER BY received_at, key
                    """,
                    parameters))
                {
                    if (!state.Heads.ContainsKey(waiting.OrderId))
                    {
                        if (!state.Deferred.TryGetValue(waiting.OrderId, out var commands))
                        {
                            state.Deferred[waiting.OrderId] = commands = [];
                        }
                        commands.Add(waiting.ToCommand());
                    }
                }
            }
        }

        public ForecastItem Try(Row row, bool confirmed)
        {
            ForecastItem Answer(string outcome, string? reason, string detail, string? field = null) => new(row.Id, row.OrderId, outcome, reason, detail, field);

            switch (row.Status)
            {
                case LetterStatus.Resolved or LetterStatus.Superseded:
                    return Answer(ForecastOutcome.AlreadyApplied, row.Status, $"It is {row.Status} already and would not be sent.");
                case not LetterStatus.Parked:
                    return Answer(ForecastOutcome.Conflicts, row.Status, row.Status == LetterStatus.Replayed ? "A replay is under way; it would not be sent." : "It was discarded; restore it first.");
            }
            if (row.Replays >= maxReplays)
            {
                return Answer(ForecastOutcome.Conflicts, RejectionReason.ReplayExhausted, $"It has been replayed {row.Replays} times and would not be sent again (DeadLetters:MaxReplays).");
            }
            if (row.Reason == RejectionReason.ForeignDeadLetter && !confirmed)
            {
                return Answer(ForecastOutcome.Conflicts, "confirmation_needed", "Another program put it among the dead letters; it is sent only when that is confirmed.");
            }
            if (row.Mistake is { } mistake)
            {
                return Answer(ForecastOutcome.Conflicts, DeadLetterReplay.PatchNotApplicable, $"It would not be sent: {mistake}");
            }
            if (row.Decoded is null)
            {
                // What may have killed a process is not tried in this one.
                return Answer(ForecastOutcome.StillFails, row.Reason, "The process ended while it worked on this message; that can't be tried without doing it.");
            }
            if (row.Decoded is Decoded.Invalid invalid)
            {
                return Answer(ForecastOutcome.StillFails, invalid.Rejection.Reason, invalid.Rejection.Detail, invalid.Rejection.Field);
            }

            MarkReplayed(row);
            var incoming = new Incoming(row.Decoded, row.SentBody, row.Message);
            Append append;
            try
            {
                append = decider.Decide([incoming], state, now);
            }
            catch (Exception exception)
            {
                return Answer(ForecastOutcome.StillFails, RejectionReason.InternalError, $"Processing would fail with {exception.GetType().Name}.");
            }
            return incoming.Fate switch
            {
                Fate.Accepted => Answer(ForecastOutcome.Succeeds, null, $"It would be accepted as {append.Events[0].Type}."),
                Fate.Duplicate => Answer(ForecastOutcome.AlreadyApplied, null, "This message was decided before; it would be acknowledged without an effect."),
                Fate.Deferred => Answer(ForecastOutcome.Waits, null, "Its order does not exist yet; it would wait for it and be a dead letter again if it does not come."),
                Fate.Refused => Answer(ForecastOutcome.Refused, incoming.Reason, append.History.FirstOrDefault(line => line.Kind == "refused").Detail ?? "It would be refused."),
                _ => Answer(
                    incoming.Reason == RejectionReason.KeyConflict ? ForecastOutcome.Conflicts : ForecastOutcome.StillFails, incoming.Reason,
                    append.Rejections.FirstOrDefault()?.Detail ?? "It would be a dead letter again."),
            };
        }

        private void MarkReplayed(Row row)
        {
            if (state.Letters.TryGetValue(row.Key, out var letters) && letters.FindIndex(letter => letter.Id == row.Id) is >= 0 and var index)
            {
                letters[index] = letters[index] with { Replayed = true };
                if (row.SentKey != row.Key)
                {
                    if (!state.Letters.TryGetValue(row.SentKey, out var others))
                    {
                        state.Letters[row.SentKey] = others = [];
                    }
                    others.Add(letters[index]);
                }
            }
        }
    }

    private sealed class Row
    {
        public const string Select =
            "SELECT l.id, l.key, l.status, l.reason, l.body, l.properties, l.order_id, l.replays FROM dead_letters l";

        private (LetterContent Before, MessageProperties Message, Decoded? Decoded, byte[] Body, string? Mistake)? read;

        public long Id { get; init; }
        public string Key { get; init; } = "";
        public string Status { get; init; } = "";
        public string Reason { get; init; } = "";
        public byte[] Body { get; init; } = [];
        public string Properties { get; init; } = "{}";
        public string? OrderId { get; init; }
        public long Replays { get; init; }

        public MessageProperties Message => (read ??= Read()).Message;

        /// <summary>What the inbox would see; null where it must not be looked at.</summary>
        public Decoded? Decoded => (read ??= Read()).Decoded;

        /// <summary>What is changed before it goes out; set before anything is read.</summary>
        public LetterPatch? Patch { get; set; }

        public byte[] SentBody => (read ??= Read()).Body;

        /// <summary>Why the patch is not for this letter.</summary>
        public string? Mistake => (read ??= Read()).Mistake;

        public string SentKey => Message.MessageId ?? Key;

        /// <summary>As it came.</summary>
        public LetterContent Before => (read ??= Read()).Before;

        private (LetterContent, MessageProperties, Decoded?, byte[], string?) Read()
        {
            var original = MessagePropertiesJson.Read(Properties);
            var before = new LetterContent(Id, OrderId, Key, original.Type, original.ContentType, original.ContentEncoding, Body);
            string? mistake = null;
            var content = Patch is null ? before : Patch.Apply(before, out mistake);
            var sent = DeadLetterReplay.Message(content ?? before, original, Patch is not null, new ReplayMark(Id, (int)Replays + 1));
            var message = new MessageProperties
            {
                MessageId = sent.MessageId,
                ContentType = sent.ContentType,
                ContentEncoding = sent.ContentEncoding,
                CorrelationId = sent.CorrelationId,
                Type = sent.Type,
                Headers = sent.Headers!.ToDictionary(header => header.Key, header => (object?)header.Value, StringComparer.Ordinal),
            };
            // What may have killed a process is looked at only with another body.
            var isSuspect = Reason == RejectionReason.CrashSuspect && (content is null || ReferenceEquals(content.Body, Body));
            return (before, message, isSuspect || content is null ? null : EnvelopeDecoder.Decode(message, content.Body), content?.Body ?? Body, mistake);
        }
    }

    private sealed class InboxRow
    {
        public string Key { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public long Outcome { get; init; }
        public string? Reason { get; init; }
    }

    private sealed class OpenRow
    {
        public long Id { get; init; }
        public string Key { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public string Status { get; init; } = "";
    }

    private sealed class Head
    {
        public string OrderId { get; init; } = "";
        public long Version { get; init; }
        public long Status { get; init; }
        public string Currency { get; init; } = "";
        public byte[] LastHash { get; init; } = [];
        public long TotalMinor { get; init; }
    }

    private sealed class PaymentRow
    {
        public string OrderId { get; init; } = "";
        public string Type { get; init; } = "";
        public byte[] Data { get; init; } = [];
    }

    private sealed class DeferredRow
    {
        public string Key { get; init; } = "";
        public string OrderId { get; init; } = "";
        public string Type { get; init; } = "";
        public byte[] Body { get; init; } = [];
        public string Properties { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public string CorrelationId { get; init; } = "";
        public string? TraceParent { get; init; }
        public long ReceivedAt { get; init; }
        public long ExpiresAt { get; init; }

        public DeferredCommand ToCommand() => new(Key, OrderId, Type, Body, Properties, Fingerprint, CorrelationId, TraceParent, ReceivedAt, ExpiresAt);
    }
}
