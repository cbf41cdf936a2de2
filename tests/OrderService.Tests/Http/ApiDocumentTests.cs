using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using OrderService.CommandLine;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>The API against its own OpenAPI document: what it says is what is answered.</summary>
public sealed class ApiDocumentTests(SharedService shared) : IClassFixture<SharedService>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private readonly HttpClient http = shared.Service.Client();

    [Fact]
    public async Task Every_route_is_in_the_document_and_everything_in_it_is_explained()
    {
        var document = await ApiDocument.ReadAsync(http);
        // HEAD is GET without the body, and needs no words of its own.
        var routes = shared.Service.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(route => route.RoutePattern.RawText is { } text && (text.StartsWith("/api", StringComparison.Ordinal) || text.StartsWith("/health", StringComparison.Ordinal)))
            .SelectMany(route => route.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Where(method => method != "HEAD").Select(method => $"{method} {route.RoutePattern.RawText!.TrimEnd('/')}"));

        Assert.Equal(routes.Order(StringComparer.Ordinal), document.Operations.Select(operation => $"{operation.Method} {operation.Path}").Order(StringComparer.Ordinal));
        Assert.Equal(["apiKey", "bearer", "session"], document.Root.GetProperty("components").GetProperty("securitySchemes").EnumerateObject().Select(scheme => scheme.Name).Order(StringComparer.Ordinal));
        foreach (var operation in document.Operations)
        {
            Assert.EndsWith(".", operation.Json.GetProperty("summary").GetString(), StringComparison.Ordinal);
            Assert.NotEmpty(operation.Json.GetProperty("tags").EnumerateArray());
            Assert.All(operation.Parameters, parameter => Assert.NotEmpty(parameter.GetProperty("description").GetString()!));
            Assert.All(operation.Json.GetProperty("responses").EnumerateObject(), answer => Assert.NotEmpty(answer.Value.GetProperty("description").GetString()!));
            Assert.Contains(operation.Json.GetProperty("responses").EnumerateObject(), answer => answer.Name[0] == '2');
            foreach (var answer in operation.Json.GetProperty("responses").EnumerateObject().Where(answer => answer.Value.TryGetProperty("content", out _)).SelectMany(answer => answer.Value.GetProperty("content").EnumerateObject()))
            {
                if (answer.Value.TryGetProperty("example", out var example))
                {
                    Assert.Empty(await document.MistakesAsync(answer.Value.GetProperty("schema"), example.GetRawText()));
                }
            }
            if (operation.TakesBody)
            {
                var body = operation.Json.GetProperty("requestBody").GetProperty("content").GetProperty("application/json");
                Assert.Empty(await document.MistakesAsync(body.GetProperty("schema"), body.GetProperty("example").GetRawText()));
            }
        }
        var problem = document.Root.GetProperty("components").GetProperty("schemas").GetProperty("Problem");
        Assert.Empty(await document.MistakesAsync(problem, problem.GetProperty("examples")[0].GetRawText()));
    }

    [Fact]
    public async Task Every_operation_answers_good_input_as_the_document_says()
    {
        var document = await ApiDocument.ReadAsync(http);
        var (order, other, key) = (NewId(), NewId(), Guid.NewGuid().ToString("N"));
        var answered = new HashSet<string>(StringComparer.Ordinal);
        var mistakes = new List<string>();
        using var nobody = shared.Service.Client(key: null);

        await CallAsync("health.live", 200, "/health/live");
        await Eventually.TrueAsync(async () => (await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now)).IsSuccessStatusCode);
        await CallAsync("health.ready", 200, "/health/ready");
        await CallAsync("session.sign-in", 200, "/api/session", new { key = HostedService.AdminKey }, nobody);
        await CallAsync("session.show", 200, "/api/session");
        await CallAsync("session.sign-out", 204, "/api/session");
        var sessions = await CallAsync("session.list", 200, "/api/sessions");
        await CallAsync("session.end", 204, $"/api/sessions/{sessions.GetProperty("items")[0].GetProperty("id").GetString()}");
        await CallAsync("session.end", 404, "/api/sessions/0123456789abcdef");
        await CallAsync("session.end-all", 200, "/api/sessions?key=anna");

        await CallAsync("order.place", 202, "/api/orders", Order(order));
        await CallAsync("order.place", 202, "/api/orders", Order(other));
        await Eventually.TrueAsync(async () => (await http.GetAsync(new Uri($"/api/orders/{other}", UriKind.Relative), Now)).IsSuccessStatusCode);
        await CallAsync("order.pay", 202, $"/api/orders/{order}/pay", new { paymentReference = "PAY-1", amount = 99.80m });
        await CallAsync("order.authorize", 202, $"/api/orders/{order}/authorize", new { paymentReference = "AUTH-1", amount = 1m });
        await CallAsync("order.capture", 202, $"/api/orders/{order}/capture", new { paymentReference = "AUTH-1", captureReference = "CAP-1", amount = 1m });
        await CallAsync("order.amend", 202, $"/api/orders/{order}/amend", new { attributes = new { gift = "yes" } });
        await CallAsync("order.hold", 202, $"/api/orders/{order}/hold", new { reason = "fraud?" });
        await CallAsync("order.release", 202, $"/api/orders/{order}/release", new { });
        await CallAsync("order.ship", 202, $"/api/orders/{order}/ship", new { carrier = "DHL", trackingNumber = "003" });
        await CallAsync("order.deliver", 202, $"/api/orders/{order}/deliver", new { });
        await CallAsync("order.return", 202, $"/api/orders/{order}/return", new { returnId = "R-1", lines = new[] { new { lineId = "1", quantity = 1 } }, reason = "too small" });
        await CallAsync("order.refund", 202, $"/api/orders/{order}/refund", new { refundReference = "REF-1", amount = 1m });
        await Eventually.TrueAsync(async () => (await http.GetFromJsonAsync<JsonElement>($"/api/orders/{order}", Now)).GetProperty("paymentStatus").GetString() == "partly_refunded");
        await CallAsync("order.cancel", 202, $"/api/orders/{other}/cancel", new { reason = "changed my mind" });
        await Eventually.TrueAsync(async () => (await http.GetFromJsonAsync<JsonElement>($"/api/orders/{order}", Now)).GetProperty("status").GetString() == "delivered");
        await CallAsync("commands.list", 200, "/api/commands");
        await CallAsync("orders.show", 200, $"/api/orders/{order}");
        await CallAsync("orders.show", 200, $"/api/orders/{other}");
        await CallAsync("orders.events", 200, $"/api/orders/{order}/events");
        await CallAsync("orders.timeline", 200, $"/api/orders/{order}/timeline");
        await CallAsync("orders.list", 200, "/api/orders?limit=1&status=delivered&paymentStatus=partly_refunded&fulfillmentStatus=partly_returned");
        await CallAsync("why", 200, $"/api/why/{order}");
        await CallAsync("events.list", 200, "/api/events?after=0&limit=3");
        await CallAsync("events.stream", 200, "/api/events/stream?after=0");

        var letters = new List<long>();
        for (var count = 0; count < 4; count++)
        {
            letters.Add(await ParkedAsync(NewId()));
        }
        await CallAsync("dead-letters.list", 200, "/api/dead-letters?status=parked&reason=currency_unknown&limit=2");
        await CallAsync("dead-letters.groups", 200, "/api/dead-letters/groups");
        await CallAsync("dead-letters.body", 200, $"/api/dead-letters/{letters[0]}/body");
        await CallAsync("dead-letters.check", 200, $"/api/dead-letters/{letters[0]}/check", new { body = Text(Order(order)) });
        await CallAsync("dead-letters.check", 200, $"/api/dead-letters/{letters[0]}/check", new { body = "{}" });
        var replayed = await CallAsync("dead-letters.replay", 202, $"/api/dead-letters/{letters[0]}/replay", new { reason = "mended", body = Text(Order(NewId())) });
        await CallAsync("dead-letters.attempt-body", 200, $"/api/dead-letters/{letters[0]}/attempts/{replayed.GetProperty("attempts")[0].GetProperty("id").GetInt64()}/body");
        await CallAsync("dead-letters.discard", 202, $"/api/dead-letters/{letters[1]}/discard", new { reason = "a test" });
        await CallAsync("dead-letters.restore", 202, $"/api/dead-letters/{letters[1]}/restore", new { });
        await CallAsync("dead-letters.discards", 200, "/api/dead-letters/discards", new { ids = letters.Take(2), reason = "a test" });
        await CallAsync("dead-letters.export", 200, "/api/export/dead-letters?format=csv");
        await CallAsync("dead-letters.export", 200, "/api/export/dead-letters");
        var letter = await CallAsync("dead-letters.show", 200, $"/api/dead-letters/{letters[2]}");

        var fingerprint = letter.GetProperty("fingerprint").GetString();
        await CallAsync("incidents.list", 200, "/api/incidents?state=all");
        await CallAsync("incidents.show", 200, $"/api/incidents/{fingerprint}");
        await CallAsync("incidents.acknowledge", 200, $"/api/incidents/{fingerprint}/acknowledge", new { reason = "on it" });
        await CallAsync("incidents.mute", 200, $"/api/incidents/{fingerprint}/mute", new { until = TimeProvider.System.GetUtcNow().AddHours(1) });
        await CallAsync("incidents.resolve", 200, $"/api/incidents/{fingerprint}/resolve", new { });

        await CallAsync("replays.what-if", 200, "/api/dead-letters/what-if", new { ids = letters });
        var job = await CallAsync("replays.start", 202, "/api/dead-letters/replays", new { ids = letters.Skip(2), mode = "all", ratePerSecond = 0.1, reason = "a try" });
        var address = $"/api/replays/{job.GetProperty("id").GetInt64()}";
        await CallAsync("replays.pause", 200, $"{address}/pause", new { });
        await CallAsync("replays.resume", 200, $"{address}/resume", new { });
        await CallAsync("replays.cancel", 200, $"{address}/cancel", new { });
        await CallAsync("replays.show", 200, address);
        await CallAsync("replays.list", 200, "/api/replays?limit=1");

        await shared.Service.Services.GetRequiredService<IDatabase>().WriteAsync(transaction => transaction.ExecuteAsync(
            "INSERT INTO outbox (shard, kind, order_id, message, created_at, stuck_key, stuck_reason, stuck_since) VALUES (0, 2, 'stuck', '{}', 1, 'order.none', 'a queue refuses it', 1)"), Now);
        await CallAsync("customers.show", 200, "/api/customers/C-99");
        await CallAsync("customers.export", 200, "/api/customers/C-99/export");
        await CallAsync("customers.hold", 200, "/api/customers/C-99/hold", new { reason = "a case" });
        await CallAsync("customers.forget", 409, "/api/customers/C-99/forget", new { reason = "a wish" });
        await CallAsync("customers.unhold", 200, "/api/customers/C-99/unhold", new { reason = "it is closed" });
        await CallAsync("customers.unhold", 404, "/api/customers/C-99/unhold", new { reason = "it is closed" });
        await CallAsync("customers.forget", 400, "/api/customers/C-99/forget", new { reason = " " });
        await CallAsync("customers.forget", 200, "/api/customers/C-99/forget", new { reason = "a wish" });
        await CallAsync("intake.pause", 200, "/api/intake/pause", new { reason = "a try", queues = new[] { "orders.dlq" } });
        await CallAsync("intake.pause", 400, "/api/intake/pause", new { reason = "a try", queues = new[] { "order-events" } });
        await CallAsync("intake.pause", 400, "/api/intake/pause", new { });
        await CallAsync("intake", 200, "/api/intake");
        await CallAsync("intake.resume", 200, "/api/intake/resume", new { reason = "it was a try" });
        await CallAsync("relay", 200, "/api/relay");
        await CallAsync("relay.release", 202, "/api/relay/order.none/release", new { reason = "there is room" });
        await CallAsync("relay.release", 404, "/api/relay/order.other/release");

        await CallAsync("stats", 200, "/api/stats?samples=5");
        await CallAsync("orders.list", 200, "/api/orders?limit=1&status=placed,paid&sort=-updatedAt");
        await CallAsync("orders.list", 400, "/api/orders?sort=total");
        await CallAsync("sales", 200, "/api/sales?day=2026-11-26");
        await CallAsync("sales", 400, "/api/sales?day=yesterday");
        await CallAsync("retention", 200, "/api/retention");
        await CallAsync("queues", 200, "/api/queues");
        await CallAsync("audit", 200, "/api/audit?limit=5");
        await CallAsync("alerts", 200, "/api/alerts");
        await CallAsync("alerts.channels", 200, "/api/alerts/channels");
        await CallAsync("alerts.test", 200, "/api/alerts/test", new { channel = "log" });

        // Neither forgotten in this test nor promised for nothing.
        Assert.Equal(document.Operations.Select(operation => operation.Id).Order(StringComparer.Ordinal), answered.Order(StringComparer.Ordinal));

        // The same answers to the same request, and refusals that depend on what was there before.
        await CallAsync("order.place", 202, "/api/orders", Order(order), key: key);
        await CallAsync("order.place", 202, "/api/orders", Order(order), key: key);
        await CallAsync("order.place", 422, "/api/orders", Order(other), key: key);
        await CallAsync("order.place", 400, "/api/orders", """{"orderId":"A 1"}""");
        await CallAsync("order.pay", 400, $"/api/orders/{order}/pay", new { paymentReference = "" });
        await CallAsync("dead-letters.replay", 409, $"/api/dead-letters/{letters[1]}/replay", new { });
        await CallAsync("dead-letters.replay", 422, $"/api/dead-letters/{letters[3]}/replay", new { body = "{}" });
        await CallAsync("dead-letters.discard", 409, $"/api/dead-letters/{letters[1]}/discard", new { reason = "again" });
        await CallAsync("dead-letters.restore", 409, $"/api/dead-letters/{letters[3]}/restore", new { });
        await CallAsync("dead-letters.discards", 400, "/api/dead-letters/discards", new { ids = letters });
        await CallAsync("replays.start", 409, "/api/dead-letters/replays", new { ids = new[] { letters[1] } });
        await CallAsync("replays.start", 400, "/api/dead-letters/replays", new { ids = letters, mode = "fast" });
        await CallAsync("replays.cancel", 409, $"{address}/cancel", new { });
        await CallAsync("alerts.test", 409, "/api/alerts/test", new { channel = "email" });
        await CallAsync("alerts.test", 404, "/api/alerts/test", new { channel = "pigeon" });
        await CallAsync("session.sign-in", 401, "/api/session", new { key = "wrong" }, nobody);
        Assert.True(mistakes.Count == 0, string.Join("\n", mistakes));

        async Task<JsonElement> CallAsync(string id, int status, string path, object? body = null, HttpClient? client = null, string? key = null)
        {
            using var request = document[id].Request(path);
            request.Content = body is null ? null : HostedService.Json(body as string ?? Text(body));
            if (key is not null)
            {
                request.Headers.Add("Idempotency-Key", key);
            }
            using var response = await (client ?? http).SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Now);
            answered.Add(id);
            var (mistake, answer) = await document.CheckAsync(id, status, response);
            if (mistake is not null)
            {
                mistakes.Add(mistake);
            }
            return answer;
        }
    }

    [Fact]
    public async Task Every_operation_refuses_bad_input_as_the_document_says()
    {
        var document = await ApiDocument.ReadAsync(http);
        using var nobody = shared.Service.Client(key: null);
        var mistakes = new List<string>();
        var tooLarge = $$"""{"reason":"{{new string('x', 1024 * 1024)}}"}""";
        foreach (var operation in document.Operations.Where(operation => operation.Path.StartsWith("/api", StringComparison.Ordinal)))
        {
            // Nothing has this id, so that nothing is done by a request that should have been refused.
            var path = operation.Path.Replace("{id}", "999999999", StringComparison.Ordinal).Replace("{fingerprint}", "0000000000000000", StringComparison.Ordinal).Replace("{attempt}", "1", StringComparison.Ordinal);
            if (!operation.IsForAnybody)
            {
                await SendAsync(nobody, 401);
                using var weak = shared.Service.Client(operation.Scopes.Contains("publish") ? HostedService.ReadKey : HostedService.PublishKey);
                if (operation.Scopes.Count > 0)
                {
                    await SendAsync(weak, 403);
                }
            }
            await SendAsync(http, 406, change: request => request.Headers.Accept.ParseAdd("image/png"));
            foreach (var (name, value) in operation.Parameters.Where(parameter => parameter.GetProperty("in").GetString() == "query").Select(parameter => (parameter.GetProperty("name").GetString()!, BadValue(parameter))))
            {
                if (value is not null)
                {
                    await SendAsync(http, 400, $"?{name}={value}");
                }
            }
            if (operation.TakesBody)
            {
                await SendAsync(http, 400, change: request => request.Content = HostedService.Json("{\"reason\":"));
                await SendAsync(http, 413, change: request =>
                {
                    request.Content = HostedService.Json(tooLarge);
                    // Refused before it is sent: the server does not read it.
                    request.Headers.ExpectContinue = true;
                });
                await SendAsync(http, 415, change: request => request.Content = new StringContent("{}", Encoding.UTF8, "text/plain"));
            }
            if (path != operation.Path && operation.Answers(404))
            {
                await SendAsync(http, 404, change: request => request.Content = operation.TakesBody ? HostedService.Json("""{"reason":"x"}""".Replace("reason", operation.Id == "dead-letters.check" ? "body" : "reason", StringComparison.Ordinal)) : null);
            }

            async Task SendAsync(HttpClient client, int status, string query = "", Action<HttpRequestMessage>? change = null)
            {
                using var request = operation.Request(path + query);
                change?.Invoke(request);
                using var response = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Now);
                if ((await document.CheckAsync(operation.Id, status, response)).Mistake is { } mistake)
                {
                    mistakes.Add(mistake);
                }
            }
        }
        Assert.True(mistakes.Count == 0, string.Join("\n", mistakes));
    }

    [Fact]
    public async Task Too_many_requests_and_a_broker_that_is_away_are_answered_as_the_document_says()
    {
        var document = await ApiDocument.ReadAsync(http);
        await using var service = await shared.AnotherAsync(new()
        {
            ["RabbitMq:Uri"] = "amqp://guest:guest@127.0.0.1:1/",
            ["RabbitMq:ConfirmTimeout"] = "00:00:01",
            ["Api:RateLimit:PerKey"] = "1",
            ["Api:RateLimit:PerKeyBurst"] = "2",
        });
        using var shop = service.Client(HostedService.PublishKey);
        using var reporting = service.Client(HostedService.ReadKey);

        using var away = await shop.PostAsync(new Uri("/api/orders", UriKind.Relative), HostedService.Json(HostedService.Order("A-1")), Now);
        Assert.Null((await document.CheckAsync("order.place", 503, away)).Mistake);
        Assert.NotNull(away.Headers.RetryAfter);
        using var unready = await reporting.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
        Assert.Null((await document.CheckAsync("health.ready", 503, unready)).Mistake);
        var answers = new List<HttpResponseMessage>();
        for (var count = 0; count < 10; count++)
        {
            answers.Add(await reporting.GetAsync(new Uri("/api/queues", UriKind.Relative), Now));
        }
        var refused = answers.First(answer => answer.StatusCode == HttpStatusCode.TooManyRequests);
        Assert.Null((await document.CheckAsync("queues", 429, refused)).Mistake);
        Assert.NotNull(refused.Headers.RetryAfter);
        answers.ForEach(answer => answer.Dispose());
    }

    /// <summary>A value that the parameter's own schema forbids; null where it takes any text.</summary>
    private static string? BadValue(JsonElement parameter)
    {
        var schema = parameter.GetProperty("schema");
        return schema.TryGetProperty("enum", out _) ? "nonsense"
            : schema.GetProperty("type").GetString() == "integer" ? "-1"
            : parameter.GetProperty("name").GetString() == "after" ? "nonsense"
            : null;
    }

    private async Task<long> ParkedAsync(string id)
    {
        var body = HostedService.Order(id).Replace("EUR", "EURO", StringComparison.Ordinal);
        Assert.IsType<PublishOutcome.Confirmed>(await shared.Service.Services.GetRequiredService<ConfirmedPublisher>().PublishAsync(MessageFile.Message("order.place", Encoding.UTF8.GetBytes(body)), Now));
        long number = 0;
        await Eventually.TrueAsync(async () =>
        {
            var found = (await http.GetFromJsonAsync<JsonElement>($"/api/dead-letters?q={id}", Now)).GetProperty("items");
            number = found.GetArrayLength() == 0 ? 0 : found[0].GetProperty("id").GetInt64();
            return number > 0;
        });
        return number;
    }

    private static string Order(string id) => HostedService.Order(id);

    private static string Text(object body) => body as string ?? JsonSerializer.Serialize(body, JsonSerializerOptions.Web);

    private static string NewId() => $"S-{Guid.NewGuid():N}"[..20];
}
