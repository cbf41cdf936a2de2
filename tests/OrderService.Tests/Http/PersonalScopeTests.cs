using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>Who sees what is personal, over HTTP and in what is published.</summary>
public sealed class PersonalScopeTests(RabbitMqContainerFixture broker)
{
    private const string PersonalKey = "personal-key-0123456789-0123456789-01";
    private const string Canary = "canary-person@pii.example";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private static StringContent Order => HostedService.Json(
        $$$"""
        {"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":1,"unitPrice":49.90}],"email":"{{{Canary}}}","name":"Anna Muster","phone":"+49 221 1",
         "billingAddress":{"lines":["Am Ring 7"],"city":"Köln","postalCode":"50667","country":"DE"}}
        """);

    [Fact]
    public async Task Whoever_may_see_it_gets_names_and_addresses_and_others_only_that_there_are_some()
    {
        await using var service = await StartAsync(await broker.AddVirtualHostAsync());
        using var admin = service.Client();
        using var personal = service.Client(PersonalKey);
        using var reporting = service.Client(HostedService.ReadKey);
        Assert.Equal(HttpStatusCode.Accepted, (await admin.PostAsync("/api/orders", Order, Now)).StatusCode);
        await Eventually.TrueAsync(async () => (await personal.GetAsync("/api/orders/A-1", Now)).StatusCode == HttpStatusCode.OK);

        var seen = await personal.GetFromJsonAsync<JsonElement>("/api/orders/A-1", Now);
        var masked = await reporting.GetFromJsonAsync<JsonElement>("/api/orders/A-1", Now);

        Assert.Equal((Canary, "Anna Muster", "Köln"), (Text(seen, "email"), Text(seen, "name"), seen.GetProperty("billingAddress").GetProperty("city").GetString()));
        Assert.Equal(("***", "***", "***", "***"), (Text(masked, "email"), Text(masked, "name"), Text(masked, "phone"), Text(masked, "billingAddress")));
        Assert.Equal(JsonValueKind.Null, masked.GetProperty("shippingAddress").ValueKind);
        Assert.Contains(Canary, await personal.GetStringAsync("/api/orders/A-1/events", Now), StringComparison.Ordinal);
        Assert.Contains("\"email\":\"***\"", await reporting.GetStringAsync("/api/orders/A-1/events", Now), StringComparison.Ordinal);
        foreach (var path in new[] { "/api/orders/A-1", "/api/orders/A-1/events", "/api/orders/A-1/timeline", "/api/orders", "/api/events", "/api/why/A-1" })
        {
            Assert.DoesNotContain(Canary, await reporting.GetStringAsync(path, Now), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_body_is_for_those_with_the_scope_alone()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        var body = $$"""{"orderId":"A-1","customerId":"C-7","note":"{{Canary}}"}""";
        await shop.PublishAsync(TestMessage.Of("order.place", "k-1", body));
        using var personal = service.Client(PersonalKey);
        using var reporting = service.Client(HostedService.ReadKey);
        await Eventually.TrueAsync(async () => (await personal.GetAsync("/api/dead-letters/1/body", Now)).StatusCode == HttpStatusCode.OK);

        Assert.Equal(body, await personal.GetStringAsync("/api/dead-letters/1/body", Now));
        foreach (var path in new[] { "/api/dead-letters/1/body", "/api/export/dead-letters" })
        {
            using var refused = await reporting.GetAsync(path, Now);
            Assert.Equal(HttpStatusCode.Forbidden, refused.StatusCode);
            Assert.Contains("personal_scope_missing", await refused.Content.ReadAsStringAsync(Now), StringComparison.Ordinal);
        }
        Assert.Equal(HttpStatusCode.Forbidden, (await reporting.PostAsync("/api/dead-letters/1/check", HostedService.Json("""{"body":"{}"}"""), Now)).StatusCode);
        Assert.DoesNotContain(Canary, await reporting.GetStringAsync("/api/dead-letters/1", Now), StringComparison.Ordinal);
        Assert.DoesNotContain(Canary, await reporting.GetStringAsync("/api/export/dead-letters?format=csv", Now), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_the_setting_whoever_reads_sees_it()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync());
        using var admin = service.Client();
        using var reporting = service.Client(HostedService.ReadKey);
        Assert.Equal(HttpStatusCode.Accepted, (await admin.PostAsync("/api/orders", Order, Now)).StatusCode);
        await Eventually.TrueAsync(async () => (await reporting.GetAsync("/api/orders/A-1", Now)).StatusCode == HttpStatusCode.OK);

        Assert.Equal(Canary, Text(await reporting.GetFromJsonAsync<JsonElement>("/api/orders/A-1", Now), "email"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Subscribers_get_it_only_where_the_operator_says_so(bool published)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await HostedService.StartAsync(address, new() { ["Events:Personal"] = published ? "true" : null });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        using var admin = service.Client();
        Assert.Equal(HttpStatusCode.Accepted, (await admin.PostAsync("/api/orders", Order, Now)).StatusCode);

        await Eventually.TrueAsync(() => shop.Heard.Count == 1);
        using var heard = JsonDocument.Parse(shop.Heard[0].Body);
        var data = heard.RootElement.GetProperty("data");
        Assert.Equal(published, data.TryGetProperty("email", out var email));
        Assert.Equal(published ? Canary : null, published ? email.GetString() : null);
        Assert.Equal(published, data.TryGetProperty("billingAddress", out _));
        Assert.False(data.TryGetProperty("personal", out _));
    }

    private static Task<HostedService> StartAsync(string address) => HostedService.StartAsync(address, new()
    {
        ["Api:RequirePersonalScope"] = "true",
        ["Api:Keys:4:Name"] = "shipper",
        ["Api:Keys:4:Key"] = PersonalKey,
        ["Api:Keys:4:Scopes:0"] = "read",
        ["Api:Keys:4:Scopes:1"] = "personal",
    });

    private static string? Text(JsonElement element, string name) => element.GetProperty(name).GetString();
}
