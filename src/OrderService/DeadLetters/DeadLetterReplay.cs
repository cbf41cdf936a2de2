using System.Globalization;
using System.Text;
using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>What an operator asks for.</summary>
/// <param name="Who">The operator, for the audit log.</param>
/// <param name="Patch">What is changed before it goes out; the letter keeps its bytes. Null when it goes out as it came.</param>
/// <param name="Confirmed">The operator has looked at a letter that another program put among the dead letters.</param>
public sealed record ReplayRequest(long LetterId, Caller Who, string? Reason = null, LetterPatch? Patch = null, bool Confirmed = false, long? JobId = null);

/// <summary>What became of a request about a letter. There is no fifth way.</summary>
public abstract record LetterAnswer
{
    private LetterAnswer() { }

    /// <param name="Replays">How often it has been replayed now.</param>
    public sealed record Done(long LetterId, long Replays) : LetterAnswer;

    public sealed record NotFound : LetterAnswer;

    /// <summary>The letter is not in a state that allows it.</summary>
    /// <param name="Code"><c>replayed</c>, <c>resolved</c>, <c>discarded</c>, <c>superseded</c>, <c>parked</c>, <c>replay_exhausted</c> or <c>confirmation_needed</c>.</param>
    public sealed record Conflict(string Code, string Detail) : LetterAnswer;

    /// <summary>The edited body would become a dead letter again.</summary>
    public sealed record Invalid(Rejection Rejection) : LetterAnswer;
}

/// <summary>Sends parked letters through the queue again, through the outbox and under their original key; discards and restores them. Of two who ask, one is told that the other was first.</summary>
public sealed class DeadLetterReplay(IDatabase database, IOptions<DeadLettersOptions> options, TimeProvider clock)
{
    /// <summary>Why a letter is not sent with a patch: it is not one that the patch is meant for.</summary>
    internal const string PatchNotApplicable = "patch_not_applicable";

    /// <summary>In bytes, as the publisher counts them: it sends 16 KiB of headers, and those of the service have their room too.</summary>
    private const int LongestHeader = 4 * 1024;
    private const int LongestHeaders = 12 * 1024;
    private const int HeaderOverhead = 7;

    /// <summary>AMQP's short strings: names and properties.</summary>
    private const int LongestShortText = 255;

    /// <summary>How the detail of a replay begins that could not be sent as it was.</summary>
    internal const string NotSendable = "not_sendable: ";

    /// <summary>Headers that belong to the delivery that died, and those that would send copies elsewhere.</summary>
    private static readonly string[] NotReplayed = ["x-death", "x-delivery-count", "x-acquired-count", "x-dotnet-pub-seq-no", "x-opt-rabbitmq-received-time", "CC", "BCC", EnvelopeDecoder.KeyHeader, ReplayMark.Header];

    public Task<LetterAnswer> ReplayAsync(ReplayRequest request, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => ReplayAsync(transaction, request), cancellationToken);

    /// <summary>The same inside the caller's transaction.</summary>
    public async Task<LetterAnswer> ReplayAsync(StoreTransaction transaction, ReplayRequest request)
    {
        var letter = await LettersTable.FindAsync(transaction, request.LetterId);
        if (letter is null)
        {
            return new LetterAnswer.NotFound();
        }
        if (letter.Status != LetterStatus.Parked)
        {
            return await WhoWasFirstAsync(transaction, letter);
        }
        if (letter.Replays >= options.Value.MaxReplays)
        {
            return new LetterAnswer.Conflict(RejectionReason.ReplayExhausted,
                $"It has been replayed {letter.Replays} times and failed each time; mend the cause, edit the message or discard it (DeadLetters:MaxReplays is {options.Value.MaxReplays}).");
        }
        if (letter.Reason == RejectionReason.ForeignDeadLetter && !request.Confirmed)
        {
            return new LetterAnswer.Conflict("confirmation_needed", "Another program put it among the dead letters; look at it and confirm that it is to be processed.");
        }

        if (letter.IsForgotten)
        {
            return new LetterAnswer.Conflict("forgotten", "Its customer is forgotten and nobody can read the message any more; discard it.");
        }

        var original = MessagePropertiesJson.Read(letter.Properties);
        var before = new LetterContent(letter.Id, letter.OrderId, letter.Key, original.Type, original.ContentType, original.ContentEncoding, letter.Body);
        var isEdited = request.Patch is not null;
        string? mistake = null;
        var sent = request.Patch is { } patch ? patch.Apply(before, out mistake) : before;
        if (sent is null)
        {
            return new LetterAnswer.Invalid(new Rejection(PatchNotApplicable, mistake ?? "It does not fit this letter.", null));
        }
        if (letter.Reason == RejectionReason.BodyTooLarge && sent.Body.Length == 0)
        {
            return new LetterAnswer.Invalid(new Rejection(RejectionReason.BodyTooLarge, "The broker has not brought its bytes, so there is nothing to send. Give it a body or discard it.", null));
        }
        var headers = Headers(original, new ReplayMark(letter.Id, (int)letter.Replays + 1)).ToDictionary(header => header.Key, header => (object?)header.Value, StringComparer.Ordinal);
        var properties = new MessageProperties { MessageId = sent.Key, Type = sent.Type, ContentType = sent.ContentType, Headers = headers };
        if (isEdited && EnvelopeDecoder.Decode(properties, sent.Body) is Decoded.Invalid invalid)
        {
            return new LetterAnswer.Invalid(invalid.Rejection);
        }
        var replays = letter.Replays + 1;
        var message = Message(sent, original, isEdited, new ReplayMark(letter.Id, (int)replays));
        if (ConfirmedPublisher.WhyNotSendable(message.ToMessage(sent.Body, letter.OrderId)) is { } refusal)
        {
            // Before anything is written: it would only come back.
            var reason = sent.Body.Length > EnvelopeDecoder.MaxBodyBytes ? RejectionReason.BodyTooLarge : RejectionReason.PropertyInvalid;
            return new LetterAnswer.Invalid(new Rejection(reason, $"It can't be sent as it is: {refusal}. Edit it or discard it.", null));
        }

        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        // Decisive on a store where two of us may have read the same row.
        if (!await LettersTable.ReplayAsync(transaction, letter.Id, replays, sent.Key == letter.Key ? null : sent.Key, now))
        {
            return await WhoWasFirstAsync(transaction, (await LettersTable.FindAsync(transaction, request.LetterId))!);
        }
        await ReplaysTable.AddAsync(transaction, request, isEdited ? sent.Body : null, letter.CustomerId, isEdited ? LetterPatch.Change(before, sent) : null, now);
        await OutboxStore.AddAsync(transaction, new OutboxRow(OutboxKind.Replay, letter.OrderId ?? letter.Key, 0, null, message.ToJson(), sent.Body, now));
        var what = isEdited ? "replayed with an edited body" : "replayed";
        var leftOut = LeftOut(original, message);
        await WriteHistoryAsync(transaction, letter, "replayed", $"Dead letter {letter.Id} was {what} by {request.Who}.{leftOut}", now);
        await AuditTrail.WriteAsync(transaction, request.Who, isEdited ? "dead-letter.edit-and-replay" : "dead-letter.replay", $"dead letter {letter.Id}", request.Reason ?? "", now);
        return new LetterAnswer.Done(letter.Id, replays);
    }

    /// <summary>Ends a replay that the broker can't be sent: its letter waits for an operator again, with the reason.</summary>
    public async Task RefusedAsync(StoreTransaction transaction, Announcement message, string reason)
    {
        if (ReplayMark.Parse(message.Headers?.GetValueOrDefault(ReplayMark.Header)) is not { } mark)
        {
            return;
        }
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        if (!await LettersTable.TakeBackAsync(transaction, mark, now))
        {
            return;
        }
        await ReplaysTable.FailAsync(transaction, mark.LetterId, NotSendable + reason, now);
        var letter = (await LettersTable.FindAsync(transaction, mark.LetterId))!;
        await WriteHistoryAsync(transaction, letter, "replay_failed", $"Replay {mark.Replays} could not be sent as it is: {reason}. Edit the message or discard it.", now);
    }

    /// <summary>Gives a parked letter up.</summary>
    /// <param name="reason">Why; not blank.</param>
    public Task<LetterAnswer> DiscardAsync(long letterId, Caller who, string reason, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        return SettleAsync(letterId, who, reason, LetterStatus.Discarded, cancellationToken);
    }

    /// <summary>Parks a discarded letter again.</summary>
    public Task<LetterAnswer> RestoreAsync(long letterId, Caller who, string reason, CancellationToken cancellationToken) =>
        SettleAsync(letterId, who, reason, LetterStatus.Parked, cancellationToken);

    private Task<LetterAnswer> SettleAsync(long letterId, Caller who, string reason, string to, CancellationToken cancellationToken) => database.WriteAsync<LetterAnswer>(async transaction =>
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var isDone = to == LetterStatus.Discarded
            ? await LettersTable.DiscardAsync(transaction, letterId, who.Shown, reason, now)
            : await LettersTable.RestoreAsync(transaction, letterId);
        var letter = await LettersTable.FindAsync(transaction, letterId);
        if (letter is null)
        {
            return new LetterAnswer.NotFound();
        }
        if (!isDone)
        {
            return await WhoWasFirstAsync(transaction, letter);
        }
        var verb = to == LetterStatus.Discarded ? "discarded" : "restored";
        await WriteHistoryAsync(transaction, letter, verb, $"Dead letter {letterId} was {verb} by {who}: {reason}", now);
        await AuditTrail.WriteAsync(transaction, who, to == LetterStatus.Discarded ? "dead-letter.discard" : "dead-letter.restore", $"dead letter {letterId}", reason, now);
        return new LetterAnswer.Done(letterId, letter.Replays);
    }, cancellationToken);

    private static async Task<LetterAnswer.Conflict> WhoWasFirstAsync(StoreTransaction transaction, StoredLetter letter)
    {
        var (by, at) = (letter.SettledBy, letter.SettledAt);
        if (letter.Status == LetterStatus.Replayed)
        {
            by = await ReplaysTable.RequestedByAsync(transaction, letter.Id);
            at = letter.ReplayedAt;
        }
        var when = at is { } time ? DateTimeOffset.FromUnixTimeMilliseconds(time).ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture) : null;
        return new LetterAnswer.Conflict(letter.Status, $"Dead letter {letter.Id} is {letter.Status}{(by is null ? "" : $" by {by}")}{(when is null ? "" : $" since {when}")}.");
    }

    /// <summary>The message as it goes out again.</summary>
    internal static Announcement Message(LetterContent sent, MessageProperties original, bool isEdited, ReplayMark mark) => new(
        TopologyNames.OrdersIn, TopologyNames.Orders, sent.Key, sent.ContentType, sent.ContentEncoding,
        // An operator can't edit it, so it must not keep an edited message from being sent.
        isEdited && !IsShort(original.CorrelationId) ? null : original.CorrelationId, sent.Type, Headers(original, mark));

    /// <summary>The sender's own headers, as texts. The key travels as the message id, so that a letter whose key was not valid gets through as well.</summary>
    private static Dictionary<string, string> Headers(MessageProperties original, ReplayMark mark)
    {
        var headers = new Dictionary<string, string>(StringComparer.Ordinal) { [ReplayMark.Header] = mark.ToString() };
        var length = 0;
        foreach (var (name, value) in original.Headers ?? new Dictionary<string, object?>())
        {
            var text = value switch
            {
                string already => already,
                bool or long or double => Convert.ToString(value, CultureInfo.InvariantCulture),
                _ => null,
            };
            var size = text is null ? 0 : HeaderOverhead + Encoding.UTF8.GetByteCount(name) + Encoding.UTF8.GetByteCount(text);
            if (text is null || size > LongestHeader || length + size > LongestHeaders || !IsShort(name)
                || BelongsToDelivery(name))
            {
                continue;
            }
            headers[name] = text;
            length += size;
        }
        return headers;
    }

    private static bool IsShort(string? text) => text is null || Encoding.UTF8.GetByteCount(text) <= LongestShortText;

    /// <summary>What the history says of headers that are too large to be sent again.</summary>
    private static string LeftOut(MessageProperties original, Announcement message)
    {
        var names = (original.Headers ?? new Dictionary<string, object?>())
            .Count(header => header.Value is string && !message.Headers!.ContainsKey(header.Key) && !BelongsToDelivery(header.Key));
        return names == 0 ? "" : $" {names} of its headers {(names == 1 ? "is" : "are")} too large to be sent again and {(names == 1 ? "was" : "were")} left out.";
    }

    private static bool BelongsToDelivery(string name) => NotReplayed.Contains(name, StringComparer.OrdinalIgnoreCase)
        || name.StartsWith("x-first-death-", StringComparison.OrdinalIgnoreCase) || name.StartsWith("x-last-death-", StringComparison.OrdinalIgnoreCase);

    private static Task WriteHistoryAsync(StoreTransaction transaction, StoredLetter letter, string kind, string detail, long now) =>
        HistoryTable.AddAsync(transaction, [(letter.Id, new HistoryRow(letter.OrderId, letter.Key, now, kind, detail))]);
}
