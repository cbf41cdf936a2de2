using System.Globalization;
using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Projections;

/// <summary>What people ask for every day reads along an index at any size, and says the same as a look at every row.</summary>
public abstract class QueryPlanContract
{
    private const int Orders = 4000;
    private const int Letters = 4000;

    protected static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    /// <summary>What the store would do, a line each.</summary>
    protected abstract Task<IReadOnlyList<string>> ExplainAsync(TestStore store, string sql, object parameters);

    /// <summary>The lines in which a table is read from end to end, or rows are sorted that no index has in order.</summary>
    protected abstract IEnumerable<string> Slow(IReadOnlyList<string> plan, string table);

    public static TheoryData<string, string?, bool, bool, OrderSort> Lists()
    {
        var lists = new TheoryData<string, string?, bool, bool, OrderSort>();
        foreach (var statuses in (string[])["", "cancelled", "placed,shipped"])
        {
            lists.Add(statuses, null, false, false, OrderSort.LatestChange);
            foreach (var sort in (OrderSort[])[OrderSort.Newest, OrderSort.Oldest])
            {
                lists.Add(statuses, null, false, false, sort);
                lists.Add(statuses, "C-1", false, false, sort);
                lists.Add(statuses, "C-1", true, true, sort);
                lists.Add(statuses, null, true, true, sort);
                lists.Add(statuses, "C-3", false, true, sort);
            }
        }
        return lists;
    }

    [Fact]
    public async Task A_list_of_orders_has_what_was_asked_for_page_by_page_and_scans_nothing()
    {
        await using var store = await OpenStoreAsync();
        await FillOrdersAsync(store);
        var queries = new OrderQueries(store.Database);
        var all = await queries.ListAsync(new OrderFilter([]), null, 2 * Orders, Stopping);
        Assert.Equal(Orders, all.Count);
        var (from, to) = (all[Orders - 500].PlacedAt, all[500].PlacedAt);
        foreach (var row in Lists())
        {
            var (names, customer, isFrom, isTo, sort) = row.Data;
            var statuses = names.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(name => OrderStatusNames.TryParse(name, out var status) ? status : throw new InvalidOperationException(name)).ToList();
            var filter = new OrderFilter(statuses, customer, isFrom ? from : null, isTo ? to : null, sort);
            var expected = all.Where(order => (statuses.Count == 0 || statuses.Contains(order.Status)) && (customer is null || order.CustomerId == customer)
                && (!isFrom || order.PlacedAt >= from) && (!isTo || order.PlacedAt < to)).ToList();
            expected = sort switch
            {
                OrderSort.LatestChange => [.. expected.OrderByDescending(order => order.UpdatedAt).ThenByDescending(order => order.Seq)],
                OrderSort.Oldest => [.. expected.OrderBy(order => filter.TimeOf(order)).ThenBy(order => order.Seq)],
                _ => [.. expected.OrderByDescending(order => filter.TimeOf(order)).ThenByDescending(order => order.Seq)],
            };

            var found = new List<OrderSummary>();
            (long, long)? last = null;
            IReadOnlyList<OrderSummary> page;
            do
            {
                page = await queries.ListAsync(filter, last, 333, Stopping);
                found.AddRange(page);
                last = page.Count == 0 ? null : (filter.TimeOf(page[^1]), page[^1].Seq);
            }
            while (page.Count == 333);

            var words = $"{names} {customer} {isFrom} {isTo} {sort}";
            Assert.True(expected.Select(order => order.OrderId).SequenceEqual(found.Select(order => order.OrderId)), $"{words}: {found.Count} of {expected.Count}");
            var plan = await ExplainAsync(store, OrderQueries.ListSql(filter), OrderQueries.Parameters(filter, OrderStatus.Cancelled, null, 50));
            Assert.True(!Slow(plan, "orders").Any(), $"{words}:\n{string.Join('\n', plan)}");
        }
    }

    [Fact]
    public async Task Orders_that_stay_in_a_state_are_read_along_an_index_stretch_by_stretch()
    {
        await using var store = await OpenStoreAsync();
        await FillOrdersAsync(store);
        var expected = await store.QueryAsync<(string OrderId, long UpdatedAt)>(
            "SELECT order_id, updated_at FROM orders WHERE status = 1 ORDER BY updated_at, seq");
        var before = expected[expected.Count / 2].UpdatedAt;
        expected.RemoveAll(row => row.UpdatedAt > before);

        var found = new List<string>();
        var last = OldRow.First;
        List<OrderQueries.Row> page;
        do
        {
            page = await store.Database.ReadAsync(connection => OrderQueries.UnchangedAsync(connection, OrderStatus.Placed, before, last, 100), Stopping);
            found.AddRange(page.Select(row => row.OrderId));
            last = page.Count == 0 ? last : new OldRow(page[^1].UpdatedAt, page[^1].Seq);
        }
        while (page.Count == 100);

        Assert.Equal(expected.Select(row => row.OrderId), found);
        var plan = await ExplainAsync(store, OrderQueries.UnchangedSql, new { status = 1L, before, At = before / 2, Id = 0L, most = 100 });
        Assert.True(!Slow(plan, "orders").Any(), string.Join('\n', plan));
    }

    [Fact]
    public async Task What_was_sold_on_a_day_is_added_up_along_an_index_with_what_has_left_the_store()
    {
        await using var store = await OpenStoreAsync();
        await FillOrdersAsync(store);
        await store.ExecuteAsync("INSERT INTO sales_kept (day, currency, status, orders, total_minor) VALUES (20000, 'EUR', 5, 2, 500), (20000, 'USD', 4, 1, 70), (20001, 'EUR', 4, 9, 9)");
        var expected = await store.QueryAsync<(string Currency, long Orders, long Total)>(
            $"SELECT currency, count(*), CAST(sum(total_minor) AS BIGINT) FROM orders WHERE placed_at >= {20000 * 86_400_000L} AND placed_at < {20001 * 86_400_000L} GROUP BY currency ORDER BY currency");

        var sold = await new OrderQueries(store.Database).SoldAsync(20000, Stopping);

        Assert.Equal(["EUR", "USD"], sold.Select(one => one.Currency));
        Assert.Equal((expected.Single(row => row.Currency == "EUR").Orders + 2, expected.Single(row => row.Currency == "EUR").Total + 500), (sold[0].Orders, sold[0].TotalMinor));
        Assert.Equal((1L, 70L, 0L), (sold[1].Orders, sold[1].TotalMinor, sold[1].Cancelled));
        Assert.True(sold[0].Cancelled > 2 && sold[0].CancelledMinor > 500);
        var plan = await ExplainAsync(store, OrderQueries.SoldSql, new { status = 1L, from = 20000 * 86_400_000L, to = 20001 * 86_400_000L });
        Assert.True(!Slow([.. plan.Where(line => !line.Contains("GROUP BY", StringComparison.Ordinal) && !line.Contains("Sort", StringComparison.Ordinal))], "orders").Any(), string.Join('\n', plan));
    }

    [Fact]
    public async Task Letters_and_incidents_are_found_without_a_look_at_every_letter_or_order()
    {
        await using var store = await OpenStoreAsync();
        await FillOrdersAsync(store);
        await FillLettersAsync(store);
        var queries = new DeadLetterQueries(store.Database, TimeProvider.System);

        // Whoever knows a name has the letter, and a part of a sentence all that have it, whatever the case of its letters.
        foreach (var (text, count) in new[] { ("L-O-17", 1), ("L-C-3", Letters / 100), ("m-42", 1), ("key-42", 1), ("c-42", 1), ("SENTENCE 7 of", Letters / 20), ("nothing at all", 0), ("100%", 0) })
        {
            Assert.True(count == await queries.CountAsync(new LetterFilter(Text: text), Stopping), text);
            Assert.Equal(count, (await queries.ListAsync(new LetterFilter(Text: text), null, 500, Stopping)).Count);
        }
        var incidents = await queries.IncidentsAsync(Stopping);
        Assert.Equal(Enumerable.Range(0, 20).Select(number => $"i-{number}").Order(StringComparer.Ordinal), incidents.Select(incident => incident.Fingerprint).Order(StringComparer.Ordinal));
        foreach (var incident in incidents)
        {
            Assert.Equal(await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked' AND incident = @Fingerprint", new { incident.Fingerprint }), incident.Parked);
            Assert.Equal(await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'replayed' AND incident = @Fingerprint", new { incident.Fingerprint }), incident.Replayed);
        }
        // A letter that does not say whose it is has its order's customer and worth.
        Assert.Equal(
            await store.ScalarAsync<long>(
                "SELECT count(DISTINCT coalesce(l.customer_id, o.customer_id)) FROM dead_letters l LEFT JOIN orders o ON o.order_id = l.order_id WHERE l.status = 'parked' AND l.incident = 'i-1'"),
            incidents.Single(incident => incident.Fingerprint == "i-1").Customers);

        var text1 = new { filter_text = "x", filter_like = "%x%" };
        await NotSlowAsync(LettersTable.TextSql, text1, "dead_letters");
        await NotSlowAsync(LettersTable.OfMessageSql, new { id = "key-42", number = -1L }, "dead_letters");
        await NotSlowAsync($"SELECT l.incident, count(*) FROM {LettersTable.Parked("i-1")} GROUP BY l.incident", new { incident = "i-1" }, "orders");
        // Each open letter is counted once, along an index that holds nothing else, and not once for each incident.
        var plan = await ExplainAsync(store, IncidentsTable.ListSql(null), new { });
        Assert.True(!plan.Any(line => line.Contains("CORRELATED", StringComparison.Ordinal) || line.Contains("SubPlan", StringComparison.Ordinal)), string.Join('\n', plan));
        Assert.True(!Slow([.. plan.Where(line => !line.Contains("ORDER BY", StringComparison.Ordinal) && !line.Contains("Sort", StringComparison.Ordinal))], "dead_letters").Any(), string.Join('\n', plan));

        async Task NotSlowAsync(string sql, object parameters, string table)
        {
            var plan = await ExplainAsync(store, sql, parameters);
            Assert.True(!Slow([.. plan.Where(line => !line.Contains("Sort", StringComparison.Ordinal) && !line.Contains("TEMP B-TREE", StringComparison.Ordinal))], table).Any(), string.Join('\n', plan));
        }
    }

    /// <summary>Orders of a few days, a tenth of them of one customer, hardly any of them cancelled; every hundredth with the time of the one before.</summary>
    private static async Task FillOrdersAsync(TestStore store)
    {
        foreach (var chunk in Enumerable.Range(0, Orders).Chunk(500))
        {
            var rows = chunk.Select(number => string.Create(
                CultureInfo.InvariantCulture,
                $"('A-{number}', 1, {(number % 97 == 0 ? 5 : 1 + (number % 3))}, 'C-{(number % 10 == 0 ? 1 : number % 400)}', 'EUR', {100 + number}, 1, {(20000L * 86_400_000) + ((number % 100 == 0 ? number - 1 : number) * 60_000L)}, {(20000L * 86_400_000) + (number * 7919L % 5000 * 60_000)}, @hash)"));
            await store.ExecuteAsync(
                $"INSERT INTO orders (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash) VALUES {string.Join(", ", rows)}", new { hash = new byte[32] });
        }
        await AnalyzeAsync(store);
    }

    /// <summary>PostgreSQL does that by itself after a while; on SQLite nobody does.</summary>
    private static Task AnalyzeAsync(TestStore store) => store.Database.Provider == "Postgres" ? store.ExecuteAsync("ANALYZE orders, dead_letters, incidents") : Task.CompletedTask;

    private static async Task FillLettersAsync(TestStore store)
    {
        foreach (var chunk in Enumerable.Range(0, Letters).Chunk(500))
        {
            var rows = chunk.Select(number => string.Create(
                CultureInfo.InvariantCulture,
                $"('key-{number}', @hash, 'i-{number % 20}', '{(number % 50 == 0 ? "replayed" : number % 7 == 0 ? "discarded" : "parked")}', 'r', 'Sentence {number % 20} of some.', 'm-{number}', 'c-{number}', 'L-O-{number}', {(number % 40 == 1 ? "NULL" : $"'L-C-{number % 100}'")}, 'EUR', 100, {number}, {number}, @hash, '{{}}')"));
            await store.ExecuteAsync(
                $"INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, message_id, correlation_id, order_id, customer_id, currency, value_minor, parked_at, opened_at, body, properties) VALUES {string.Join(", ", rows)}",
                new { hash = new byte[32] });
        }
        await store.ExecuteAsync("UPDATE dead_letters SET order_id = 'A-' || CAST(id AS TEXT) WHERE customer_id IS NULL");
        foreach (var number in Enumerable.Range(0, 20))
        {
            await store.ExecuteAsync(
                $"INSERT INTO incidents (fingerprint, reason, title, state, letters, first_seen, last_seen, first_build, last_build) VALUES ('i-{number}', 'r', 't', 'new', 1, 1, {number}, 'b', 'b')");
        }
        await AnalyzeAsync(store);
    }
}

public sealed class SqliteQueryPlanTests : QueryPlanContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();

    protected override async Task<IReadOnlyList<string>> ExplainAsync(TestStore store, string sql, object parameters) =>
        [.. (await store.QueryAsync<Step>("EXPLAIN QUERY PLAN " + sql, parameters)).Select(step => step.Detail)];

    // A covering index that holds the condition's rows alone is searched, not scanned.
    protected override IEnumerable<string> Slow(IReadOnlyList<string> plan, string table) => plan.Where(line =>
        line == "USE TEMP B-TREE FOR ORDER BY" || (line.StartsWith("SCAN ", StringComparison.Ordinal) && (table == "orders" ? line is "SCAN orders" or "SCAN o" : line is "SCAN dead_letters" or "SCAN l" or "SCAN a" or "SCAN b")));

    private sealed class Step
    {
        public string Detail { get; init; } = "";
    }
}

public sealed class PostgresQueryPlanTests(PostgresContainerFixture postgres) : QueryPlanContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);

    // A few thousand rows are quickly read and sorted, so it is asked whether it can do without.
    protected override Task<IReadOnlyList<string>> ExplainAsync(TestStore store, string sql, object parameters) => store.Database.WriteAsync<IReadOnlyList<string>>(
        async transaction =>
        {
            await transaction.ExecuteAsync("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off");
            return [.. (await transaction.QueryAsync<string>("EXPLAIN " + sql, parameters)).SelectMany(text => text.Split('\n'))];
        },
        Stopping);

    // Equal times are put in the order of their numbers: that is no sort of many.
    protected override IEnumerable<string> Slow(IReadOnlyList<string> plan, string table) => plan.Where(line =>
        line.Contains($"Seq Scan on {table}", StringComparison.Ordinal) || (line.TrimStart(' ', '-', '>').StartsWith("Sort ", StringComparison.Ordinal) && !line.Contains("Incremental", StringComparison.Ordinal)));
}
