using System.Data;
using System.Data.Common;
using System.Globalization;
using System.Reflection;
using Dapper;
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
    // More would save PostgreSQL few round trips more; SQLite looks each parameter up among all others.
    private const int RowsPerStatement = 10;
    private const int LongestException = 16 * 1024;
    private const string OrderFlow = "order flow";
    private const string DecidedAfterAll = "The message was decided after all.";

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
        // The mark could be forged: key, state and count must fit. With an older count it is a copy of an earlier attempt.
        var fits = await transaction.ExecuteAsync(
            "UPDATE dead_letters SET status = 'parked' WHERE id = @LetterId AND coalesce(replay_key, key) = @Key AND status = 'replayed' AND replays = @Replays",
            new { mark.LetterId, letter.Key, mark.Replays });
        if (fits == 0)
        {
            return;
        }
        await ReopenAsync(transaction, letter, failure.Incident, mark.LetterId, now);
        await ReplaysTable.FailAsync(transaction, mark.LetterId, $"{letter.Rejection.Reason}: {letter.Rejection.Detail}", now.ToUnixTimeMilliseconds());
        failure.Settle(ParkOutcome.ReplayFailed, mark.LetterId, "replay_failed", $"Replay {mark.Replays} failed: {letter.Rejection.Reason}. {letter.Rejection.Detail}");
    }

    /// <summary>Inserts what is not there yet, many letters in one statement: a storm must not become as many round trips.</summary>
    private static async Task InsertAsync(StoreTransaction transaction, IReadOnlyList<Failure> failures, DateTimeOffset now)
    {
        var candidates = failures.Where(failure => failure.Outcome is null).DistinctBy(failure => failure.Identity, StringComparer.Ordinal).ToList();
        foreach (var chunk in candidates.Chunk(RowsPerStatement))
        {
            var parameters = new DynamicParameters(new { now = now.ToUnixTimeMilliseconds() });
            var rows = new List<string>(chunk.Length);
            for (var index = 0; index < chunk.Length; index++)
            {
                var (letter, incident, isSuperseded) = (chunk[index].Letter, chunk[index].Incident, chunk[index].IsSuperseded);
                var properties = letter.PropertiesJson();
                rows.Add("(" + string.Join(", ",
                    Add("key", letter.Key),
                    Add("fingerprint", letter.Fingerprint),
                    Add("incident", incident.Fingerprint),
                    Add("status", isSuperseded ? LetterStatus.Superseded : LetterStatus.Parked),
                    Add("reason", letter.Rejection.Reason),
                    Add("detail", Clean(letter.Rejection.Detail)),
                    Add("field", letter.Rejection.Field),
                    Add("exception", Clean(letter.Exception, LongestException)),
                    Add("body", letter.Body),
                    Add("content_type", Clean(letter.Properties.ContentType)),
                    Add("type", Clean(letter.Properties.Type)),
                    Add("message_id", Clean(letter.Properties.MessageId)),
                    Add("correlation_id", Clean(letter.Properties.CorrelationId)),
                    Add("properties", properties),
                    Add("deaths", DeadLetter.DeathsJson(properties)),
                    Add("order_id", letter.Facts.OrderId),
                    Add("customer_id", letter.Facts.CustomerId),
                    Add("currency", letter.Facts.Currency),
                    Add("value_minor", letter.Facts.ValueMinor),
                    "@now, @now",
                    Add("settled_at", isSuperseded ? now.ToUnixTimeMilliseconds() : (long?)null),
                    Add("settled_by", isSuperseded ? OrderFlow : null),
                    Add("settle_reason", isSuperseded ? DecidedAfterAll : null),
                    Add("twins", letter.Twins.Stored()),
                    Add("keyless", letter.Twins.ByContent is null ? 0L : (long?)1)) + ")");

                string Add<T>(string name, T value)
                {
                    var parameter = name + index.ToString(CultureInfo.InvariantCulture);
                    // The type is said for nulls as well: a row of a VALUES list must not be of an unknown one.
                    parameters.Add(parameter, value, typeof(T) == typeof(byte[]) ? DbType.Binary : typeof(T) == typeof(long?) ? DbType.Int64 : DbType.String);
                    return "@" + parameter;
                }
            }
            var inserted = await transaction.QueryAsync<InsertedRow>(
                $"""
                INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, field, exception, body, content_type, type, message_id, correlation_id,
                                          properties, deaths, order_id, customer_id, currency, value_minor, parked_at, opened_at, settled_at, settled_by, settle_reason,
                                          twins, keyless)
                VALUES {string.Join(", ", rows)}
                ON CONFLICT (key, fingerprint) DO NOTHING RETURNING id, key, fingerprint
                """,
                parameters);
            var byIdentity = chunk.ToDictionary(failure => failure.Identity, StringComparer.Ordinal);
            foreach (var row in inserted)
            {
                var failure = byIdentity[Failure.IdentityOf(row.Key, row.Fingerprint)];
                if (failure.Letter.Twins.ByContent is { } content)
                {
                    await transaction.ExecuteAsync(
                        "INSERT INTO keyless_letters (fingerprint, letter_id) VALUES (@content, @Id)", new { content, row.Id });
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
    }

    /// <summary>The letter is known; whether a copy opens it again depends on where it stands.</summary>
    private static async Task ParkCopyAsync(StoreTransaction transaction, Failure failure, DateTimeOffset now)
    {
        var letter = failure.Letter;
        var known = await transaction.QuerySingleAsync<KnownLetter>(
            "SELECT id, status, properties FROM dead_letters WHERE key = @Key AND fingerprint = @Fingerprint", new { letter.Key, letter.Fingerprint });
        var sameDelivery = letter.Redelivered || DeadLetter.IsSameDelivery(known.Properties, letter.PropertiesJson());
        if (!sameDelivery)
        {
            await transaction.ExecuteAsync("UPDATE dead_letters SET copies = copies + 1 WHERE id = @Id", new { known.Id });
        }
        if (letter.Body.Length > EnvelopeDecoder.MaxBodyBytes)
        {
            // Its rejection was parked without them.
            await transaction.ExecuteAsync(
                "UPDATE dead_letters SET body = @Body, detail = @Detail WHERE id = @Id AND OCTET_LENGTH(body) = 0", new { letter.Body, letter.Rejection.Detail, known.Id });
        }
        if (failure.IsSuperseded)
        {
            await transaction.ExecuteAsync(
                "UPDATE dead_letters SET status = 'superseded', settled_at = @now, settled_by = @OrderFlow, settle_reason = @DecidedAfterAll WHERE id = @Id AND status = 'parked'",
                new { now = now.ToUnixTimeMilliseconds(), OrderFlow, DecidedAfterAll, known.Id });
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
        await ReopenAsync(transaction, letter, failure.Incident, known.Id, now);
        failure.Settle(ParkOutcome.Parked, known.Id, "parked", $"A {known.Status} dead letter came again: {letter.Rejection.Reason}. {letter.Rejection.Detail}");
    }

    private static Task ReopenAsync(StoreTransaction transaction, DeadLetter letter, Incident incident, long id, DateTimeOffset now) => transaction.ExecuteAsync(
        """
        UPDATE dead_letters SET status = 'parked', incident = @Incident, reason = @Reason, detail = @Detail, field = @Field, exception = @Exception,
               opened_at = @now, alert_id = NULL, settled_at = NULL, settled_by = NULL, settle_reason = NULL
        WHERE id = @id
        """,
        new
        {
            Incident = incident.Fingerprint,
            letter.Rejection.Reason,
            Detail = Clean(letter.Rejection.Detail),
            letter.Rejection.Field,
            Exception = Clean(letter.Exception, LongestException),
            now = now.ToUnixTimeMilliseconds(),
            id,
        });

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
        var parameters = new DynamicParameters(new { alertId, incident.Fingerprint, now = now.ToUnixTimeMilliseconds() });
        var ids = SqlList.Add(parameters, "id", letters);
        await transaction.ExecuteAsync($"UPDATE dead_letters SET alert_id = @alertId WHERE id IN {ids}", parameters);
        await IncidentsTable.SetAlertedAsync(transaction, incident.Fingerprint, now.ToUnixTimeMilliseconds());
    }

    private static Task WriteHistoryAsync(StoreTransaction transaction, IReadOnlyList<Failure> failures, DateTimeOffset now) => HistoryTable.AddAsync(
        transaction,
        failures.Where(failure => failure.HistoryKind is not null).Select(failure => (
            failure.Id, new HistoryRow(failure.Letter.Facts.OrderId, failure.Letter.Key, now.ToUnixTimeMilliseconds(), failure.HistoryKind!, Clean(failure.HistoryDetail)!))));

    private static string? HeaderText(MessageProperties properties, string name) => properties.Headers is { } headers && headers.TryGetValue(name, out var value)
        ? value switch { string text => text, byte[] bytes => System.Text.Encoding.ASCII.GetString(bytes), _ => null }
        : null;

    /// <summary>A text that every store takes: no zero characters, no broken surrogates, not endless.</summary>
    private static string? Clean(string? text, int longest = 2048)
    {
        if (text is null)
        {
            return null;
        }
        var cut = text.Length <= longest ? text : text[..longest];
        return System.Text.Encoding.UTF8.GetString(System.Text.Encoding.UTF8.GetBytes(cut)).Replace('\0', '\uFFFD');
    }

    private sealed record KnownLetter(long Id, string Status, string Properties);

    private sealed record InsertedRow(long Id, string Key, byte[] Fingerprint);

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
