using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using OrderService.Store;

namespace OrderService.Tests.Infrastructure;

/// <summary>The whole service inside the test process: a random loopback port, a store of its own (see <see cref="TestStore"/>), a real broker, and one key for each scope.</summary>
public sealed class HostedService : IAsyncDisposable
{
    public const string PublishKey = "publish-key-0123456789-0123456789-01";
    public const string ReadKey = "read-key-0123456789-0123456789-0123456";
    public const string OperateKey = "operate-key-0123456789-0123456789-01";
    public const string AdminKey = "admin-key-0123456789-0123456789-01234";

    private readonly WebApplication app;
    private readonly string folder;

    private HostedService(WebApplication app, string folder)
    {
        this.app = app;
        this.folder = folder;
        Address = new Uri(app.Urls.Single());
    }

    public Uri Address { get; }

    public IServiceProvider Services => app.Services;

    public static Dictionary<string, string?> Settings(string broker, string folder) => new()
    {
        ["RabbitMq:Uri"] = broker,
        ["Store:Path"] = Path.Combine(folder, "orders.db"),
        ["Urls"] = "http://127.0.0.1:0",
        ["ManagementUrls"] = "",
        ["Api:Keys:0:Name"] = "shop",
        ["Api:Keys:0:Key"] = PublishKey,
        ["Api:Keys:0:Scopes:0"] = "publish",
        ["Api:Keys:1:Name"] = "reporting",
        ["Api:Keys:1:Key"] = ReadKey,
        ["Api:Keys:1:Scopes:0"] = "read",
        ["Api:Keys:2:Name"] = "on-call",
        ["Api:Keys:2:Key"] = OperateKey,
        ["Api:Keys:2:Scopes:0"] = "operate",
        ["Api:Keys:2:Scopes:1"] = "read",
        ["Api:Keys:3:Name"] = "anna",
        ["Api:Keys:3:Key"] = AdminKey,
        ["Api:Keys:3:Scopes:0"] = "publish",
        ["Api:Keys:3:Scopes:1"] = "read",
        ["Api:Keys:3:Scopes:2"] = "operate",
    };

    /// <param name="more">Added to the settings, or replacing them; a null takes one away.</param>
    /// <param name="services">What is exchanged in it, such as a clock.</param>
    public static async Task<HostedService> StartAsync(string broker, Dictionary<string, string?>? more = null, Action<IServiceCollection>? services = null)
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-http-").FullName;
        var settings = Settings(broker, folder);
        if (TestStore.OnPostgres && more?.ContainsKey("Store:Provider") != true)
        {
            settings.Remove("Store:Path");
            settings["Store:Provider"] = "Postgres";
            settings["Store:ConnectionString"] = await TestStore.AddPostgresDatabaseAsync();
        }
        foreach (var (key, value) in more ?? [])
        {
            settings[key] = value;
            if (value is null)
            {
                settings.Remove(key);
            }
        }
        var loaded = OrderServiceHost.LoadSettings(settings, environmentVariables: false);
        Assert.Empty(loaded.Mistakes);
        var app = OrderServiceHost.Build(loaded, logging => logging.SetMinimumLevel(LogLevel.Warning), services);
        await app.Services.GetRequiredService<IDatabase>().MigrateAsync(TestContext.Current.CancellationToken);
        await app.StartAsync(TestContext.Current.CancellationToken);
        return new HostedService(app, folder);
    }

    /// <summary>A client with this key; without one it is nobody.</summary>
    public HttpClient Client(string? key = AdminKey)
    {
        var client = new HttpClient(new SocketsHttpHandler { UseCookies = false, AllowAutoRedirect = false }) { BaseAddress = Address };
        if (key is not null)
        {
            client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
        }
        return client;
    }

    public async ValueTask DisposeAsync()
    {
        await app.StopAsync(CancellationToken.None);
        await app.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    public static StringContent Json(string body) => new(body, Encoding.UTF8, "application/json");

    public static async Task<JsonElement> ReadAsync(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        try
        {
            return JsonDocument.Parse(text).RootElement.Clone();
        }
        catch (JsonException)
        {
            Assert.Fail($"{(int)response.StatusCode} with a body that is not JSON: {text}");
            throw;
        }
    }

    public static string Order(string id, string customer = "C-7") =>
        $$"""{"orderId":"{{id}}","customerId":"{{customer}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""";
}

/// <summary>One service for the tests of a class that only add to it.</summary>
public sealed class SharedService(RabbitMqContainerFixture broker) : IAsyncLifetime
{
    public HostedService Service { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
    {
        // Tests of limits have services of their own.
        ["Api:RateLimit:Anonymous"] = "1000",
    });

    public ValueTask DisposeAsync() => Service.DisposeAsync();

    /// <summary>One with settings, a store and a virtual host of its own.</summary>
    public async Task<HostedService> AnotherAsync(Dictionary<string, string?> settings) => await HostedService.StartAsync(await broker.AddVirtualHostAsync(), settings);
}
