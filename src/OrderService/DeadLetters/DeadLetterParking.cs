using System.Data;
using System.Data.Common;
using System.Globalization;
using System.Reflection;
using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>What became of a letter that was to be parked.</summary>
public enum ParkOutcome
{
    /// <summary>It waits for an operator now.</summary>
    Parked,

    /// <summary>Its replay failed; it waits for an operator again.</summary>
    ReplayFailed,

    /// <summary>A copy of a letter that is known.</summary>
    Copy,

    /// <summary>The message was accepted, refused or deferred after all.</summary>
    Superseded,
}

/// <summary>Parks dead letters: the letter with its exact bytes, its incident, its line in the history and, for a new incident, the alert, in one transaction.</summary>
public sealed class DeadLetterParking(IOptions<AlertsOptions> alerts, TimeProvider clock)
{
    /// <summary>The version of this service, for "first seen in" and "came back in".</summary>
    internal static string Build { get; } =
        typeof(DeadLetterParking).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";

    /// <summary>Parks one message inside the caller's transaction, for instance a command whose order never came.</summary>
    public async Task<ParkOutcome> ParkAsync(StoreTransaction transaction, DeadLetter letter) => (await ParkAsync(transaction, [letter]))[0];

    /// <summary>Parks letters inside the caller's transaction.</summary>
    /// <returns>What became of each, in the same order.</returns>
    public async Task<IReadOnlyList<ParkOutcome>> ParkAsync(StoreTransaction transaction, IReadOnlyList<DeadLetter> letters)
    {
        if (letters.Count == 0)
        {
            return [];
        }
        var now = clock.GetUtcNow();
        await ClaimAsync(transaction, letters, now);
        var inbox = await ReadInboxAsync(transaction, letters);
        var failures = letters.Select(letter => new Failure(
            letter, Incident.Of(letter.Rejection, letter.Exception), Find(letter.Key), Find(OtherKey(letter)))).ToList();
        InboxEntry? Find(string? key) => key is not null && inbox.TryGetValue(key, out var entry) ? entry : null;
        foreach (var failure in failures)
        {
            await ReopenReplayedAsync(transaction, failure, now);
        }
        await InsertAsync(transaction, failures, now);
        foreach (var failure in failures.Where(failure => failure.Outcome is null))
        {
            await ParkCopyAsync(transaction, failure, now);
        }
        await WriteHistoryAsync(transaction, failures, now);
        await RejectionsTable.MarkParkedAsync(transaction, letters);
        // In one order everywhere, so that two processes never wait for each other's incidents.
        foreach (var group in failures.Where(failure => failure.Outcome is ParkOutcome.Parked or ParkOutcome.ReplayFailed)
            .GroupBy(failure => failure.Incident.Fingerprint, StringComparer.Ordinal).OrderBy(group => group.Key, StringComparer.Ordinal))
        {
            await OpenIncidentAsync(transaction, group.First().Incident, [.. group.Select(failure => failure.Id)], now);
        }
        return [.. failures.Select(failure => failure.Outcome!.Value)];
    }

    /// <summary>Parks a letter that is known to be good and undoes it: throws what others would meet.</summary>
    public Task TryAsync(IDatabase database, CancellationToken cancellationToken) =>
        database.TryOutAsync(transaction => ParkAsync(transaction, KnownGoodLetter()), cancellationToken);

    /// <summary>A letter of nobody's, of an incident of its own: to park it writes whatever the first letter of an incident writes.</summary>
    internal static DeadLetter KnownGoodLetter()
    {
        var name = $"known-good-{Guid.NewGuid():N}";
        var body = KnownGood.Order(name);
        var properties = new MessageProperties { MessageId = name, Type = Domain.CommandType.Place };
        var (key, fingerprint) = EnvelopeDecoder.Identify(properties, body);
        return DeadLetter.Of(key, fingerprint, new Rejection(RejectionReason.InternalError, "Known good.", null), name, body, properties) with { Claims = true };
    }

    /// <summary>Takes the keys of messages that may be sound, before the inbox is read: whoever comes second sees the other's row.</summary>
    private static async Task ClaimAsync(StoreTransaction transaction, IReadOnlyList<DeadLetter> letters, DateTimeOffset now)
    {
        foreach (var letter in letters)
        {
            if (letter.Claims)
            {
                await InboxTable.ClaimAsync(transaction, letter.Key, letter.Fingerprint, letter.Rejection.Reason, letter.Facts.OrderId, now.ToUnixTimeMilliseconds());
            }
        }
    }

    private static Task<Dictionary<string, InboxEntry>> ReadInboxAsync(StoreTransaction transaction, IReadOnlyList<DeadLetter> letters) => InboxTable.FindAsync(
        transaction, letters.Select(letter => letter.Key).Concat(letters.Select(OtherKey).OfType<string>()).Distinct(StringComparer.Ordinal).ToList());

    /// <summary>The derived key under which the bytes of a letter without a key come back with the right type.</summary>
    private static string? OtherKey(DeadLetter letter) => letter.Twins.ByContent is { } fingerprint ? EnvelopeDecoder.DerivedKey(fingerprint) : null;

    /// <summary>A letter that says which replay it is goes back to where it came from.</summary>
    private static async Task ReopenReplayedAsync(StoreTransaction transaction, Failure failure, DateTimeOffset now)
    {
        var letter = failure.Letter;
        if (failure.IsSuperseded || ReplayMark.Parse(HeaderText(letter.Properties, ReplayMark.Header)) is not { } mark)
        {
            return;
        }
        if (!await LettersTable.ReturnAsync(transaction, mark, letter.Key))
        {
            return;
        }
        await LettersTable.ReopenAsync(transaction, mark.LetterId, letter, failure.Incident.Fingerprint, now.ToUnixTimeMilliseconds());
        await ReplaysTable.FailAsync(transaction, mark.LetterId, $"{letter.Rejection.Reason}: {letter.Rejection.Detail}", now.ToUnixTimeMilliseconds());
        failure.Settle(ParkOutcome.ReplayFailed, mark.LetterId, "replay_failed", $"Replay {mark.Replays} failed: {letter.Rejection.Reason}. {letter.Rejection.Detail}");
    }

    /// <summary>Inserts what is not there yet.</summary>
    private static async Task InsertAsync(StoreTransaction transaction, IReadOnlyList<Failure> failures, DateTimeOffset now)
    {
        var candidates = failures.Where(failure => failure.Outcome is null).DistinctBy(failure => failure.Identity, StringComparer.Ordinal)
            .ToDictionary(failure => failure.Identity, StringComparer.Ordinal);
        var inserted = await LettersTable.InsertAsync(
            transaction, candidates.Values.Select(failure => new NewLetter(failure.Letter, failure.Incident.Fingerprint, failure.IsSuperseded)), now.ToUnixTimeMilliseconds());
        foreach (var row in inserted)
        {
            var failure = candidates[Failure.IdentityOf(row.Key, row.Fingerprint)];
            if (failure.Letter.Twins.ByContent is { } content)
            {
                await LettersTable.AddContentAsync(transaction, row.Id, content);
            }
            if (failure.IsSuperseded)
            {
                failure.Settle(ParkOutcome.Superseded, row.Id, "superseded", "A dead letter came for a message that had been decided; nothing is lost.");
            }
            else
            {
                failure.Settle(ParkOutcome.Parked, row.Id, "parked", $"Became a dead letter: {failure.Letter.Rejection.Reason}. {failure.Letter.Rejection.Detail}");
            }
        }
    }

    /// <summary>The letter is known; whether a copy opens it again depends on where it stands.</summary>
    private static async Task ParkCopyAsync(StoreTransaction transaction, Failure failure, DateTimeOffset now)
    {
        var letter = failure.Letter;
        var known = await LettersTable.KnownAsync(transaction, letter.Key, letter.Fingerprint);
        var sameDelivery = letter.Redelivered || DeadLetter.IsSameDelivery(known.Properties, letter.PropertiesJson());
        if (!sameDelivery)
        {
            await LettersTable.CountCopyAsync(transaction, known.Id);
        }
        if (letter.Body.Length > EnvelopeDecoder.MaxBodyBytes)
        {
            // Its rejection was parked without them.
            await LettersTable.AddBodyAsync(transaction, known.Id, letter);
        }
        if (failure.IsSuperseded)
        {
            await LettersTable.SupersedeAsync(transaction, known.Id, now.ToUnixTimeMilliseconds());
            failure.Settle(ParkOutcome.Superseded, known.Id);
            return;
        }
        var opensAgain = known.Status switch
        {
            // A replay under way has its own end; this is an older copy.
            LetterStatus.Parked or LetterStatus.Replayed => false,
            // Settled by an edited body under the same key: the old bytes are done with.
            LetterStatus.Resolved when failure.IsDecided => false,
            // The broker handed out once more what was discarded meanwhile; a copy that somebody sent is another matter.
            LetterStatus.Discarded when sameDelivery => false,
            _ => true,
        };
        if (!opensAgain)
        {
            failure.Settle(ParkOutcome.Copy, known.Id);
            return;
        }
        await LettersTable.ReopenAsync(transaction, known.Id, letter, failure.Incident.Fingerprint, now.ToUnixTimeMilliseconds());
        failure.Settle(ParkOutcome.Parked, known.Id, "parked", $"A {known.Status} dead letter came again: {letter.Rejection.Reason}. {letter.Rejection.Detail}");
    }

    private async Task OpenIncidentAsync(StoreTransaction transaction, Incident incident, IReadOnlyList<long> letters, DateTimeOffset now)
    {
        var change = await IncidentsTable.CountAsync(transaction, incident, letters.Count, Build, now.ToUnixTimeMilliseconds());
        if (change == IncidentChange.None || alerts.Value.QuietHours.HoldFirst(now))
        {
            return;
        }
        if (change == IncidentChange.Regressed && await IncidentsTable.IsMutedAsync(transaction, incident.Fingerprint, now.ToUnixTimeMilliseconds()))
        {
            return;
        }
        var firsts = await AlertsTable.FirstsSinceAsync(transaction, (now - alerts.Value.DigestInterval).ToUnixTimeMilliseconds());
        if (firsts >= alerts.Value.MaxFirstPerInterval)
        {
            // The digest tells of it.
            return;
        }
        var content = await LetterAlerts.FirstAsync(transaction, incident, change == IncidentChange.Regressed, letters, alerts.Value.PageUrl);
        var alertId = await AlertsTable.AddAsync(transaction, content, incident.Fingerprint, now);
        await LettersTable.CoverAsync(transaction, letters, alertId);
        await IncidentsTable.SetAlertedAsync(transaction, incident.Fingerprint, now.ToUnixTimeMilliseconds());
    }

    private static Task WriteHistoryAsync(StoreTransaction transaction, IReadOnlyList<Failure> failures, DateTimeOffset now) => HistoryTable.AddAsync(
        transaction,
        failures.Where(failure => failure.HistoryKind is not null).Select(failure => (
            failure.Id, new HistoryRow(failure.Letter.Facts.OrderId, failure.Letter.Key, now.ToUnixTimeMilliseconds(), failure.HistoryKind!, LettersTable.Clean(failure.HistoryDetail)!))));

    private static string? HeaderText(MessageProperties properties, string name) => properties.Headers is { } headers && headers.TryGetValue(name, out var value)
        ? value switch { string text => text, byte[] bytes => System.Text.Encoding.ASCII.GetString(bytes), _ => null }
        : null;

    /// <summary>A letter on its way into the store.</summary>
    private sealed class Failure(DeadLetter letter, Incident incident, InboxEntry? decided, InboxEntry? decidedByContent)
    {
        public DeadLetter Letter { get; } = letter;
        public Incident Incident { get; } = incident;

        /// <summary>What became of the key, of this or other bytes.</summary>
        public InboxEntry? Decided { get; } = decided;

        public bool IsDecided => IsDone(Decided);

        public string Identity { get; } = IdentityOf(letter.Key, letter.Fingerprint);
        public bool IsSuperseded => (IsDecided && IsSame(Decided!.Value.Fingerprint)) || IsDone(decidedByContent);

        private static bool IsDone(InboxEntry? row) => row is { Outcome: InboxOutcome.Accepted or InboxOutcome.Refused or InboxOutcome.Deferred };

        private bool IsSame(byte[] fingerprint) =>
            fingerprint.AsSpan().SequenceEqual(Letter.Fingerprint) || Letter.Twins.Others.Any(twin => twin.AsSpan().SequenceEqual(fingerprint));

        public ParkOutcome? Outcome { get; private set; }
        public long Id { get; private set; }
        public string? HistoryKind { get; private set; }
        public string? HistoryDetail { get; private set; }

        public static string IdentityOf(string key, byte[] fingerprint) => $"{Convert.ToHexStringLower(fingerprint)} {key}";

        public void Settle(ParkOutcome outcome, long id, string? historyKind = null, string? historyDetail = null) =>
            (Outcome, Id, HistoryKind, HistoryDetail) = (outcome, id, historyKind, historyDetail);
    }
}
