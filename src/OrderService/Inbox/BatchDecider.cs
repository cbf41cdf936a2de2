using System.Diagnostics;
using OrderService.Domain;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>One message of a batch on its way through the decision.</summary>
/// <param name="Body">The exact bytes.</param>
public sealed record Incoming(Decoded Decoded, ReadOnlyMemory<byte> Body, MessageProperties Properties)
{
    /// <summary>What became of it; written by <see cref="BatchDecider"/>, and again when the batch is decided again.</summary>
    public Fate Fate { get; set; }

    /// <summary>Why, for refusals and rejections.</summary>
    public string? Reason { get; set; }

    /// <summary>Its span, where spans are collected.</summary>
    public ActivityContext Span { get; set; }

    /// <summary>The trace that lines about it belong to: its span's, else the producer's.</summary>
    public ActivityContext Trace => Span != default ? Span : Tracing.Parse(EnvelopeDecoder.TraceParent(Properties));

    /// <summary>
    /// The message may be sound and is given up for a failure of ours: its rejection takes the idempotency key,
    /// so that no other copy can be accepted beside the dead letter.
    /// </summary>
    public bool Claims { get; init; }

    /// <summary>The body was too large to be kept; the broker has it.</summary>
    public bool IsBodyUnkept { get; init; }

    /// <summary>The exception behind the rejection: its type and stack, never its message.</summary>
    public string? Exception { get; init; }

    /// <summary>SHA-256 of the body when it was noted as started; the note goes with the decision.</summary>
    public byte[]? StartedHash { get; init; }

    /// <summary>Decodes a message; what can't be decoded is <see cref="Decoded.Invalid"/>.</summary>
    public static Incoming Read(IInboxMessage message)
    {
        Decoded decoded = message.Unkept is { } unkept ? EnvelopeDecoder.Refuse(message.Properties, unkept) : EnvelopeDecoder.Decode(message.Properties, message.Body);
        Failpoint.Hit("inbox-decoded", decoded is Decoded.Valid valid ? valid.Envelope.Command.OrderId : null);
        return new Incoming(decoded, message.Body, message.Properties) { IsBodyUnkept = message.Unkept is not null };
    }
}

/// <summary>How a delivery was decided; says what its settlement is.</summary>
public enum Fate
{
    Accepted,
    Duplicate,
    Refused,
    Deferred,
    Rejected,
}

/// <summary>Decides a batch: pure, from what the store knew and the messages in their order. Answers all rows to write.</summary>
/// <param name="searchable">The attributes by which orders can be found.</param>
public sealed class BatchDecider(OrderRules rules, TimeSpan deferFor, IReadOnlyCollection<string>? searchable = null)
{
    /// <param name="now">Unix milliseconds.</param>
    /// <param name="storeNow">The clock that deadlines are judged by, where it is another one.</param>
    /// <param name="keyOf">The keys of the customers of whom the batch says something personal.</param>
    public Append Decide(IReadOnlyList<Incoming> batch, BatchState state, long now, long? storeNow = null, KeyOfCustomer? keyOf = null)
    {
        var run = new Run(rules, searchable ?? [], (storeNow ?? now) + (long)deferFor.TotalMilliseconds, state, now, batch.Count, keyOf);
        foreach (var incoming in batch)
        {
            run.Decide(incoming);
        }
        return run.Finish();
    }

    /// <summary>Decides more of the commands that waited for orders which exist by now: as many as were read.</summary>
    /// <param name="now">Unix milliseconds.</param>
    public Append DecideBacklog(BatchState state, long now)
    {
        // What waits places no order, so nothing in it is personal.
        var run = new Run(rules, searchable ?? [], now + (long)deferFor.TotalMilliseconds, state, now, 0, null);
        foreach (var orderId in state.Deferred.Keys.Where(state.Heads.ContainsKey).ToList())
        {
            run.DecideDeferred(orderId);
        }
        return run.Finish();
    }

    private sealed class Run(OrderRules rules, IReadOnlyCollection<string> searchable, long deferUntil, BatchState state, long now, int capacity, KeyOfCustomer? keyOf)
    {
        private readonly Append append = new(capacity);
        private readonly Dictionary<string, HeadChange> heads = new(capacity, StringComparer.Ordinal);

        // Rows of this batch that may be rewritten within it: what waits may be decided, what was rejected may come again as a replay.
        private readonly Dictionary<string, int> openRows = new(StringComparer.Ordinal);
        private readonly HashSet<(string, string)> rejected = [];

        // Settled once; a second copy in this batch finds nothing open.
        private readonly HashSet<long> settled = [];

        public void Decide(Incoming incoming)
        {
            PlantedBug.Plant("body-in-log", () => Console.Error.WriteLine(System.Text.Encoding.UTF8.GetString(incoming.Body.Span)));
            if (incoming.StartedHash is { } hash)
            {
                append.StartedDone.Add(hash);
            }
            switch (incoming.Decoded)
            {
                case Decoded.Invalid invalid when incoming.Claims:
                    Fail(incoming, invalid);
                    break;
                case Decoded.Invalid invalid:
                    Reject(incoming, invalid.Key, invalid.Fingerprint, invalid.Rejection, invalid.OrderId);
                    break;
                case Decoded.Valid valid:
                    Decide(incoming, valid.Envelope);
                    break;
            }
        }

        public Append Finish()
        {
            append.Heads.AddRange(heads.Values);
            return append;
        }

        private void Decide(Incoming incoming, Envelope envelope)
        {
            var replayed = ReplayedLetter(envelope);
            var known = state.Inbox.TryGetValue(envelope.Key, out var entry);
            PlantedBug.Plant("second-command-is-a-copy", () =>
            {
                if (!known && heads.ContainsKey(envelope.Command.OrderId))
                {
                    (known, entry) = (true, new InboxEntry(envelope.Fingerprint, InboxOutcome.Accepted, null));
                }
            });
            if (known && !(entry.Outcome == InboxOutcome.Rejected && replayed is not null))
            {
                Again(incoming, envelope, entry, replayed);
                return;
            }
            var head = Head(envelope.Command.OrderId);
            if (head.Order.Version > 0 && (state.Deferred.ContainsKey(envelope.Command.OrderId) || append.Backlog.Contains(envelope.Command.OrderId)))
            {
                // Others came before it and are not decided yet.
                append.Backlog.Add(envelope.Command.OrderId);
                incoming.Fate = Fate.Deferred;
                Claim(envelope, InboxOutcome.Deferred, null, replaces: known);
                Defer(incoming, envelope, DeferredCommand.Never);
                SettleLetters(envelope, replayed, incoming.Fate);
                return;
            }
            switch (Answer(head.Order, envelope.Command))
            {
                case Decision.Accepted accepted:
                    incoming.Fate = Fate.Accepted;
                    Claim(envelope, InboxOutcome.Accepted, null, replaces: known);
                    Record(head, accepted, envelope.Key, envelope.CorrelationId, envelope.TraceContext);
                    DecideDeferred(envelope.Command.OrderId);
                    break;
                case Decision.AlreadyDone done:
                    incoming.Fate = Fate.Duplicate;
                    Claim(envelope, InboxOutcome.Accepted, InboxEntry.WithoutEvent, replaces: known);
                    NoteAlreadyDone(envelope.Command, envelope.Key, done);
                    break;
                case Decision.Refused refused:
                    incoming.Fate = Fate.Refused;
                    incoming.Reason = refused.Code;
                    Claim(envelope, InboxOutcome.Refused, refused.Code, replaces: known);
                    Announce(envelope.Command, refused, envelope.Key, envelope.CorrelationId, envelope.TraceContext);
                    break;
                case Decision.Contradiction contradiction:
                    Reject(incoming, envelope.Key, envelope.Fingerprint, Rejection.Of(contradiction), envelope.Command.OrderId);
                    return;
                case Decision.OrderUnknown:
                    incoming.Fate = Fate.Deferred;
                    Claim(envelope, InboxOutcome.Deferred, null, replaces: known);
                    Defer(incoming, envelope, deferUntil);
                    break;
            }
            SettleLetters(envelope, replayed, incoming.Fate);
        }

        /// <summary>An order that was closed and taken out does not begin anew.</summary>
        private Decision Answer(Order order, OrderCommand command) => order.Version == 0 && state.Gone.Contains(command.OrderId)
            ? new Decision.Refused(RefusalCode.OrderArchived, $"The order was closed long ago and is not kept any more; {command.Type} does not apply to it.")
            : OrderDecider.Decide(order, command, rules);

        private void Fail(Incoming incoming, Decoded.Invalid invalid)
        {
            var known = state.Inbox.TryGetValue(invalid.Key, out var entry);
            if (known && entry.Outcome != InboxOutcome.Rejected && entry.Fingerprint.AsSpan().SequenceEqual(invalid.Fingerprint))
            {
                // An earlier attempt was committed after all.
                incoming.Fate = Fate.Duplicate;
                return;
            }
            if (!known)
            {
                Claim(invalid.Key, invalid.Fingerprint, InboxOutcome.Rejected, invalid.Rejection.Reason, invalid.OrderId, replaces: false);
            }
            Reject(incoming, invalid.Key, invalid.Fingerprint, invalid.Rejection, invalid.OrderId);
        }

        /// <summary>The key has been decided before: a copy gets the same answer, other bytes are a conflict.</summary>
        private void Again(Incoming incoming, Envelope envelope, InboxEntry entry, OpenLetter? replayed)
        {
            var isSame = entry.Fingerprint.AsSpan().SequenceEqual(envelope.Fingerprint);
            PlantedBug.Plant("other-body-is-a-copy", () => isSame = true);
            if (!isSame)
            {
                Reject(incoming, envelope.Key, envelope.Fingerprint, new Rejection(
                    RejectionReason.KeyConflict,
                    "The idempotency key was used before with another body; send a new message with a key of its own.", null), envelope.Command.OrderId);
                return;
            }
            if (entry.Outcome == InboxOutcome.Rejected)
            {
                Reject(incoming, envelope.Key, envelope.Fingerprint, new Rejection(
                    entry.Reason ?? RejectionReason.InternalError,
                    "Another copy of this message is a dead letter already; replay that one.", null), envelope.Command.OrderId);
                return;
            }
            incoming.Fate = Fate.Duplicate;
            append.Copies[envelope.Key] = append.Copies.GetValueOrDefault(envelope.Key) + 1;
            append.CopiesAt = now;
            SettleLetters(envelope, replayed, Fate.Duplicate);
        }

        private void Reject(Incoming incoming, string key, byte[] fingerprint, Rejection rejection, string? orderId)
        {
            PlantedBug.Plant("reason-is-general", () => rejection = rejection with { Reason = RejectionReason.InternalError });
            incoming.Fate = Fate.Rejected;
            incoming.Reason = rejection.Reason;
            if (rejected.Add((key, Convert.ToHexString(fingerprint))))
            {
                append.Rejections.Add(new RejectionRow(
                    key, fingerprint, rejection.Reason, rejection.Detail, rejection.Field, incoming.Exception, orderId,
                    incoming.IsBodyUnkept ? null : incoming.Body.ToBytes(), MessagePropertiesJson.Write(incoming.Properties), now));
            }
        }

        /// <summary>The open letter whose replay this delivery is; a forged mark finds none.</summary>
        private OpenLetter? ReplayedLetter(Envelope envelope) =>
            envelope.Replay is { } mark && state.Letters.TryGetValue(envelope.Key, out var letters)
                ? letters.Find(letter => letter.Id == mark.LetterId && letter.Replayed && !settled.Contains(letter.Id))
                : null;

        private void SettleLetters(Envelope envelope, OpenLetter? replayed, Fate fate)
        {
            if (state.Letters.TryGetValue(envelope.Key, out var letters))
            {
                SettleLetters(letters, envelope, replayed, fate);
            }
            if (state.KeylessLetters.Count > 0 && state.KeylessLetters.TryGetValue(Convert.ToHexString(envelope.Fingerprint), out var keyless))
            {
                SettleLetters(keyless, envelope, replayed, fate);
            }
        }

        private void SettleLetters(List<OpenLetter> letters, Envelope envelope, OpenLetter? replayed, Fate fate)
        {
            foreach (var letter in letters)
            {
                var isReplay = letter.Id == replayed?.Id;
                if ((isReplay || letter.IsSameAs(envelope.Fingerprint)) && settled.Add(letter.Id))
                {
                    append.Letters.Add(new LetterChange(letter.Id, isReplay, isReplay ? $"The replay was {Word(fate)}." : $"Another copy of the message was {Word(fate)}.", now));
                }
            }
        }

        private static string Word(Fate fate) => fate switch
        {
            Fate.Accepted => "accepted",
            Fate.Refused => "refused",
            Fate.Deferred => "deferred until its order appears",
            _ => "decided before",
        };

        private void Claim(Envelope envelope, InboxOutcome outcome, string? reason, bool replaces) =>
            Claim(envelope.Key, envelope.Fingerprint, outcome, reason, envelope.Command.OrderId, replaces);

        private void Claim(string key, byte[] fingerprint, InboxOutcome outcome, string? reason, string? orderId, bool replaces)
        {
            state.Inbox[key] = new InboxEntry(fingerprint, outcome, reason);
            var row = new InboxRow(key, fingerprint, outcome, reason, orderId, now, replaces);
            if (replaces && openRows.TryGetValue(key, out var index))
            {
                // One row with the last word.
                append.Inbox[index] = row with { Replaces = append.Inbox[index].Replaces };
                return;
            }
            if (outcome is InboxOutcome.Deferred or InboxOutcome.Rejected)
            {
                openRows[key] = append.Inbox.Count;
            }
            append.Inbox.Add(row);
        }

        private OrderHead Head(string orderId) =>
            state.Heads.TryGetValue(orderId, out var head) ? head : new OrderHead(Order.None(orderId), EventHash.Genesis);

        private void Record(OrderHead head, Decision.Accepted accepted, string key, string correlationId, string? traceContext)
        {
            Record(head, accepted.Event, key, correlationId, traceContext);
            if (accepted.Then is { } then)
            {
                Record(Head(head.Order.OrderId), then, key, correlationId, traceContext);
            }
            if (accepted.Last is { } last)
            {
                Record(Head(head.Order.OrderId), last, key, correlationId, traceContext);
            }
        }

        private void Record(OrderHead head, OrderEvent happened, string key, string correlationId, string? traceContext)
        {
            var orderId = head.Order.OrderId;
            PlantedBug.Plant("cause-is-another", () => key = orderId);
            var version = head.Order.Version + 1;
            var data = EventSerializer.Serialize(happened, keyOf);
            var hash = EventHash.Next(head.LastHash, orderId, version, happened.Type, data, correlationId, key, traceContext, now);
            var recorded = new RecordedEvent(orderId, version, happened.Type, data, correlationId, key, traceContext, now, hash) { Event = happened };
            append.Events.Add(recorded);
            append.Outbox.Add(new OutboxRow(OutboxKind.Event, orderId, version, recorded, null, null, now));
            PlantedBug.Plant("event-is-not-sent", () => append.Outbox.RemoveAll(row => row.Event?.Event is OrderEvent.Shipped));

            var order = head.Order.Apply(happened);
            if (searchable.Count > 0 && order.Details is { } details && happened is OrderEvent.Placed or OrderEvent.Amended)
            {
                Index(orderId, details, happened);
            }
            state.Heads[orderId] = new OrderHead(order, hash);
            heads[orderId] = heads.TryGetValue(orderId, out var change)
                ? change with
                {
                    Version = version,
                    Status = order.Status,
                    At = now,
                    LastHash = hash,
                    TotalMinor = order.TotalMinor,
                    LineCount = LineCount(order),
                    Payment = order.PaymentStatus,
                    Fulfillment = order.FulfillmentStatus,
                    NeedsStream = order.NeedsStream,
                }
                : new HeadChange(
                    orderId, head.Order.Version, version, order.Status, order.CustomerId ?? "", order.Currency!.Code, order.TotalMinor, LineCount(order), now, hash)
                {
                    Payment = order.PaymentStatus,
                    Fulfillment = order.FulfillmentStatus,
                    NeedsStream = order.NeedsStream,
                };
            PlantedBug.Plant("status-is-stale", () => heads[orderId] = heads[orderId] with { Status = OrderStatus.Placed });
        }

        // The head alone does not tell.
        private static int? LineCount(Order order) => order.IsWhole ? order.Lines.Count : null;

        private void Index(string orderId, OrderDetails details, OrderEvent happened)
        {
            if (happened is OrderEvent.Amended)
            {
                append.AttributesReplaced.Add(orderId);
                append.Attributes.RemoveAll(row => row.OrderId == orderId);
            }
            if (details.Channel is { } channel && searchable.Contains("channel"))
            {
                append.Attributes.Add(new AttributeRow(orderId, "channel", channel));
            }
            append.Attributes.AddRange(details.Attributes.Where(attribute => searchable.Contains(attribute.Key)).Select(attribute => new AttributeRow(orderId, attribute.Key, attribute.Value)));
        }

        private void Announce(OrderCommand command, Decision.Refused refused, string key, string correlationId, string? traceContext)
        {
            var order = Head(command.OrderId).Order;
            append.Outbox.Add(Announcement.Refusal(command, refused, order.Status, key, correlationId, traceContext, now, state.Epoch));
            PlantedBug.Plant("refusal-is-silent", () => append.Outbox.RemoveAt(append.Outbox.Count - 1));
            var what = "";
            (string? reference, decimal? paid) = command switch
            {
                OrderCommand.Pay pay => (pay.PaymentReference, pay.Amount),
                OrderCommand.Capture capture => (capture.CaptureReference ?? capture.PaymentReference, capture.Amount),
                _ => (null, null),
            };
            if (reference is not null)
            {
                var named = paid is { } given && order.Currency is { } currency ? Money.WithDecimalsOf(given, currency) ?? given : paid;
                var amount = named?.ToString(System.Globalization.CultureInfo.InvariantCulture);
                what = $" Payment {reference}{(amount is null ? "" : $", {amount}")}.";
                append.RefusedPayments.Add(new RefusedPayment(command.OrderId, key, reference, amount, refused.Code, refused.Reason, now));
            }
            append.History.Add(new HistoryRow(command.OrderId, key, now, "refused", $"{command.Type} was refused ({refused.Code}): {refused.Reason}{what}"));
        }

        private void NoteAlreadyDone(OrderCommand command, string key, Decision.AlreadyDone done) =>
            append.History.Add(new HistoryRow(command.OrderId, key, now, "duplicate", $"{command.Type} changed nothing: {done.Reason}"));

        private void Defer(Incoming incoming, Envelope envelope, long expiresAt)
        {
            var deferred = new DeferredCommand(
                envelope.Key, envelope.Command.OrderId, envelope.Command.Type, incoming.Body.ToArray(), MessagePropertiesJson.Write(incoming.Properties),
                envelope.Fingerprint, envelope.CorrelationId, envelope.TraceContext, now, expiresAt);
            append.Deferred.Add(deferred);
            PlantedBug.Plant("early-command-is-forgotten", () => append.Deferred.Remove(deferred));
            if (!append.Backlog.Contains(deferred.OrderId) && !state.Backlog.Contains(deferred.OrderId))
            {
                if (!state.Deferred.TryGetValue(deferred.OrderId, out var waiting))
                {
                    state.Deferred[deferred.OrderId] = waiting = [];
                }
                waiting.Add(deferred);
            }
            append.History.Add(new HistoryRow(deferred.OrderId, envelope.Key, now, "deferred", $"{deferred.Type} came before its order and waits for it."));
        }

        /// <summary>
        /// The order exists now: what waited for it is decided, in the order of an order's life and not in the order of arrival,
        /// so that a payment that came after its shipment still counts.
        /// </summary>
        public void DecideDeferred(string orderId)
        {
            if (state.Backlog.Remove(orderId))
            {
                append.Backlog.Add(orderId);
            }
            if (!state.Deferred.Remove(orderId, out var waiting))
            {
                return;
            }
            // What came with this very batch goes in its place; what stands behind the order goes as it came.
            foreach (var (deferred, command) in waiting.Select(Decode).OrderBy(pair => pair.Deferred.ExpiresAt == DeferredCommand.Never ? int.MaxValue : pair.Command?.LifecycleRank ?? 0).ToList())
            {
                if (!append.Deferred.Remove(deferred))
                {
                    append.DeferredDecided.Add(deferred.Key);
                }
                if (command is null)
                {
                    GiveUp(deferred, Unreadable);
                    continue;
                }
                var head = Head(orderId);
                switch (OrderDecider.Decide(head.Order, command, rules))
                {
                    case Decision.Accepted accepted:
                        Claim(deferred.Key, deferred.Fingerprint, InboxOutcome.Accepted, null, orderId, replaces: true);
                        Record(head, accepted, deferred.Key, deferred.CorrelationId, deferred.TraceContext);
                        break;
                    case Decision.AlreadyDone done:
                        Claim(deferred.Key, deferred.Fingerprint, InboxOutcome.Accepted, InboxEntry.WithoutEvent, orderId, replaces: true);
                        NoteAlreadyDone(command, deferred.Key, done);
                        break;
                    case Decision.Refused refused:
                        Claim(deferred.Key, deferred.Fingerprint, InboxOutcome.Refused, refused.Code, orderId, replaces: true);
                        Announce(command, refused, deferred.Key, deferred.CorrelationId, deferred.TraceContext);
                        break;
                    case Decision.Contradiction contradiction:
                        GiveUp(deferred, Rejection.Of(contradiction));
                        break;
                }
            }
        }

        private static readonly Rejection Unreadable = new(
            RejectionReason.InternalError, "It came before its order, and when the order came it could not be read any more; look at it and replay it.", null);

        /// <summary>It can't be done whatever happens, so it becomes a letter itself. The bytes lie with the rejection, and the search for missing letters parks them at once: no broker has it.</summary>
        private void GiveUp(DeferredCommand deferred, Rejection rejection)
        {
            Claim(deferred.Key, deferred.Fingerprint, InboxOutcome.Rejected, rejection.Reason, deferred.OrderId, replaces: true);
            append.Rejections.Add(new RejectionRow(
                deferred.Key, deferred.Fingerprint, rejection.Reason, rejection.Detail, rejection.Field, null,
                deferred.OrderId, deferred.Body, deferred.Properties, 0));
        }

        private static (DeferredCommand Deferred, OrderCommand? Command) Decode(DeferredCommand deferred)
        {
            try
            {
                return (deferred, EnvelopeDecoder.Decode(MessagePropertiesJson.Read(deferred.Properties), deferred.Body) is Decoded.Valid valid ? valid.Envelope.Command : null);
            }
            catch (System.Text.Json.JsonException)
            {
                // The properties were damaged.
                return (deferred, null);
            }
        }
    }
}
