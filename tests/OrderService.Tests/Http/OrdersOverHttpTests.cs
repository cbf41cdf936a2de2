using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Inbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>What a shop does over HTTP.</summary>
public sealed class OrdersOverHttpTests(SharedService shared) : IClassFixture<SharedService>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private readonly HttpClient http = shared.Service.Client();

    [Fact]
    public async Task An_order_with_everything_is_shown_with_everything_and_a_wrong_total_is_refused_at_once()
    {
        var id = NewId();
        string Body(string total) => $$$"""
            {"orderId":"{{{id}}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"lineId":"kb","name":"Keyboard","discount":9.80,"tax":{"rate":19,"included":false}}],
             "shippingCost":4.90,"discounts":[{"amount":5,"code":"SPRING"}],"total":{{{total}}},"channel":"web","attributes":{"gift":"yes"},"externalReferences":{"purchaseOrder":"PO-7"}}
            """;

        using var wrong = await PostAsync("/api/orders", Body("99.80"));
        using var right = await PostAsync("/api/orders", Body("107.00"));

        Assert.Equal((HttpStatusCode.BadRequest, "total_mismatch"), (wrong.StatusCode, (await wrong.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("code").GetString()));
        Assert.Equal(HttpStatusCode.Accepted, right.StatusCode);
        await Eventually.TrueAsync(async () => (await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now)).IsSuccessStatusCode);
        using var response = await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now);
        Assert.Equal("\"1\"", response.Headers.ETag?.Tag);
        var order = await response.Content.ReadFromJsonAsync<JsonElement>(Now);
        Assert.Equal("107.00", order.GetProperty("total").GetRawText());
        Assert.Equal("""[{"rate":19,"included":false,"amount":17.10}]""", order.GetProperty("taxes").GetRawText());
        Assert.Equal("""{"sku":"KB-01","quantity":2,"unitPrice":49.90,"lineId":"kb","name":"Keyboard","discount":9.80,"tax":{"rate":19,"included":false,"amount":17.10},"attributes":{},"shipped":0,"cancelled":0,"returned":0,"open":2}""", order.GetProperty("lines")[0].GetRawText());
        Assert.Equal(("web", """{"gift":"yes"}""", """{"purchaseOrder":"PO-7"}"""), (order.GetProperty("channel").GetString(), order.GetProperty("attributes").GetRawText(), order.GetProperty("externalReferences").GetRawText()));
    }

    [Fact]
    public async Task A_command_upon_another_version_is_refused_and_said()
    {
        var id = NewId();
        using var placed = await PostAsync("/api/orders", HostedService.Order(id));
        await Eventually.TrueAsync(async () => (await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now)).IsSuccessStatusCode);

        using var nonsense = await ShipAsync("three", "{}");
        using var contradiction = await ShipAsync("\"1\"", """{"expectedVersion":2}""");
        using var late = await ShipAsync("\"7\"", "{}");
        await Eventually.TrueAsync(async () => (await GetAsync($"/api/orders/{id}/timeline")).GetRawText().Contains("version-conflict", StringComparison.Ordinal));
        using var right = await ShipAsync("\"1\"", "{}");

        Assert.Equal((HttpStatusCode.BadRequest, HttpStatusCode.BadRequest, HttpStatusCode.Accepted, HttpStatusCode.Accepted), (nonsense.StatusCode, contradiction.StatusCode, late.StatusCode, right.StatusCode));
        await Eventually.TrueAsync(async () => (await GetAsync($"/api/orders/{id}")).GetProperty("status").GetString() == "shipped");
        Assert.Equal(2, (await GetAsync($"/api/orders/{id}")).GetProperty("version").GetInt64());

        async Task<HttpResponseMessage> ShipAsync(string match, string body)
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, $"/api/orders/{id}/ship") { Content = HostedService.Json(body) };
            request.Headers.TryAddWithoutValidation("If-Match", match);
            return await http.SendAsync(request, Now);
        }
    }

    [Fact]
    public async Task An_order_is_accepted_processed_and_seen()
    {
        var id = NewId();
        using var accepted = await PostAsync("/api/orders", HostedService.Order(id));

        Assert.Equal(HttpStatusCode.Accepted, accepted.StatusCode);
        Assert.Equal($"/api/orders/{id}", accepted.Headers.Location?.OriginalString);
        var answer = await HostedService.ReadAsync(accepted);
        Assert.Equal(id, answer.GetProperty("orderId").GetString());
        Assert.StartsWith("sha256:", answer.GetProperty("idempotencyKey").GetString(), StringComparison.Ordinal);

        var order = await SeenAsync(id, "placed");
        Assert.Equal("99.80", order.GetProperty("total").GetRawText());
        Assert.Equal("49.90", order.GetProperty("lines")[0].GetProperty("unitPrice").GetRawText());
        Assert.Equal("EUR", order.GetProperty("currency").GetString());
        Assert.Equal(1, order.GetProperty("version").GetInt64());
    }

    [Fact]
    public async Task An_order_goes_its_way_from_placed_to_delivered()
    {
        var id = await PlacedAsync();
        using var paid = await PostAsync($"/api/orders/{id}/pay", """{"paymentReference":"pi_123","amount":99.8}""");
        using var shipped = await PostAsync($"/api/orders/{id}/ship", "");
        using var delivered = await PostAsync($"/api/orders/{id}/deliver", "{}");

        Assert.All([paid, shipped, delivered], response => Assert.Equal(HttpStatusCode.Accepted, response.StatusCode));
        var order = await SeenAsync(id, "delivered");
        Assert.Equal("99.80", order.GetProperty("paidAmount").GetRawText());

        var events = await GetAsync($"/api/orders/{id}/events");
        Assert.Equal(
            ["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_SHIPPED", "ORDER_DELIVERED"],
            events.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("type").GetString()!));
        Assert.Equal("1.0", events.GetProperty("items")[0].GetProperty("specversion").GetString());
    }

    [Fact]
    public async Task A_key_that_may_place_orders_alone_ships_none()
    {
        const string Key = "shop-key-0123456789-0123456789-012345";
        await using var service = await shared.AnotherAsync(new()
        {
            ["Api:Keys:7:Name"] = "web-shop",
            ["Api:Keys:7:Key"] = Key,
            ["Api:Keys:7:Scopes:0"] = "publish",
            ["Api:Keys:7:Commands:0"] = "order.place",
            ["Api:Keys:7:Commands:1"] = "order.pay",
        });
        using var shop = service.Client(Key);
        using var others = service.Client(HostedService.PublishKey);
        async Task<HttpResponseMessage> SendAsync(HttpClient client, string address, string body) =>
            await client.PostAsync(new Uri(address, UriKind.Relative), new StringContent(body, Encoding.UTF8, "application/json"), Now);

        using var placed = await SendAsync(shop, "/api/orders", HostedService.Order("A-1"));
        using var shipped = await SendAsync(shop, "/api/orders/A-1/ship", "{}");
        using var byOthers = await SendAsync(others, "/api/orders/A-1/ship", "{}");

        Assert.Equal((HttpStatusCode.Accepted, HttpStatusCode.Forbidden, HttpStatusCode.Accepted), (placed.StatusCode, shipped.StatusCode, byOthers.StatusCode));
        Assert.Equal("The key may not send order.ship.", (await HostedService.ReadAsync(shipped)).GetProperty("detail").GetString());
    }

    [Fact]
    public async Task The_correlation_id_of_the_request_is_the_events()
    {
        var id = NewId();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/api/orders") { Content = HostedService.Json(HostedService.Order(id)) };
        request.Headers.Add("X-Correlation-Id", "checkout-77");
        using var accepted = await http.SendAsync(request, Now);

        await SeenAsync(id, "placed");
        var events = await GetAsync($"/api/orders/{id}/events");
        Assert.Equal("checkout-77", events.GetProperty("items")[0].GetProperty("correlationid").GetString());
        Assert.StartsWith("00-", events.GetProperty("items")[0].GetProperty("traceparent").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"{0}\"", "{0}")]
    [InlineData("{0}", "\"{0}\"")]
    public async Task A_repeated_key_gets_the_first_answer_quoted_or_bare(string first, string second)
    {
        var id = NewId();
        using var one = await PostAsync("/api/orders", HostedService.Order(id), string.Format(null, first, id));
        using var two = await PostAsync("/api/orders", HostedService.Order(id), string.Format(null, second, id));

        Assert.Equal(HttpStatusCode.Accepted, two.StatusCode);
        Assert.False(one.Headers.Contains("Idempotency-Replayed"));
        Assert.Equal("true", two.Headers.GetValues("Idempotency-Replayed").Single());
        Assert.Equal(await one.Content.ReadAsStringAsync(Now), await two.Content.ReadAsStringAsync(Now));
        Assert.Equal(one.Headers.Location, two.Headers.Location);
        var order = await SeenAsync(id, "placed");
        Assert.Equal(1, order.GetProperty("version").GetInt64());
    }

    [Fact]
    public async Task A_key_with_another_body_is_422_and_the_first_effect_stays()
    {
        var id = NewId();
        using var one = await PostAsync("/api/orders", HostedService.Order(id), id);
        using var two = await PostAsync("/api/orders", HostedService.Order(id, customer: "C-8"), id);

        Assert.Equal(HttpStatusCode.UnprocessableEntity, two.StatusCode);
        Assert.Equal("key_conflict", (await HostedService.ReadAsync(two)).GetProperty("code").GetString());
        Assert.Equal("C-7", (await SeenAsync(id, "placed")).GetProperty("customerId").GetString());
    }

    [Fact]
    public async Task A_key_that_the_queue_has_seen_with_another_body_is_422()
    {
        var id = NewId();
        using var one = await PostAsync("/api/orders", HostedService.Order(id), $"k-{id}");
        await SeenAsync(id, "placed");

        // Another caller, for whom the answer is not kept.
        using var other = shared.Service.Client(HostedService.PublishKey);
        using var two = await PostAsync("/api/orders", HostedService.Order(NewId()), $"k-{id}", other);

        Assert.Equal(HttpStatusCode.UnprocessableEntity, two.StatusCode);
    }

    [Fact]
    public async Task A_request_whose_first_copy_is_under_way_is_409()
    {
        var id = NewId();
        var body = HostedService.Order(id);
        await shared.Service.Services.GetRequiredService<IDatabase>().WriteAsync(transaction => transaction.ExecuteAsync(
            "INSERT INTO http_requests (principal, key, fingerprint, created_at) VALUES ('key:anna', @id, @fingerprint, @now)",
            new { id, fingerprint = EnvelopeDecoder.Fingerprint("order.place", System.Text.Encoding.UTF8.GetBytes(body)), now = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds() }), Now);

        using var second = await PostAsync("/api/orders", body, id);

        Assert.Equal(HttpStatusCode.Conflict, second.StatusCode);
        Assert.NotNull(second.Headers.RetryAfter);
    }

    [Theory]
    [InlineData("\"open")]
    [InlineData("has blanks")]
    public async Task A_key_that_is_none_is_400(string key)
    {
        using var response = await PostAsync("/api/orders", HostedService.Order(NewId()), key);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        Assert.Equal("key_invalid", (await HostedService.ReadAsync(response)).GetProperty("code").GetString());
    }

    [Fact]
    public async Task Two_keys_and_a_key_that_is_too_long_are_400()
    {
        using var twice = new HttpRequestMessage(HttpMethod.Post, "/api/orders") { Content = HostedService.Json(HostedService.Order(NewId())) };
        twice.Headers.TryAddWithoutValidation("Idempotency-Key", ["one", "two"]);
        using var first = await http.SendAsync(twice, Now);
        using var second = await PostAsync("/api/orders", HostedService.Order(NewId()), new string('k', 300));

        Assert.Equal(HttpStatusCode.BadRequest, first.StatusCode);
        Assert.Equal(HttpStatusCode.BadRequest, second.StatusCode);
    }

    [Theory]
    [InlineData("{", "malformed_json", null)]
    [InlineData("", "body_empty", null)]
    [InlineData("""{"orderId":"A","customerId":"C","currency":"EUR","lines":[{"sku":"S","quantity":1,"unitPrice":1}],"extra":1}""", "unknown_field", null)]
    [InlineData("""{"orderId":"A","orderId":"B","customerId":"C","currency":"EUR","lines":[]}""", "duplicate_field", null)]
    [InlineData("""{"orderId":"A","customerId":"C","currency":"XXX","lines":[{"sku":"S","quantity":1,"unitPrice":1}]}""", "currency_unknown", "/currency")]
    [InlineData("""{"orderId":"A","customerId":"C","currency":"EUR","lines":[{"sku":"S","quantity":"1","unitPrice":1}]}""", "wrong_type", "/lines/0/quantity")]
    public async Task What_the_queue_refuses_http_refuses_with_the_same_reason_and_the_field(string body, string reason, string? pointer)
    {
        using var response = await PostAsync("/api/orders", body);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        var problem = await HostedService.ReadAsync(response);
        Assert.Equal(reason, problem.GetProperty("code").GetString());
        Assert.Equal(32, problem.GetProperty("traceId").GetString()!.Length);
        if (pointer is not null)
        {
            Assert.Equal(pointer, problem.GetProperty("errors")[0].GetProperty("pointer").GetString());
        }
    }

    [Fact]
    public async Task An_order_id_that_contradicts_the_address_is_400()
    {
        using var response = await PostAsync("/api/orders/A-1/deliver", """{"orderId":"A-2"}""");

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
    }

    [Theory]
    [InlineData("%2e%2e%2f")]
    [InlineData("A%00B")]
    [InlineData("Bestell%C3%BCng")]
    [InlineData("a%20b")]
    public async Task Ids_that_are_none_are_refused_without_an_accident(string id)
    {
        using var response = await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now);

        Assert.True(response.StatusCode is HttpStatusCode.BadRequest or HttpStatusCode.NotFound, $"{response.StatusCode}");
    }

    [Fact]
    public async Task An_unknown_order_is_404()
    {
        using var response = await http.GetAsync(new Uri("/api/orders/nobody-placed-this", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
        Assert.Equal("order_not_found", (await HostedService.ReadAsync(response)).GetProperty("code").GetString());
    }

    [Fact]
    public async Task A_list_is_read_page_by_page_without_a_gap_or_a_repetition()
    {
        var customer = "C-" + NewId();
        var ids = new List<string>();
        for (var count = 0; count < 5; count++)
        {
            var id = NewId();
            ids.Add(id);
            using var accepted = await PostAsync("/api/orders", HostedService.Order(id, customer));
            await SeenAsync(id, "placed");
        }

        var seen = new List<string>();
        string? next = null;
        do
        {
            var page = await GetAsync($"/api/orders?customerId={customer}&status=placed&limit=2{(next is null ? "" : $"&after={next}")}");
            seen.AddRange(page.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("orderId").GetString()!));
            next = page.GetProperty("next").GetString();
        }
        while (next is not null);

        ids.Reverse();
        Assert.Equal(ids, seen);
    }

    [Theory]
    [InlineData("/api/orders?limit=-1")]
    [InlineData("/api/orders?limit=0")]
    [InlineData("/api/orders?limit=1000000000")]
    [InlineData("/api/orders?limit=abc")]
    [InlineData("/api/orders?limit=1&limit=2")]
    [InlineData("/api/orders?after=nonsense")]
    [InlineData("/api/orders?after=AAAAAAAAAAAAAAAAAAAAAA")]
    [InlineData("/api/orders?status=Placed")]
    [InlineData("/api/orders?status=lost")]
    [InlineData("/api/events?after=-1")]
    [InlineData("/api/events?after=x")]
    [InlineData("/api/events?limit=0")]
    [InlineData("/api/dead-letters?status=unknown")]
    [InlineData("/api/dead-letters?reason=unknown")]
    [InlineData("/api/dead-letters?after=1")]
    [InlineData("/api/audit?limit=x")]
    [InlineData("/api/alerts?after=x")]
    [InlineData("/api/stats?samples=x")]
    [InlineData("/api/orders?customerId=a%00b")]
    [InlineData("/api/dead-letters?q=%00")]
    [InlineData("/api/export/dead-letters?q=%00")]
    [InlineData("/api/audit?who=%00")]
    [InlineData("/api/incidents?state=x")]
    [InlineData("/api/export/dead-letters?format=xlsx")]
    public async Task Bad_parameters_are_400(string address)
    {
        using var response = await http.GetAsync(new Uri(address, UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        Assert.Equal("bad_parameter", (await HostedService.ReadAsync(response)).GetProperty("code").GetString());
    }

    [Fact]
    public async Task A_cursor_of_another_list_is_400()
    {
        await PlacedAsync();
        await PlacedAsync();
        var next = (await GetAsync("/api/orders?limit=1")).GetProperty("next").GetString();

        using var response = await http.GetAsync(new Uri($"/api/orders?limit=1&customerId=C-7&after={next}", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
    }

    [Fact]
    public async Task The_log_is_read_on_from_a_position()
    {
        var id = await PlacedAsync();
        JsonElement found = default;
        var after = "0";
        while (found.ValueKind == JsonValueKind.Undefined)
        {
            var page = await GetAsync($"/api/events?after={after}&limit=100");
            found = page.GetProperty("items").EnumerateArray().FirstOrDefault(item => item.GetProperty("orderId").GetString() == id);
            after = page.GetProperty("next").GetString() ?? "end";
            Assert.True(found.ValueKind != JsonValueKind.Undefined || after != "end", "The event is not in the log.");
        }

        Assert.Equal("ORDER_PLACED", found.GetProperty("type").GetString());
        Assert.True(found.GetProperty("position").GetInt64() > 0);
    }

    [Fact]
    public async Task A_live_stream_goes_on_after_the_last_event_that_its_reader_saw()
    {
        var first = await PlacedAsync();
        var position = await PositionAsync(first);
        var second = await PlacedAsync();

        using var request = new HttpRequestMessage(HttpMethod.Get, "/api/events/stream");
        request.Headers.Add("Last-Event-ID", $"{position}");
        using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Now);
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType?.MediaType);
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(Now));

        Assert.Contains($"\"subject\":\"{second}\"", await NextDataAsync(reader), StringComparison.Ordinal);
        var third = await PlacedAsync();
        Assert.Contains($"\"subject\":\"{third}\"", await NextDataAsync(reader), StringComparison.Ordinal);
    }

    private static async Task<string> NextDataAsync(StreamReader reader)
    {
        while (await reader.ReadLineAsync(Now) is { } line)
        {
            if (line.StartsWith("data: ", StringComparison.Ordinal))
            {
                return line;
            }
        }
        throw new EndOfStreamException();
    }

    private async Task<long> PositionAsync(string id)
    {
        var last = 0L;
        while (true)
        {
            var page = await GetAsync($"/api/events?after={last}&limit=500");
            foreach (var item in page.GetProperty("items").EnumerateArray())
            {
                last = item.GetProperty("position").GetInt64();
                if (item.GetProperty("orderId").GetString() == id)
                {
                    return last;
                }
            }
        }
    }

    private async Task<string> PlacedAsync()
    {
        var id = NewId();
        using var accepted = await PostAsync("/api/orders", HostedService.Order(id));
        Assert.Equal(HttpStatusCode.Accepted, accepted.StatusCode);
        await SeenAsync(id, "placed");
        return id;
    }

    private async Task<JsonElement> SeenAsync(string id, string status)
    {
        JsonElement order = default;
        await Eventually.TrueAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now);
            if (response.StatusCode != HttpStatusCode.OK)
            {
                return false;
            }
            order = await HostedService.ReadAsync(response);
            return order.GetProperty("status").GetString() == status;
        });
        return order;
    }

    private async Task<JsonElement> GetAsync(string address)
    {
        using var response = await http.GetAsync(new Uri(address, UriKind.Relative), Now);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return await HostedService.ReadAsync(response);
    }

    private async Task<HttpResponseMessage> PostAsync(string address, string body, string? key = null, HttpClient? client = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, address) { Content = HostedService.Json(body) };
        if (key is not null)
        {
            request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
        }
        return await (client ?? http).SendAsync(request, Now);
    }

    private static string NewId() => $"H-{Guid.NewGuid():N}"[..20];
}
