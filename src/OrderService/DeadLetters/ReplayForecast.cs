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
public sealed class ReplayForecast(IDatabase database, IOrderEventStore store, IOptions<OrdersOptions> orders, IOptions<DeadLettersOptions> options, TimeProvider clock)
{
    /// <summary>How many letters one forecast looks at.</summary>
    public const int MostChecked = 2_000;

    private const int MostItems = 100;

    // Bodies may be large; few are in memory at a time.
    private const int ChunkSize = 50;

    private readonly BatchDecider decider = new(orders.Value.Rules, orders.Value.DeferFor, [.. orders.Value.SearchableAttributes]);

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
            var take = Math.Min(ChunkSize, most - items.Count);
            var letters = await database.ReadAsync(connection => LettersTable.ChosenAsync(connection, selection, after, take), cancellationToken);
            var chunk = letters.ConvertAll(letter => new Candidate(letter, patch));
            if (chunk.Count == 0)
            {
                break;
            }
            await run.LoadAsync(store, chunk, cancellationToken);
            items.AddRange(chunk.Select(candidate => run.Try(candidate, selection.Confirmed)));
            after = letters[^1].Id;
        }
        return items;
    }

    /// <summary>The same for one letter with an edit, and what the edit starts from; null when there is no such letter.</summary>
    public async Task<(ForecastItem Item, LetterContent Before)?> OfEditedAsync(long letterId, LetterPatch edit, CancellationToken cancellationToken)
    {
        if (await database.ReadAsync(connection => LettersTable.FindAsync(connection, letterId), cancellationToken) is not { } letter)
        {
            return null;
        }
        var candidate = new Candidate(letter, edit);
        var run = new Run(decider, options.Value.MaxReplays, clock.GetUtcNow().ToUnixTimeMilliseconds());
        await run.LoadAsync(store, [candidate], cancellationToken);
        return (run.Try(candidate, confirmed: true), candidate.Before);
    }

    /// <summary>Letters that are tried one after the other, each upon what those before it would have done.</summary>
    private sealed class Run(BatchDecider decider, int maxReplays, long now)
    {
        private readonly BatchState state = new();
        private readonly HashSet<string> keys = new(StringComparer.Ordinal);
        private readonly HashSet<string> orderIds = new(StringComparer.Ordinal);

        /// <summary>Reads what the store knows about the letters, as the inbox would; what an earlier letter changed stays as it left it.</summary>
        public async Task LoadAsync(IOrderEventStore store, IReadOnlyList<Candidate> letters, CancellationToken cancellationToken)
        {
            var newKeys = letters.SelectMany(letter => new[] { letter.Key, letter.SentKey }).Where(keys.Add).ToList();
            var newOrders = letters.Select(letter => letter.Decoded).OfType<Decoded.Valid>().Select(valid => valid.Envelope.Command.OrderId).Where(orderIds.Add).ToList();
            if (newKeys.Count + newOrders.Count > 0)
            {
                state.Add(await store.ReadAsync(new BatchQuery(newKeys, newOrders, [], []) { WholeOrderIds = newOrders }, cancellationToken));
            }
        }

        // What is only looked at needs no customer's key: nothing of it is kept.
        private static SealingKey Nobody(string customerId) => new(Guid.Empty, new byte[MasterKey.Length]);

        public ForecastItem Try(Candidate candidate, bool confirmed)
        {
            var letter = candidate.Letter;
            ForecastItem Answer(string outcome, string? reason, string detail, string? field = null) => new(letter.Id, letter.OrderId, outcome, reason, detail, field);

            switch (letter.Status)
            {
                case LetterStatus.Resolved or LetterStatus.Superseded:
                    return Answer(ForecastOutcome.AlreadyApplied, letter.Status, $"It is {letter.Status} already and would not be sent.");
                case not LetterStatus.Parked:
                    return Answer(ForecastOutcome.Conflicts, letter.Status, letter.Status == LetterStatus.Replayed ? "A replay is under way; it would not be sent." : "It was discarded; restore it first.");
            }
            if (letter.IsForgotten)
            {
                return Answer(ForecastOutcome.Conflicts, "forgotten", "Its customer is forgotten and nobody can read the message any more; it would not be sent.");
            }
            if (letter.Replays >= maxReplays)
            {
                return Answer(ForecastOutcome.Conflicts, RejectionReason.ReplayExhausted, $"It has been replayed {letter.Replays} times and would not be sent again (DeadLetters:MaxReplays).");
            }
            if (letter.Reason == RejectionReason.ForeignDeadLetter && !confirmed)
            {
                return Answer(ForecastOutcome.Conflicts, "confirmation_needed", "Another program put it among the dead letters; it is sent only when that is confirmed.");
            }
            if (candidate.Mistake is { } mistake)
            {
                return Answer(ForecastOutcome.Conflicts, DeadLetterReplay.PatchNotApplicable, $"It would not be sent: {mistake}");
            }
            if (candidate.Decoded is null)
            {
                // What may have killed a process is not tried in this one.
                return Answer(ForecastOutcome.StillFails, letter.Reason, "The process ended while it worked on this message; that can't be tried without doing it.");
            }
            if (candidate.Decoded is Decoded.Invalid invalid)
            {
                return Answer(ForecastOutcome.StillFails, invalid.Rejection.Reason, invalid.Rejection.Detail, invalid.Rejection.Field);
            }

            MarkReplayed(candidate);
            var incoming = new Incoming(candidate.Decoded, candidate.SentBody, candidate.Message);
            Append append;
            try
            {
                append = decider.Decide([incoming], state, now, keyOf: Nobody);
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

        private void MarkReplayed(Candidate candidate)
        {
            if (state.Letters.TryGetValue(candidate.Key, out var letters) && letters.FindIndex(letter => letter.Id == candidate.Letter.Id) is >= 0 and var index)
            {
                letters[index] = letters[index] with { Replayed = true };
                if (candidate.SentKey != candidate.Key)
                {
                    if (!state.Letters.TryGetValue(candidate.SentKey, out var others))
                    {
                        state.Letters[candidate.SentKey] = others = [];
                    }
                    others.Add(letters[index]);
                }
            }
        }
    }

    /// <param name="patch">What is changed before it goes out.</param>
    private sealed class Candidate(StoredLetter letter, LetterPatch? patch)
    {
        private (LetterContent Before, MessageProperties Message, Decoded? Decoded, byte[] Body, string? Mistake)? read;

        public StoredLetter Letter => letter;

        public string Key => letter.Key;

        public MessageProperties Message => (read ??= Read()).Message;

        /// <summary>What the inbox would see; null where it must not be looked at.</summary>
        public Decoded? Decoded => (read ??= Read()).Decoded;

        public byte[] SentBody => (read ??= Read()).Body;

        /// <summary>Why the patch is not for this letter.</summary>
        public string? Mistake => (read ??= Read()).Mistake;

        public string SentKey => Message.MessageId ?? Key;

        /// <summary>As it came.</summary>
        public LetterContent Before => (read ??= Read()).Before;

        private (LetterContent, MessageProperties, Decoded?, byte[], string?) Read()
        {
            var original = MessagePropertiesJson.Read(letter.Properties);
            var before = new LetterContent(letter.Id, letter.OrderId, letter.Key, original.Type, original.ContentType, original.ContentEncoding, letter.Body);
            string? mistake = null;
            var content = patch is null ? before : patch.Apply(before, out mistake);
            var sent = DeadLetterReplay.Message(content ?? before, original, patch is not null, new ReplayMark(letter.Id, (int)letter.Replays + 1));
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
            var isSuspect = letter.Reason == RejectionReason.CrashSuspect && (content is null || ReferenceEquals(content.Body, letter.Body));
            return (before, message, isSuspect || content is null ? null : EnvelopeDecoder.Decode(message, content.Body), content?.Body ?? letter.Body, mistake);
        }
    }
}
