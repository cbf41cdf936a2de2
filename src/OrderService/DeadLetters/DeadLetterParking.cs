using System.Data.Common;
using System.Reflection;
using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Notifications;

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
    public async Task<ParkOutcome> ParkAsync(DbTransaction transaction, DeadLetter letter) => (await ParkAsync(transaction, [letter]))[0];

    /// <summary>Parks letters inside the caller's transaction.</summary>
    /// <returns>What became of each, in the same order.</returns>
    public async Task<IReadOnlyList<ParkOutcome>> ParkAsync(DbTransaction transaction, IReadOnlyList<DeadLetter> letters)
    {
        var now = clock.GetUtcNow();
        await ClaimAsync(transaction, letters, now);
        var inbox = await ReadInboxAsync(transaction, letters);
        var outcomes = new ParkOutcome[letters.Count];
        var opened = new Dictionary<string, OpenedLetters>(StringComparer.Ordinal);
        for (var index = 0; index < letters.Count; index++)
        {
            var letter = letters[index];
            var incident = Incident.Of(letter.Rejection, letter.Exception);
            var (outcome, id) = await ParkOneAsync(transaction, letter, incident, inbox.GetValueOrDefault(letter.Key), now);
            outcomes[index] = outcome;
            if (outcome is ParkOutcome.Parked or ParkOutcome.ReplayFailed)
            {
                if (!opened.TryGetValue(incident.Fingerprint, out var group))
                {
                    opened[incident.Fingerprint] = group = new OpenedLetters(incident);
                }
                group.Ids.Add(id);
            }
            await MarkRejectionParkedAsync(transaction, letter);
        }
        // In one order everywhere, so that two processes never wait for each other's incidents.
        foreach (var group in opened.Values.OrderBy(group => group.Incident.Fingerprint, StringComparer.Ordinal))
        {
            await OpenIncidentAsync(transaction, group, now);
        }
        return outcomes;
    }

    /// <summary>Takes the keys of messages that may be sound, before the inbox is read: whoever comes second sees the other's row.</summary>
    private static async Task ClaimAsync(DbTransaction transaction, IReadOnlyList<DeadLetter> letters, DateTimeOffset now)
    {
        foreach (var letter in letters)
        {
            if (letter.Claims)
            {
                // A deferred command that is given up now was claimed as deferred.
                await transaction.Connection!.ExecuteAsync(
                    """
                    INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) VALUES (@Key, @Fingerprint, 4, @Reason, @OrderId, @now)
                    ON CONFLICT (key) DO UPDATE SET outcome = 4, reason = excluded.reason, decided_at = excluded.decided_at
                    WHERE inbox.outcome = 3 AND inbox.fingerprint = excluded.fingerprint AND excluded.reason = 'order_unknown'
                    """,
                    new { letter.Key, letter.Fingerprint, letter.Rejection.Reason, letter.Facts.OrderId, now = now.ToUnixTimeMilliseconds() }, transaction);
            }
        }
    }

    private static async Task<Dictionary<string, InboxRow>> ReadInboxAsync(DbTransaction transaction, IReadOnlyList<DeadLetter> letters)
    {
        var parameters = new DynamicParameters();
        var keys = SqlList.Add(parameters, "key", letters.Select(letter => letter.Key).Distinct(StringComparer.Ordinal).ToList());
        return (await transaction.Connection!.QueryAsync<InboxRow>(
            $"SELECT key AS Key, fingerprint AS Fingerprint, outcome AS Outcome FROM inbox WHERE key IN {keys}", parameters, transaction))
            .ToDictionary(row => row.Key, StringComparer.Ordinal);
    }

    private static async Task<(ParkOutcome Outcome, long Id)> ParkOneAsync(DbTransaction transaction, DeadLetter letter, Incident incident, InboxRow? decided, DateTimeOffset now)
    {
        var superseded = decided is { Outcome: 1 or 2 or 3 } && decided.Fingerprint.AsSpan().SequenceEqual(letter.Fingerprint);
        var mark = ReplayMark.Parse(HeaderText(letter.Properties, ReplayMark.Header));
        if (mark is not null && !superseded && await ReopenReplayedAsync(transaction, letter, incident, mark, now))
        {
            await WriteHistoryAsync(transaction, letter, mark.LetterId, "replay_failed", $"Replay {mark.Replays} failed: {letter.Rejection.Reason}. {letter.Rejection.Detail}", now);
            return (ParkOutcome.ReplayFailed, mark.LetterId);
        }

        var properties = letter.PropertiesJson();
        var inserted = await transaction.Connection!.ExecuteScalarAsync<long?>(
            """
            INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, field, exception, body, content_type, type, message_id, correlation_id,
                                      properties, deaths, order_id, customer_id, currency, value_minor, parked_at, opened_at, settled_at, settled_by, settle_reason)
            VALUES (@Key, @Fingerprint, @Incident, @Status, @Reason, @Detail, @Field, @Exception, @Body, @ContentType, @Type, @MessageId, @CorrelationId,
                    @Properties, @Deaths, @OrderId, @CustomerId, @Currency, @ValueMinor, @Now, @Now, @SettledAt, @SettledBy, @SettleReason)
            ON CONFLICT (key, fingerprint) DO NOTHING RETURNING id
            """,
            new
            {
                letter.Key,
                letter.Fingerprint,
                Incident = incident.Fingerprint,
                Status = superseded ? LetterStatus.Superseded : LetterStatus.Parked,
                letter.Rejection.Reason,
                Detail = Clean(letter.Rejection.Detail),
                letter.Rejection.Field,
                Exception = Clean(letter.Exception, 16 * 1024),
                letter.Body,
                ContentType = Clean(letter.Properties.ContentType),
                Type = Clean(letter.Properties.Type),
                MessageId = Clean(letter.Properties.MessageId),
                CorrelationId = Clean(letter.Properties.CorrelationId),
                Properties = properties,
                Deaths = DeadLetter.DeathsJson(properties),
                letter.Facts.OrderId,
                letter.Facts.CustomerId,
                letter.Facts.Currency,
                letter.Facts.ValueMinor,
                Now = now.ToUnixTimeMilliseconds(),
                SettledAt = superseded ? now.ToUnixTimeMilliseconds() : (long?)null,
                SettledBy = superseded ? "order flow" : null,
                SettleReason = superseded ? "The message was decided after all." : null,
            },
            transaction);
        if (inserted is { } id)
        {
            await WriteHistoryAsync(transaction, letter, id, superseded ? "superseded" : "parked",
                superseded ? "A dead letter came for a message that had been decided; nothing is lost." : $"Became a dead letter: {letter.Rejection.Reason}. {letter.Rejection.Detail}", now);
            return (superseded ? ParkOutcome.Superseded : ParkOutcome.Parked, id);
        }
        return await ParkCopyAsync(transaction, letter, incident, decided, superseded, now);
    }

    /// <summary>The letter is known; whether a copy opens it again depends on where it stands.</summary>
    private static async Task<(ParkOutcome Outcome, long Id)> ParkCopyAsync(
        DbTransaction transaction, DeadLetter letter, Incident incident, InboxRow? decided, bool superseded, DateTimeOffset now)
    {
        var known = await transaction.Connection!.QuerySingleAsync<KnownLetter>(
            "SELECT id AS Id, status AS Status FROM dead_letters WHERE key = @Key AND fingerprint = @Fingerprint", new { letter.Key, letter.Fingerprint }, transaction);
        await transaction.Connection!.ExecuteAsync(
            "UPDATE dead_letters SET copies = copies + @more WHERE id = @Id", new { more = letter.Redelivered ? 0 : 1, known.Id }, transaction);
        if (superseded)
        {
            await transaction.Connection!.ExecuteAsync(
                """
                UPDATE dead_letters SET status = 'superseded', settled_at = @now, settled_by = 'order flow', settle_reason = 'The message was decided after all.'
                WHERE id = @Id AND status = 'parked'
                """,
                new { now = now.ToUnixTimeMilliseconds(), known.Id }, transaction);
            return (ParkOutcome.Superseded, known.Id);
        }
        var opensAgain = known.Status switch
        {
            // A replay under way has its own end; this is an older copy.
            LetterStatus.Parked or LetterStatus.Replayed => false,
            // Settled by an edited body under the same key: the old bytes are done with.
            LetterStatus.Resolved when decided is { Outcome: 1 or 2 or 3 } => false,
            // The broker handed out once more what was discarded meanwhile; a copy that somebody sent is another matter.
            LetterStatus.Discarded when letter.Redelivered => false,
            _ => true,
        };
        if (!opensAgain)
        {
            return (ParkOutcome.Copy, known.Id);
        }
        await ReopenAsync(transaction, letter, incident, known.Id, now);
        await WriteHistoryAsync(transaction, letter, known.Id, "parked", $"A {known.Status} dead letter came again: {letter.Rejection.Reason}. {letter.Rejection.Detail}", now);
        return (ParkOutcome.Parked, known.Id);
    }

    private static async Task<bool> ReopenReplayedAsync(DbTransaction transaction, DeadLetter letter, Incident incident, ReplayMark mark, DateTimeOffset now)
    {
        // The mark could be forged: key, state and count must fit. With an older count it is a copy of an earlier attempt.
        var fits = await transaction.Connection!.ExecuteAsync(
            "UPDATE dead_letters SET status = 'parked' WHERE id = @LetterId AND key = @Key AND status = 'replayed' AND replays = @Replays",
            new { mark.LetterId, letter.Key, mark.Replays }, transaction);
        if (fits == 0)
        {
            return false;
        }
        await ReopenAsync(transaction, letter, incident, mark.LetterId, now);
        await transaction.Connection!.ExecuteAsync(
            "UPDATE replays SET outcome = 'failed', detail = @Detail, finished_at = @now WHERE letter_id = @LetterId AND outcome IS NULL",
            new { Detail = $"{letter.Rejection.Reason}: {letter.Rejection.Detail}", now = now.ToUnixTimeMilliseconds(), mark.LetterId }, transaction);
        return true;
    }

    private static Task ReopenAsync(DbTransaction transaction, DeadLetter letter, Incident incident, long id, DateTimeOffset now) => transaction.Connection!.ExecuteAsync(
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
            Exception = Clean(letter.Exception, 16 * 1024),
            now = now.ToUnixTimeMilliseconds(),
            id,
        },
        transaction);

    /// <summary>The letter has the bytes now; the copy beside the rejection is not needed any more.</summary>
    private static Task MarkRejectionParkedAsync(DbTransaction transaction, DeadLetter letter) => transaction.Connection!.ExecuteAsync(
        "UPDATE rejections SET parked = 1, body = NULL, properties = NULL WHERE key = @Key AND fingerprint = @Fingerprint AND parked = 0",
        new { letter.Key, letter.Fingerprint }, transaction);

    private async Task OpenIncidentAsync(DbTransaction transaction, OpenedLetters group, DateTimeOffset now)
    {
        var incident = group.Incident;
        var values = new { incident.Fingerprint, incident.Reason, incident.Title, incident.Field, incident.Exception, Letters = group.Ids.Count, now = now.ToUnixTimeMilliseconds(), Build };
        var isNew = await transaction.Connection!.ExecuteAsync(
            """
            INSERT INTO incidents (fingerprint, reason, title, field, exception, state, letters, first_seen, last_seen, first_build, last_build, state_at)
            VALUES (@Fingerprint, @Reason, @Title, @Field, @Exception, 'new', @Letters, @now, @now, @Build, @Build, @now)
            ON CONFLICT (fingerprint) DO NOTHING
            """,
            values, transaction) == 1;
        var regressed = !isNew && await transaction.Connection!.ExecuteAsync(
            "UPDATE incidents SET state = 'regressed', regressed_build = @Build, state_by = NULL, state_at = @now, escalated_at = NULL WHERE fingerprint = @Fingerprint AND state = 'resolved'",
            values, transaction) == 1;
        if (!isNew)
        {
            await transaction.Connection!.ExecuteAsync(
                "UPDATE incidents SET letters = letters + @Letters, last_seen = @now, last_build = @Build WHERE fingerprint = @Fingerprint", values, transaction);
        }
        if (!isNew && !regressed)
        {
            return;
        }
        var firsts = await transaction.Connection!.ExecuteScalarAsync<long>(
            "SELECT count(*) FROM alerts WHERE kind = 'first' AND created_at > @since", new { since = (now - alerts.Value.DigestInterval).ToUnixTimeMilliseconds() }, transaction);
        if (firsts >= alerts.Value.MaxFirstPerInterval)
        {
            // The digest tells of it.
            return;
        }
        var content = await LetterAlerts.FirstAsync(transaction, incident, regressed, group.Ids, alerts.Value.PageUrl);
        var alertId = await AlertOutbox.AddAsync(transaction, content, incident.Fingerprint, now);
        var parameters = new DynamicParameters(new { alertId, incident.Fingerprint, now = now.ToUnixTimeMilliseconds() });
        var ids = SqlList.Add(parameters, "id", group.Ids);
        await transaction.Connection!.ExecuteAsync($"UPDATE dead_letters SET alert_id = @alertId WHERE id IN {ids}", parameters, transaction);
        await transaction.Connection!.ExecuteAsync("UPDATE incidents SET last_alert_at = @now WHERE fingerprint = @Fingerprint", parameters, transaction);
    }

    private static Task WriteHistoryAsync(DbTransaction transaction, DeadLetter letter, long id, string kind, string detail, DateTimeOffset now) => transaction.Connection!.ExecuteAsync(
        "INSERT INTO history (order_id, key, at, kind, detail, letter_id) VALUES (@OrderId, @Key, @now, @kind, @detail, @id)",
        new { letter.Facts.OrderId, letter.Key, now = now.ToUnixTimeMilliseconds(), kind, detail = Clean(detail), id }, transaction);

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

    private sealed record InboxRow(string Key, byte[] Fingerprint, long Outcome);

    private sealed record KnownLetter(long Id, string Status);

    private sealed class OpenedLetters(Incident incident)
    {
        public Incident Incident { get; } = incident;
        public List<long> Ids { get; } = [];
    }
}
