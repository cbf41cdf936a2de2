using System.Globalization;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.Playwright;
using OrderService.Tests.Infrastructure;

[assembly: AssemblyFixture(typeof(OrderService.Browser.Infrastructure.Shop))]

namespace OrderService.Browser.Infrastructure;

/// <summary>
/// One running service on a real broker, with orders in every state and dead letters of several kinds: what all tests look at.
/// A test that changes something publishes its own orders and letters, under ids that no other test has.
/// </summary>
public sealed class Shop : IAsyncLifetime
{
    public const string ReaderKey = "reader-key-0123456789-0123456789-0123456789";

    // Fixtures of an assembly can't be given to one another.
    private readonly RabbitMqContainerFixture rabbit = new();
    private readonly Chromium chromium = new();
    private readonly SemaphoreSlim starting = new(1);
    private RunningService? service;
    private TestProducer? producer;
    private int lastId;

    public RunningService Service => service!;

    /// <summary>An id that no other test uses.</summary>
    public string NewId(string prefix) => string.Create(CultureInfo.InvariantCulture, $"{prefix}-{Interlocked.Increment(ref lastId)}");

    /// <summary>Starts everything once and fills it.</summary>
    public async Task OpenAsync()
    {
        await ContainerEngine.RequireAsync();
        await chromium.StartAsync();
        await starting.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            if (service is null)
            {
                await StartAsync();
            }
        }
        finally
        {
            starting.Release();
        }
    }

    public Task PublishAsync(params IEnumerable<TestMessage> messages) => producer!.PublishAsync(messages);

    /// <summary>Reads the HTTP API with a key for everything.</summary>
    public async Task<JsonElement> GetAsync(string path) =>
        await service!.Http.GetFromJsonAsync<JsonElement>(new Uri(path, UriKind.Relative), TestContext.Current.CancellationToken);

    /// <summary>Publishes a message that becomes a dead letter.</summary>
    /// <returns>The number of its letter.</returns>
    public async Task<long> PublishBrokenAsync(TestMessage message)
    {
        await PublishAsync(message);
        return await LetterOfAsync(message.Key!);
    }

    /// <summary>Waits for the letter of a message.</summary>
    public async Task<long> LetterOfAsync(string key)
    {
        long? found = null;
        await Eventually.TrueAsync(
            async () => (found = await service!.ScalarAsync<long?>("SELECT max(id) FROM dead_letters WHERE key = @key", new { key })) is not null,
            what: $"the message {key} became a dead letter");
        return found!.Value;
    }

    public Task WaitForStatusAsync(long letter, string status) => Eventually.TrueAsync(
        async () => await service!.ScalarAsync<string>("SELECT status FROM dead_letters WHERE id = @letter", new { letter }) == status,
        what: $"letter {letter} is {status}");

    public Task WaitForOrderAsync(string orderId, int version = 1) => Eventually.TrueAsync(
        async () => (await service!.StreamAsync(orderId)).Count >= version, what: $"order {orderId} has version {version}");

    /// <summary>An order whose currency does not exist; becomes a letter of <c>currency_unknown</c>.</summary>
    public static TestMessage UnknownCurrency(string orderId, string customerId = "C-7") => new(
        null, $"key-{orderId}", Encoding.UTF8.GetBytes(
            $$"""{"orderId":"{{orderId}}","customerId":"{{customerId}}","currency":"EUX","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}"""));

    /// <summary>An order for nothing; becomes a letter of <c>quantity_out_of_range</c> that holds money of a known currency.</summary>
    public static TestMessage NothingOrdered(string orderId) => new(
        null, $"key-{orderId}", Encoding.UTF8.GetBytes(
            $$"""{"orderId":"{{orderId}}","customerId":"C-9","currency":"EUR","lines":[{"sku":"KB-01","quantity":3,"unitPrice":149.90},{"sku":"MS-02","quantity":0,"unitPrice":12.00}]}"""));

    /// <summary>Another service on the same broker with queues and a store of its own, for a test that stops it or fills it; and a producer for its queue.</summary>
    public async Task<(RunningService Service, TestProducer Producer)> StartAnotherAsync(Dictionary<string, string>? settings = null)
    {
        await OpenAsync();
        var broker = await rabbit.AddVirtualHostAsync();
        return (await RunningService.StartAsync(broker, new([.. Reader(), .. settings ?? []])), await TestProducer.ConnectAsync(broker));
    }

    /// <summary>A service inside the test process, on a virtual host and a store of its own, for a test that tells it what stands still.</summary>
    public async Task<HostedService> HostAnotherAsync()
    {
        await OpenAsync();
        return await HostedService.StartAsync(await rabbit.AddVirtualHostAsync());
    }

    /// <summary>Discards a letter as somebody else does, over HTTP.</summary>
    public async Task DiscardAsync(long letter)
    {
        using var answer = await service!.Http.PostAsJsonAsync(new Uri($"/api/dead-letters/{letter}/discard", UriKind.Relative), new { reason = "somebody else" }, TestContext.Current.CancellationToken);
        answer.EnsureSuccessStatusCode();
    }

    /// <summary>Replays a letter as a job of its own, as somebody else does, and waits for its end.</summary>
    /// <returns>The job's number.</returns>
    public async Task<long> StartReplayAsync(long letter)
    {
        using var answer = await service!.Http.PostAsJsonAsync(
            new Uri("/api/dead-letters/replays", UriKind.Relative), new { ids = new[] { letter }, mode = "canary", reason = "trying" }, TestContext.Current.CancellationToken);
        answer.EnsureSuccessStatusCode();
        var job = (await answer.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken)).GetProperty("id").GetInt64();
        await Eventually.TrueAsync(async () => (await GetAsync($"/api/replays/{job}")).GetProperty("state").GetString() is "stopped" or "done", what: "the replay has ended");
        return job;
    }

    /// <summary>A browser window on the page, signed in, that notices everything a page must not do.</summary>
    /// <param name="of">Whose page; the one service that all tests share when absent.</param>
    /// <param name="url">Where it is seen, when something stands in front of it.</param>
    public async Task VisitAsync(Func<Visitor, Task> look, string key = RunningService.ApiKey, string at = "#/", bool dark = false, bool phone = false, bool signedIn = true, RunningService? of = null, string? url = null)
    {
        await OpenAsync();
        url ??= (of ?? service!).Url;
        var browser = await chromium.StartAsync();
        await using var context = await browser.NewContextAsync(new()
        {
            BaseURL = url,
            // Of a certificate that a test made.
            IgnoreHTTPSErrors = true,
            ColorScheme = dark ? ColorScheme.Dark : ColorScheme.Light,
            ViewportSize = phone ? new() { Width = 360, Height = 740 } : new() { Width = 1360, Height = 860 },
            HasTouch = phone,
            Locale = "en-GB",
            TimezoneId = "Europe/Berlin",
            ReducedMotion = ReducedMotion.Reduce,
        });
        var visitor = await Visitor.OpenAsync(context, url);
        try
        {
            if (signedIn)
            {
                await visitor.SignInAsync(key);
                await visitor.GoAsync(at);
            }
            await look(visitor);
        }
        catch (Exception exception)
        {
            await visitor.ScreenshotAsync($"failed-{TestContext.Current.TestMethod?.MethodName}");
            if (visitor.Troubles.Count > 0)
            {
                throw new InvalidOperationException($"{exception.Message}\nThe page also had trouble: {string.Join("; ", visitor.Troubles)}", exception);
            }
            throw;
        }
        visitor.AssertQuiet();
    }

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (producer is not null)
        {
            await producer.DisposeAsync();
        }
        if (service is not null)
        {
            await service.DisposeAsync();
        }
        await chromium.DisposeAsync();
        await rabbit.DisposeAsync();
        starting.Dispose();
    }

    /// <summary>Somebody who may look and do nothing.</summary>
    private static Dictionary<string, string> Reader() => new() { ["Api__Keys__1__Name"] = "reader", ["Api__Keys__1__Key"] = ReaderKey, ["Api__Keys__1__Scopes__0"] = "read" };

    private async Task StartAsync()
    {
        var broker = await rabbit.AddVirtualHostAsync();
        var running = await RunningService.StartAsync(broker, new(Reader())
        {
            ["RabbitMq__ManagementUri"] = rabbit.ManagementUri.ToString(),
            ["Orders__DeferFor"] = "00:00:01",
            ["Api__TrustedProxies__0"] = "127.0.0.1",
        });
        service = running;
        producer = await TestProducer.ConnectAsync(broker);
        for (var number = 1; number <= 30; number++)
        {
            var id = string.Create(CultureInfo.InvariantCulture, $"A-{1000 + number}");
            var customer = string.Create(CultureInfo.InvariantCulture, $"C-{number % 7}");
            await PublishAsync(TestMessage.Place(id, customerId: customer));
            await WaitForOrderAsync(id);
            if (number % 5 > 0)
            {
                await PublishAsync(TestMessage.Of("order.pay", $"pay-{id}", $$"""{"orderId":"{{id}}","paymentReference":"P-{{number}}"}"""));
            }
            if (number % 5 > 1)
            {
                await PublishAsync(TestMessage.Ship(id));
            }
            if (number % 5 > 2)
            {
                await PublishAsync(TestMessage.Of("order.deliver", $"deliver-{id}", $$"""{"orderId":"{{id}}"}"""));
            }
        }
        for (var number = 1; number <= 12; number++)
        {
            await PublishAsync(UnknownCurrency(string.Create(CultureInfo.InvariantCulture, $"W-{100 + number}")));
        }
        for (var number = 1; number <= 5; number++)
        {
            await PublishAsync(NothingOrdered(string.Create(CultureInfo.InvariantCulture, $"W-{200 + number}")));
        }
        await PublishAsync(new TestMessage(null, "key-half", "{\"orderId\":\"W-301\",\"customerId\":"u8.ToArray()));
        await LetterOfAsync("key-half");
        await Eventually.TrueAsync(async () => await running.ScalarAsync<long>("SELECT count(*) FROM dead_letters") >= 18, what: "all broken messages are parked");
    }
}
