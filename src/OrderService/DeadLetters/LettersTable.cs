using System.Data;
using System.Globalization;
using System.Text;
using Dapper;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>
/// Dead letters, with the table of those that are found by their content. The order flow reads open letters and settles them with the append.
/// </summary>
internal static class LettersTable
{
    // More would save PostgreSQL few round trips more; SQLite looks each parameter up among all others.
    private const int RowsPerStatement = 10;
    private const int LongestException = 16 * 1024;
    private const string OrderFlow = "order flow";
    private static readonly string Sealed = SealSubject.Letters.Table;
    private const string DecidedAfterAll = "The message was decided after all.";

    /// <summary>What counts as one order: it, or else the letter.</summary>
    private const string OneOrder = "coalesce(l.order_id, CAST(l.id AS TEXT))";

    private const string Costs = "count(DISTINCT l.order_id) AS orders, count(DISTINCT l.customer_id) AS customers, min(l.parked_at) AS oldest";

    /// <summary>
    /// Parked letters as <c>l</c>. Where a letter does not say whose it is or what it is worth, its order does. The two kinds are read apart: only the one without looks into orders, along
    /// their index; a condition in the join would have PostgreSQL read all orders there are.
    /// </summary>
    internal static string Parked(string? incident) =>
        $"""
        (SELECT a.id, a.incident, a.order_id, a.customer_id, a.currency, a.value_minor AS value, a.parked_at
         FROM dead_letters a WHERE a.status = 'parked' AND a.customer_id IS NOT NULL AND a.currency IS NOT NULL{Of("a", incident)}
         UNION ALL
         SELECT b.id, b.incident, b.order_id, coalesce(b.customer_id, o.customer_id), coalesce(b.currency, o.currency),
                CASE WHEN b.currency IS NULL THEN o.total_minor ELSE b.value_minor END, b.parked_at
         FROM dead_letters b LEFT JOIN orders o ON o.order_id = b.order_id
         WHERE b.status = 'parked' AND (b.customer_id IS NULL OR b.currency IS NULL){Of("b", incident)}) l
        """;

    private const string Head = "substr(detail, 1, 500)";

    /// <summary>
    /// The letters that a text names, for a statement with <c>@filter_text</c> and <c>@filter_like</c>: exactly one of their names, each along its own index, or a part of their detail. A
    /// detail is one of few sentences that many letters have, so the sentences are looked through, from one to the next along their index, and not the letters.
    /// </summary>
    internal const string TextSql =
        $"""
        SELECT id FROM dead_letters WHERE order_id = @filter_text
        UNION SELECT id FROM dead_letters WHERE customer_id = @filter_text
        UNION SELECT id FROM dead_letters WHERE message_id = @filter_text
        UNION SELECT id FROM dead_letters WHERE key = @filter_text
        UNION SELECT id FROM dead_letters WHERE correlation_id = @filter_text
        UNION SELECT id FROM dead_letters WHERE {Head} IN (
            WITH RECURSIVE heads (head) AS (
                SELECT min({Head}) FROM dead_letters
                UNION ALL
                SELECT (SELECT min({Head}) FROM dead_letters WHERE {Head} > heads.head) FROM heads WHERE heads.head IS NOT NULL)
            SELECT head FROM heads WHERE lower(head) LIKE lower(@filter_like) ESCAPE '\')
        """;

    /// <summary>How long a body is, without reading it: those of before the keys are as long as they are.</summary>
    private const string BodyBytes =
        "length(l.body) - CASE WHEN length(l.body) = 0 OR EXISTS (SELECT 1 FROM plain_letters p WHERE p.id = l.id) THEN 0 ELSE 52 END";

    private const string SummaryColumns =
        $"""
        l.id, l.key, l.incident, l.status, l.reason, l.detail, l.field, l.type, l.message_id, l.correlation_id, l.order_id, l.customer_id,
        l.currency, l.value_minor, {BodyBytes} AS body_bytes, l.parked_at, l.opened_at, l.copies, l.replays, l.replayed_at,
        l.settled_at, l.settled_by, l.settle_reason, l.alert_id
        """;

    private const string SelectStored =
        "SELECT l.id, l.key, l.status, l.reason, l.body, l.properties, l.order_id, l.customer_id, l.replays, l.replayed_at, l.settled_at, l.settled_by FROM dead_letters l";

    /// <summary>Inserts those that are not there yet, many in one statement: a storm must not become as many round trips.</summary>
    /// <returns>The rows that were inserted.</returns>
    public static async Task<List<InsertedLetter>> InsertAsync(StoreTransaction transaction, IEnumerable<NewLetter> letters, long now)
    {
        var inserted = new List<InsertedLetter>();
        var all = letters.ToList();
        // All at once: each is a commit of its own where a customer has none yet.
        var customers = all.Select(row => row.Letter.Facts.CustomerId).OfType<string>().ToHashSet(StringComparer.Ordinal);
        var keys = customers.Count == 0 ? [] : transaction.Keys.OfCustomers(customers);
        foreach (var chunk in all.Chunk(RowsPerStatement))
        {
            var parameters = new DynamicParameters(new { now });
            var rows = chunk.Select((letter, index) => Row(parameters, letter, Encrypted(transaction, keys, letter.Letter.Facts.CustomerId, letter.Letter.Body), index, now)).ToList();
            inserted.AddRange(await transaction.QueryAsync<InsertedLetter>(
                $"""
                INSERT INTO dead_letters (
                    key, fingerprint, incident, status, reason, detail, field, exception, body, content_type, type, message_id, correlation_id, properties,
                    deaths, order_id, customer_id, currency, value_minor, parked_at, opened_at, settled_at, settled_by, settle_reason, twins, keyless)
                VALUES {string.Join(", ", rows)}
                ON CONFLICT (key, fingerprint) DO NOTHING RETURNING id, key, fingerprint
                """,
                parameters));
        }
        await SealMarks.AddedAsync(transaction, Sealed, inserted.ConvertAll(letter => letter.Id));
        return inserted;
    }

    /// <summary>A letter's bytes under the key of its customer, or under that of the day where it names none.</summary>
    private static byte[] Encrypted(StoreTransaction transaction, IReadOnlyDictionary<string, SealingKey> keys, string? customerId, byte[] body) =>
        customerId is not null && body.Length > 0 ? SealedBytes.Seal(keys[customerId], body) : transaction.Keys.Seal(body, null);

    private static string Row(DynamicParameters parameters, NewLetter row, byte[] body, int index, long now)
    {
        var (letter, incident, isSuperseded) = row;
        var properties = letter.PropertiesJson();
        return "(" + string.Join(", ",
            Add("key", letter.Key),
            Add("fingerprint", letter.Fingerprint),
            Add("incident", incident),
            Add("status", isSuperseded ? LetterStatus.Superseded : LetterStatus.Parked),
            Add("reason", letter.Rejection.Reason),
            Add("detail", Clean(letter.Rejection.Detail)),
            Add("field", letter.Rejection.Field),
            Add("exception", Clean(letter.Exception, LongestException)),
            Add("body", body),
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
            Add("settled_at", isSuperseded ? now : (long?)null),
            Add("settled_by", isSuperseded ? OrderFlow : null),
            Add("settle_reason", isSuperseded ? DecidedAfterAll : null),
            Add("twins", letter.Twins.Stored()),
            Add("keyless", letter.Twins.ByContent is null ? 0L : (long?)1)) + ")";

        string Add<T>(string name, T value)
        {
            var parameter = name + index.ToString(CultureInfo.InvariantCulture);
            // The type is said for nulls as well: a row of a VALUES list must not be of an unknown one.
            parameters.Add(parameter, value, typeof(T) == typeof(byte[]) ? DbType.Binary : typeof(T) == typeof(long?) ? DbType.Int64 : DbType.String);
            return "@" + parameter;
        }
    }

    /// <summary>A letter that brought no valid key is found by its content.</summary>
    public static Task AddContentAsync(StoreTransaction transaction, long id, byte[] content) =>
        transaction.ExecuteAsync("INSERT INTO keyless_letters (fingerprint, letter_id) VALUES (@content, @id)", new { content, id });

    /// <summary>
    /// Takes a letter whose replay came back. The mark could be forged: key, state and count must fit. With an older count it is a copy of an earlier attempt.
    /// </summary>
    public static Task<bool> ReturnAsync(StoreTransaction transaction, ReplayMark mark, string key) => ChangeAsync(
        transaction,
        "UPDATE dead_letters SET status = 'parked' WHERE id = @LetterId AND coalesce(replay_key, key) = @key AND status = 'replayed' AND replays = @Replays",
        new { mark.LetterId, key, mark.Replays });

    /// <summary>Parks a letter anew, with what it failed for now. No alert covers it.</summary>
    public static Task ReopenAsync(StoreTransaction transaction, long id, DeadLetter letter, string incident, long now) => ChangeAsync(
        transaction,
        """
        UPDATE dead_letters SET status = 'parked', incident = @incident, reason = @Reason, detail = @detail, field = @Field, exception = @exception,
               opened_at = @now, alert_id = NULL, settled_at = NULL, settled_by = NULL, settle_reason = NULL
        WHERE id = @id
        """,
        new
        {
            id,
            incident,
            letter.Rejection.Reason,
            detail = Clean(letter.Rejection.Detail),
            letter.Rejection.Field,
            exception = Clean(letter.Exception, LongestException),
            now,
        });

    public static Task CountCopyAsync(StoreTransaction transaction, long id) =>
        ChangeAsync(transaction, "UPDATE dead_letters SET copies = copies + 1 WHERE id = @id", new { id });

    /// <summary>A letter that was parked without its bytes gets them.</summary>
    public static Task AddBodyAsync(StoreTransaction transaction, long id, DeadLetter letter) => ChangeAsync(
        transaction, "UPDATE dead_letters SET body = @Body, detail = @Detail WHERE id = @id AND OCTET_LENGTH(body) = 0", new { Body = transaction.Keys.Seal(letter.Body, letter.Facts.CustomerId), letter.Rejection.Detail, id });

    /// <summary>The message was decided after all.</summary>
    public static Task SupersedeAsync(StoreTransaction transaction, long id, long now) => ChangeAsync(
        transaction,
        """
        UPDATE dead_letters SET status = 'superseded', settled_at = @now, settled_by = @OrderFlow, settle_reason = @DecidedAfterAll
        WHERE id = @id AND status = 'parked'
        """,
        new { id, now, OrderFlow, DecidedAfterAll });

    /// <summary>Sends a parked letter again.</summary>
    /// <param name="replayKey">The key that it goes out with, where it is another than the letter's.</param>
    /// <returns>False when somebody else was first.</returns>
    public static Task<bool> ReplayAsync(StoreTransaction transaction, long id, long replays, string? replayKey, long now) => ChangeAsync(
        transaction,
        "UPDATE dead_letters SET status = 'replayed', replays = @replays, replayed_at = @now, replay_key = @replayKey WHERE id = @id AND status = 'parked'",
        new { id, replays, replayKey, now });

    /// <summary>A replay could not be sent: its letter waits again. Uncovered, so that the next digest tells of it.</summary>
    /// <returns>False when that is not where the letter stands.</returns>
    public static Task<bool> TakeBackAsync(StoreTransaction transaction, ReplayMark mark, long now) => ChangeAsync(
        transaction,
        "UPDATE dead_letters SET status = 'parked', opened_at = @now, alert_id = NULL WHERE id = @LetterId AND status = 'replayed' AND replays = @Replays",
        new { mark.LetterId, mark.Replays, now });

    /// <summary>Gives a parked letter up.</summary>
    /// <returns>False when it is not parked.</returns>
    public static async Task<bool> DiscardAsync(StoreTransaction transaction, long id, string who, string reason, long now) =>
        (await DiscardAsync(transaction, [id], who, reason, now)).Count == 1;

    /// <returns>Those that were parked: somebody else may have settled one of them since.</returns>
    public static Task<List<long>> DiscardAsync(StoreTransaction transaction, IReadOnlyCollection<long> ids, string who, string reason, long now) => ChangeSomeAsync(
        transaction,
        $"""
        UPDATE dead_letters SET status = 'discarded', settled_at = @now, settled_by = @who, settle_reason = @reason
        WHERE id IN {SqlList.Of(ids)} AND status = 'parked'
        """,
        new { who, reason, now });

    /// <summary>Parks a discarded letter again.</summary>
    /// <returns>False when it is not discarded.</returns>
    public static Task<bool> RestoreAsync(StoreTransaction transaction, long id) => ChangeAsync(
        transaction,
        "UPDATE dead_letters SET status = 'parked', settled_at = NULL, settled_by = NULL, settle_reason = NULL WHERE id = @id AND status = 'discarded'",
        new { id });

    /// <summary>An alert tells of those that no other tells of.</summary>
    public static Task CoverAsync(StoreTransaction transaction, IReadOnlyCollection<long> ids, long alertId) =>
        ChangeSomeAsync(transaction, $"UPDATE dead_letters SET alert_id = @alertId WHERE alert_id IS NULL AND id IN {SqlList.Of(ids)}", new { alertId });

    /// <summary>Whether a letter that no alert covers was opened until <paramref name="before"/>.</summary>
    /// <param name="beyond">Nothing happens in the future: what says so is from before the clock was set back, and old enough.</param>
    /// <param name="resting">Those that are not meant.</param>
    public static Task<bool> AnyUncoveredAsync(StoreConnection connection, long now, long before, long beyond, IReadOnlyCollection<long> resting) =>
        connection.ExecuteScalarAsync<bool>(
            $"""
            SELECT EXISTS (SELECT 1 FROM dead_letters WHERE {Uncovered(resting)} AND (opened_at <= @before OR opened_at > @beyond))
            """,
            new { now, before, beyond });

    public static Task<List<long>> UncoveredAsync(StoreConnection connection, long now, IReadOnlyCollection<long> resting) =>
        connection.QueryAsync<long>($"SELECT id FROM dead_letters WHERE {Uncovered(resting)} ORDER BY id", new { now });

    private static string Uncovered(IReadOnlyCollection<long> resting)
    {
        var others = resting.Count == 0 ? "" : $" AND id NOT IN {SqlList.Of(resting)}";
        return $"alert_id IS NULL AND status <> 'superseded' AND incident NOT IN ({IncidentsTable.SelectMuted}){others}";
    }

    // Whatever was settled by somebody was told of before; a superseded one needs no telling.
    private const string Old =
        "settled_at <= @before AND status IN ('resolved', 'discarded', 'superseded') AND (alert_id IS NOT NULL OR status = 'superseded')";

    /// <summary>How many were settled before a time.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM dead_letters WHERE {Old}", new { before });

    /// <summary>Those that were settled first, from behind <paramref name="last"/>.</summary>
    public static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, OldRow last, int most) => connection.QueryAsync<OldRow>(
        $"SELECT settled_at AS at, id FROM dead_letters WHERE {Old} AND (settled_at, id) > (@At, @Id) ORDER BY settled_at, id LIMIT @most",
        new { before, last.At, last.Id, most });

    /// <summary>Takes a settled letter out, with its replays and what is left of its rejection.</summary>
    public static async Task<long> RemoveOldAsync(StoreTransaction transaction, long id, long before)
    {
        if (await transaction.QueryAsync<(string Key, byte[] Fingerprint)>($"DELETE FROM dead_letters WHERE id = @id AND {Old} RETURNING key, fingerprint", new { id, before }) is not [var letter])
        {
            return 0;
        }
        await SealMarks.RemovedAsync(transaction, Sealed, id);
        await transaction.ExecuteAsync("DELETE FROM keyless_letters WHERE letter_id = @id", new { id });
        await ReplaysTable.RemoveAsync(transaction, id);
        await RejectionsTable.RemoveParkedAsync(transaction, letter.Key, letter.Fingerprint);
        return 1;
    }

    /// <summary>Runs an UPDATE of letters and marks those that it changed: without a mark a change would be found as tampering.</summary>
    private static async Task<List<long>> ChangeSomeAsync(StoreTransaction transaction, string update, object parameters)
    {
        var changed = await transaction.QueryAsync<long>($"{update} RETURNING id", parameters);
        await SealMarks.ChangedAsync(transaction, Sealed, changed);
        return changed;
    }

    /// <summary>The same for one letter.</summary>
    /// <returns>Whether it was changed.</returns>
    private static async Task<bool> ChangeAsync(StoreTransaction transaction, string update, object parameters) => (await ChangeSomeAsync(transaction, update, parameters)).Count == 1;

    /// <summary>What operators need to settle a letter; null when there is no such letter.</summary>
    public static async Task<StoredLetter?> FindAsync(StoreConnection connection, long id) =>
        (await connection.QuerySingleOrDefaultAsync<StoredLetter>($"{SelectStored} WHERE l.id = @id", new { id }))?.Opened(connection.Keys);

    /// <summary>The same of chosen letters, from behind <paramref name="after"/>.</summary>
    public static async Task<List<StoredLetter>> ChosenAsync(StoreConnection connection, LetterSelection selection, long after, long most)
    {
        var parameters = new DynamicParameters(new { after, most });
        return (await connection.QueryAsync<StoredLetter>(
            $"{SelectStored} WHERE l.id > @after AND {selection.Where(parameters)} ORDER BY l.id LIMIT @most", parameters)).ConvertAll(letter => letter.Opened(connection.Keys));
    }

    /// <summary>Their numbers.</summary>
    public static Task<List<long>> ChosenIdsAsync(StoreConnection connection, LetterSelection selection, long after, long most)
    {
        var parameters = new DynamicParameters(new { after, most });
        return connection.QueryAsync<long>(
            $"SELECT l.id FROM dead_letters l WHERE l.id > @after AND {selection.Where(parameters)} ORDER BY l.id LIMIT @most", parameters);
    }

    /// <summary>How many letters are meant, and the highest number among those that could be.</summary>
    public static async Task<(long Count, long UpTo)> CountAsync(StoreConnection connection, LetterSelection selection)
    {
        var parameters = new DynamicParameters();
        var where = selection.Where(parameters);
        var count = await connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM dead_letters l WHERE {where}", parameters);
        var upTo = await connection.ExecuteScalarAsync<long?>($"SELECT max(l.id) FROM dead_letters l WHERE {where}", parameters) ?? 0;
        return (Math.Min(count, selection.Limit ?? count), upTo);
    }

    /// <summary>The letter of a key and exactly these bytes.</summary>
    public static Task<KnownLetter> KnownAsync(StoreConnection connection, string key, byte[] fingerprint) => connection.QuerySingleAsync<KnownLetter>(
        "SELECT id, status, properties FROM dead_letters WHERE key = @key AND fingerprint = @fingerprint", new { key, fingerprint });

    /// <summary>Letters, newest first, from behind <paramref name="after"/>.</summary>
    public static Task<List<LetterRow>> ListAsync(StoreConnection connection, LetterFilter filter, long after, int limit)
    {
        var parameters = new DynamicParameters(new { after, limit });
        return connection.QueryAsync<LetterRow>(
            $"SELECT {SummaryColumns} FROM dead_letters l WHERE l.id < @after AND {filter.Where(parameters)} ORDER BY l.id DESC LIMIT @limit", parameters);
    }

    public static Task<long> CountAsync(StoreConnection connection, LetterFilter filter)
    {
        var parameters = new DynamicParameters();
        return connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM dead_letters l WHERE {filter.Where(parameters)}", parameters);
    }

    /// <summary>One letter with everything but its body, and its neighbours; null when there is none.</summary>
    public static Task<LetterRow?> GetAsync(StoreConnection connection, long id) => connection.QuerySingleOrDefaultAsync<LetterRow>(
        $"""
        SELECT {SummaryColumns}, l.exception, l.properties, l.deaths, l.content_type, l.fingerprint,
               (SELECT max(p.id) FROM dead_letters p WHERE p.incident = l.incident AND p.status = 'parked' AND p.id < l.id) AS previous_id,
               (SELECT min(n.id) FROM dead_letters n WHERE n.incident = l.incident AND n.status = 'parked' AND n.id > l.id) AS next_id
        FROM dead_letters l WHERE l.id = @id
        """,
        new { id });

    /// <returns>Null when there is no such letter.</returns>
    public static async Task<LetterBody?> BodyAsync(StoreConnection connection, long id) =>
        await connection.ExecuteScalarAsync<byte[]?>("SELECT body FROM dead_letters WHERE id = @id", new { id }) is { } stored ? LetterBody.Open(stored, connection.Keys) : null;

    /// <summary>Some letters whose bodies a version before the keys stored as they were.</summary>
    public static Task<List<PlainLetter>> PlainAsync(StoreConnection connection, int limit) => connection.QueryAsync<PlainLetter>(
        "SELECT l.id, l.body, l.customer_id FROM plain_letters p JOIN dead_letters l ON l.id = p.id ORDER BY p.id LIMIT @limit", new { limit });

    /// <summary>Their bodies lie under keys now.</summary>
    public static async Task SealAsync(StoreTransaction transaction, IReadOnlyCollection<PlainLetter> letters)
    {
        var customers = letters.Select(letter => letter.CustomerId).OfType<string>().ToHashSet(StringComparer.Ordinal);
        var keys = customers.Count == 0 ? [] : transaction.Keys.OfCustomers(customers);
        foreach (var letter in letters)
        {
            if (SealedBytes.IsSealed(letter.Body))
            {
                // Its bytes came later than it.
                continue;
            }
            var body = Encrypted(transaction, keys, letter.CustomerId, letter.Body);
            await ChangeAsync(transaction, "UPDATE dead_letters SET body = @body WHERE id = @Id", new { body, letter.Id });
        }
        await transaction.ExecuteAsync($"DELETE FROM plain_letters WHERE id IN {SqlList.Of([.. letters.Select(letter => letter.Id)])}");
    }

    /// <summary>The letters of a customer, those of his orders included, from behind <paramref name="after"/>.</summary>
    /// <param name="before">Parked until then (Unix milliseconds).</param>
    public static Task<List<long>> OfCustomerAsync(StoreConnection connection, string customerId, long before, long after, int limit) => connection.QueryAsync<long>(
        $"SELECT l.id FROM dead_letters l WHERE l.id > @after AND l.parked_at <= @before AND {OfCustomer} ORDER BY l.id LIMIT @limit",
        new { customerId, before, after, limit });

    public static Task<long> CountOfCustomerAsync(StoreConnection connection, string customerId) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM dead_letters l WHERE {OfCustomer}", new { customerId });

    private const string OfCustomer = "(l.customer_id = @customerId OR l.order_id IN (SELECT c.order_id FROM orders c WHERE c.customer_id = @customerId))";

    /// <summary>Nobody reads their bodies any more.</summary>
    public static async Task EmptyAsync(StoreTransaction transaction, IReadOnlyCollection<long> ids)
    {
        await ChangeSomeAsync(transaction, $"UPDATE dead_letters SET body = @Gone WHERE OCTET_LENGTH(body) > 0 AND id IN {SqlList.Of(ids)}", new { SealedBytes.Gone });
        await transaction.ExecuteAsync($"DELETE FROM plain_letters WHERE id IN {SqlList.Of(ids)}");
    }

    /// <summary>The letters of an order, as far as the story of it needs them.</summary>
    public static Task<List<LetterState>> OfOrderAsync(StoreConnection connection, string orderId) =>
        connection.QueryAsync<LetterState>($"{SelectState} WHERE order_id = @orderId ORDER BY id", new { orderId });

    /// <summary>The letters of a message's key or id, or of their own number.</summary>
    public static Task<List<LetterState>> OfMessageAsync(StoreConnection connection, string id, long number) =>
        connection.QueryAsync<LetterState>(OfMessageSql, new { id, number });

    // Apart, so that each part goes along its index.
    internal const string OfMessageSql =
        $"{SelectState} WHERE id IN (SELECT id FROM dead_letters WHERE key = @id UNION SELECT id FROM dead_letters WHERE message_id = @id UNION SELECT id FROM dead_letters WHERE id = @number) ORDER BY id";

    private const string SelectState = "SELECT id, status, reason, detail, order_id, settled_at, settled_by, settle_reason FROM dead_letters";

    /// <summary>The alert that covers a letter; null while there is none.</summary>
    public static Task<long?> AlertAsync(StoreConnection connection, long id) =>
        connection.ExecuteScalarAsync<long?>("SELECT alert_id FROM dead_letters WHERE id = @id", new { id });

    public static Task<long> ParkedAsync(StoreConnection connection) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'");

    /// <summary>When the newest parked letter was parked (Unix milliseconds); null when none is.</summary>
    public static Task<long?> NewestParkedAsync(StoreConnection connection) =>
        connection.ExecuteScalarAsync<long?>("SELECT max(parked_at) FROM dead_letters WHERE status = 'parked'");

    /// <summary>How many are parked for each reason.</summary>
    public static async Task<Dictionary<string, long>> ParkedByReasonAsync(StoreConnection connection) =>
        (await connection.QueryAsync<(string Reason, long Letters)>("SELECT reason, count(*) FROM dead_letters WHERE status = 'parked' GROUP BY reason"))
            .ToDictionary(row => row.Reason, row => row.Letters);

    /// <summary>What the parked letters of an incident hold up, or all of them.</summary>
    public static Task<LetterCosts> CostsAsync(StoreConnection connection, string? incident) =>
        connection.QuerySingleAsync<LetterCosts>($"SELECT count(*) AS letters, {Costs} FROM {Parked(incident)}", new { incident });

    /// <summary>The same for each incident, or for one.</summary>
    public static Task<List<LetterCosts>> CostsByIncidentAsync(StoreConnection connection, string? incident) =>
        connection.QueryAsync<LetterCosts>($"SELECT l.incident, count(*) AS letters, {Costs} FROM {Parked(incident)} GROUP BY l.incident", new { incident });

    /// <summary>What the parked letters of an incident are worth, or all of them, by currency.</summary>
    // An order counts once, however many of its messages are parked.
    // Added up as floating point: what a sender claims must not overflow a sum.
    public static Task<List<LetterValue>> ValuesAsync(StoreConnection connection, string? incident) => connection.QueryAsync<LetterValue>(
        $"""
        SELECT currency, sum(CAST(value AS DOUBLE PRECISION)) AS value
        FROM (SELECT l.currency, max(l.value) AS value FROM {Parked(incident)} WHERE l.currency IS NOT NULL GROUP BY l.currency, {OneOrder}) held
        GROUP BY currency ORDER BY 2 DESC
        """,
        new { incident });

    /// <summary>The same for each incident, or for one.</summary>
    public static Task<List<LetterValue>> ValuesByIncidentAsync(StoreConnection connection, string? incident) => connection.QueryAsync<LetterValue>(
        $"""
        SELECT incident, currency, sum(CAST(value AS DOUBLE PRECISION)) AS value
        FROM (SELECT l.incident, l.currency, max(l.value) AS value FROM {Parked(incident)} WHERE l.currency IS NOT NULL GROUP BY l.incident, l.currency, {OneOrder}) held
        GROUP BY incident, currency ORDER BY 3 DESC
        """,
        new { incident });

    /// <summary>How many letters came in each of the last hours, by incident.</summary>
    public static Task<List<LettersOfHour>> HoursAsync(StoreConnection connection, string? incident, long now, int hours)
    {
        const long Hour = 3_600_000;
        return connection.QueryAsync<LettersOfHour>(
            $"""
            SELECT l.incident, (@now - l.parked_at) / {Hour} AS hours_ago, count(*) AS letters FROM dead_letters l
            WHERE l.status <> 'superseded' AND l.parked_at > @since{Of("l", incident)} GROUP BY 1, 2
            """,
            new { incident, now, since = now - (hours * Hour) });
    }

    private static string Of(string letter, string? incident) => incident is null ? "" : $" AND {letter}.incident = @incident";

    /// <summary>The first orders with a parked letter of an incident.</summary>
    public static Task<List<string>> OrderIdsOfIncidentAsync(StoreConnection connection, string incident, int most) =>
        OrderIdsAsync(connection, "l.incident = @incident AND l.status = 'parked'", new { incident, most });

    /// <summary>The first orders with a letter that an alert tells of.</summary>
    public static Task<List<string>> OrderIdsOfAlertAsync(StoreConnection connection, long alertId, int most) =>
        OrderIdsAsync(connection, "l.alert_id = @alertId", new { alertId, most });

    private static Task<List<string>> OrderIdsAsync(StoreConnection connection, string where, object parameters) => connection.QueryAsync<string>(
        $"SELECT l.order_id FROM dead_letters l WHERE {where} AND l.order_id IS NOT NULL GROUP BY l.order_id ORDER BY min(l.id) LIMIT @most", parameters);

    /// <summary>The letters that an alert tells of, by incident, the most frequent first.</summary>
    public static Task<List<CoveredIncident>> CoveredAsync(StoreConnection connection, long alertId) => connection.QueryAsync<CoveredIncident>(
        """
        SELECT l.incident AS fingerprint, i.reason, i.title, i.state, count(*) AS letters, min(l.id) AS first_letter, max(l.id) AS last_letter
        FROM dead_letters l JOIN incidents i ON i.fingerprint = l.incident
        WHERE l.alert_id = @alertId GROUP BY l.incident, i.reason, i.title, i.state ORDER BY count(*) DESC, l.incident
        """,
        new { alertId });

    public static Task<List<string>> IncidentsOfAlertAsync(StoreConnection connection, long alertId) =>
        connection.QueryAsync<string>("SELECT DISTINCT incident FROM dead_letters WHERE alert_id = @alertId", new { alertId });

    /// <summary>A text that every store takes: no zero characters, no broken surrogates, not endless.</summary>
    public static string? Clean(string? text, int longest = 2048)
    {
        if (text is null)
        {
            return null;
        }
        var cut = text.Length <= longest ? text : text[..longest];
        return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(cut)).Replace('\0', '\uFFFD');
    }
}

/// <summary>A letter that is to be inserted.</summary>
/// <param name="Incident">The fingerprint of its incident.</param>
internal sealed record NewLetter(DeadLetter Letter, string Incident, bool IsSuperseded);

internal sealed record InsertedLetter(long Id, string Key, byte[] Fingerprint);

internal sealed record KnownLetter(long Id, string Status, string Properties);

/// <summary>A letter with its bytes.</summary>
internal sealed class StoredLetter
{
    public long Id { get; init; }
    public string Key { get; init; } = "";
    public string Status { get; init; } = "";
    public string Reason { get; init; } = "";
    public byte[] Body { get; private set; } = [];
    public string Properties { get; init; } = "{}";
    public string? OrderId { get; init; }
    public string? CustomerId { get; init; }

    /// <summary>The key of its body is destroyed.</summary>
    public bool IsForgotten { get; private set; }
    public long Replays { get; init; }
    public long? ReplayedAt { get; init; }
    public long? SettledAt { get; init; }
    public string? SettledBy { get; init; }

    /// <summary>With the bytes as they came.</summary>
    public StoredLetter Opened(PersonalKeys keys)
    {
        var body = LetterBody.Open(Body, keys);
        (Body, IsForgotten) = (body.Bytes, body.IsForgotten);
        return this;
    }
}

/// <summary>A letter whose body lies in the store as it came.</summary>
internal sealed class PlainLetter
{
    public long Id { get; init; }
    public byte[] Body { get; init; } = [];
    public string? CustomerId { get; init; }
}

/// <summary>Where a letter stands.</summary>
internal sealed class LetterState
{
    public long Id { get; init; }
    public string Status { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Detail { get; init; } = "";
    public string? OrderId { get; init; }
    public long? SettledAt { get; init; }
    public string? SettledBy { get; init; }
    public string? SettleReason { get; init; }
}

/// <summary>A letter in a list; what follows <see cref="AlertId"/> only of <see cref="LettersTable.GetAsync"/>.</summary>
internal sealed class LetterRow
{
    public long Id { get; init; }
    public string Key { get; init; } = "";
    public string Incident { get; init; } = "";
    public string Status { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Detail { get; init; } = "";
    public string? Field { get; init; }
    public string? Type { get; init; }
    public string? MessageId { get; init; }
    public string? CorrelationId { get; init; }
    public string? OrderId { get; init; }
    public string? CustomerId { get; init; }
    public string? Currency { get; init; }
    public long? ValueMinor { get; init; }
    public long BodyBytes { get; init; }
    public long ParkedAt { get; init; }
    public long OpenedAt { get; init; }
    public long Copies { get; init; }
    public long Replays { get; init; }
    public long? ReplayedAt { get; init; }
    public long? SettledAt { get; init; }
    public string? SettledBy { get; init; }
    public string? SettleReason { get; init; }
    public long? AlertId { get; init; }
    public string? Exception { get; init; }
    public string? Properties { get; init; }
    public string? Deaths { get; init; }
    public string? ContentType { get; init; }
    public byte[] Fingerprint { get; init; } = [];
    public long? PreviousId { get; init; }
    public long? NextId { get; init; }
}

// Not positional records: SQLite has no type for an aggregate over no rows.

/// <summary>What letters hold up.</summary>
internal sealed class LetterCosts
{
    public string Incident { get; init; } = "";
    public long Letters { get; init; }
    public long Orders { get; init; }
    public long Customers { get; init; }

    /// <summary>When the oldest was parked.</summary>
    public long? Oldest { get; init; }
}

internal sealed class LetterValue
{
    public string Incident { get; init; } = "";
    public string Currency { get; init; } = "";
    public double Value { get; init; }
}

internal sealed class LettersOfHour
{
    public string Incident { get; init; } = "";
    public long HoursAgo { get; init; }
    public long Letters { get; init; }
}

internal sealed class CoveredIncident
{
    public string Fingerprint { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Title { get; init; } = "";
    public string State { get; init; } = "";
    public long Letters { get; init; }
    public long FirstLetter { get; init; }
    public long LastLetter { get; init; }
}
