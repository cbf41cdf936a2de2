using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;

namespace OrderService.Tests.Infrastructure;

/// <summary>Where a service keeps its data in a test that runs on both.</summary>
public enum StoreKind
{
    Sqlite,
    Postgres,
}

/// <summary>
/// The release binary as a process of its own, judged only from outside: its HTTP API, its health, what it writes, how it ends. Nothing here opens its store.
/// </summary>
public sealed class ReleaseService : IAsyncDisposable
{
    public const string ApiKey = RunningService.ApiKey;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    private readonly ConcurrentQueue<string> output = new();
    private Process? process;

    private ReleaseService(string broker, Dictionary<string, string>? more)
    {
        Folder = Directory.CreateTempSubdirectory("orderservice-release-").FullName;
        Url = $"http://127.0.0.1:{FreePort()}";
        ManagementUrl = $"http://127.0.0.1:{FreePort()}";
        Settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["RabbitMq__Uri"] = broker,
            ["RabbitMq__MaxReconnectDelay"] = "00:00:00.500",
            ["Store__Path"] = Path.Combine(Folder, "orders.db"),
            ["Urls"] = Url,
            ["ManagementUrls"] = ManagementUrl,
            ["Api__Keys__0__Name"] = "tests",
            ["Api__Keys__0__Key"] = ApiKey,
            ["Api__Keys__0__Scopes__0"] = "publish",
            ["Api__Keys__0__Scopes__1"] = "read",
            ["Api__Keys__0__Scopes__2"] = "operate",
        };
        foreach (var (name, value) in more ?? [])
        {
            Settings[name] = value;
        }
        // Shorter than the 20 s after which the service ends a quiet connection, or a request meets the end.
        Http = new HttpClient(new SocketsHttpHandler { PooledConnectionIdleTimeout = TimeSpan.FromSeconds(10) }) { BaseAddress = new Uri(Url) };
        Http.DefaultRequestHeaders.Add("X-Api-Key", ApiKey);
    }

    /// <summary>The release build, made by <c>dotnet build src/OrderService -c Release</c>.</summary>
    public static string Binary { get; } = Path.Combine(Repository.Root, "artifacts", "bin", "OrderService", "release", "orderservice.dll");

    /// <summary>Environment variables of the next start.</summary>
    public Dictionary<string, string> Settings { get; }

    /// <summary>The working directory; on SQLite it holds <c>orders.db</c>.</summary>
    public string Folder { get; }

    /// <summary>What it and its commands read as <c>/etc/hosts</c> from the next start on; only they see it.</summary>
    public string? Hosts { get; set; }

    public string Url { get; }

    /// <summary>Where health and metrics have a listener to themselves.</summary>
    public string ManagementUrl { get; }

    /// <summary>A client with a key for every scope.</summary>
    public HttpClient Http { get; }

    public int ProcessId => process!.Id;

    public bool HasExited => process!.HasExited;

    public int ExitCode => process!.ExitCode;

    /// <summary>Everything it wrote so far, over all its starts.</summary>
    public string Output => string.Join('\n', output);

    public long PeakResidentBytes
    {
        get
        {
            process!.Refresh();
            return process.PeakWorkingSet64;
        }
    }

    /// <summary>What a container's limit counts for certain: memory with no file behind it. Linux only.</summary>
    public long AnonymousBytes
    {
        get
        {
            const string Name = "RssAnon:";
            var line = File.ReadLines($"/proc/{process!.Id}/status").First(line => line.StartsWith(Name, StringComparison.Ordinal));
            return long.Parse(line[Name.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture) * 1024;
        }
    }

    /// <summary>Starts it on an empty store.</summary>
    /// <param name="broker">The address of a virtual host.</param>
    /// <param name="postgres">Null for SQLite, else where a database is added.</param>
    /// <param name="readOutput">False for a log whose reader has stopped: see <see cref="ReadOutput"/>.</param>
    /// <param name="hosts">See <see cref="Hosts"/>.</param>
    /// <param name="withKey">False leaves it to the first start to make a key.</param>
    public static async Task<ReleaseService> StartAsync(
        string broker, StoreKind store = StoreKind.Sqlite, PostgresContainerFixture? postgres = null, Dictionary<string, string>? settings = null, bool waitUntilReady = true, bool readOutput = true, string? hosts = null, bool withKey = true)
    {
        Assert.True(File.Exists(Binary), $"{Binary} is missing: dotnet build src/OrderService -c Release, as eng/test does.");
        var service = new ReleaseService(broker, settings) { Hosts = hosts };
        foreach (var setting in withKey ? [] : service.Settings.Keys.Where(name => name.StartsWith("Api__Keys__", StringComparison.Ordinal)).ToList())
        {
            service.Settings.Remove(setting);
        }
        try
        {
            if (store == StoreKind.Postgres && !service.Settings.ContainsKey("Store__ConnectionString"))
            {
                service.Settings["Store__ConnectionString"] = await (postgres ?? throw new ArgumentNullException(nameof(postgres))).AddDatabaseAsync();
            }
            if (service.Settings.ContainsKey("Store__ConnectionString"))
            {
                service.Settings["Store__Provider"] = "Postgres";
                service.Settings.Remove("Store__Path");
            }
            await service.StartAgainAsync(waitUntilReady, readOutput);
            return service;
        }
        catch
        {
            await service.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts it again on the same store.</summary>
    /// <param name="readOutput">False for a log whose reader has stopped: see <see cref="ReadOutput"/>.</param>
    public async Task StartAgainAsync(bool waitUntilReady = true, bool readOutput = true)
    {
        process?.Dispose();
        process = Start("serve");
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        if (readOutput)
        {
            ReadOutput();
        }
        if (waitUntilReady)
        {
            await WaitUntilReadyAsync();
        }
    }

    /// <summary>Begins to take what it writes.</summary>
    public void ReadOutput()
    {
        process!.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>What a counter in <c>/metrics</c> shows, over all its series that have these labels.</summary>
    /// <param name="labels">Such as <c>outcome="failed"</c>.</param>
    public async Task<double> CounterAsync(string name, string labels = "")
    {
        var lines = (await Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken)).Split('\n')
            .Where(line => line.StartsWith(name, StringComparison.Ordinal) && line.Contains(labels, StringComparison.Ordinal)).ToList();
        Assert.NotEmpty(lines);
        return lines.Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], System.Globalization.CultureInfo.InvariantCulture));
    }

    /// <summary>Runs a command beside it, with the same settings.</summary>
    public async Task<(int ExitCode, string Output, string Error)> RunAsync(params string[] arguments)
    {
        using var command = Start(arguments);
        var written = command.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var errors = command.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(Patience);
        try
        {
            await command.WaitForExitAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            // Such as a start that should have been refused.
            command.Kill();
            Assert.Fail($"orderservice {string.Join(' ', arguments)} did not end within {Patience}: {await written}{await errors}");
        }
        return (command.ExitCode, await written, await errors);
    }

    public Task WaitUntilReadyAsync(TimeSpan? deadline = null) => Eventually.HoldsAsync(
        async () =>
        {
            Assert.False(process!.HasExited, Output);
            var (status, body) = await HealthAsync();
            Assert.True(status == HttpStatusCode.OK, $"{body}\n{Output}");
        },
        deadline);

    /// <summary>What <c>/health/ready</c> answers.</summary>
    public async Task<(HttpStatusCode Status, string Body)> HealthAsync()
    {
        using var response = await Http.GetAsync(new Uri("/health/ready", UriKind.Relative), TestContext.Current.CancellationToken);
        return (response.StatusCode, await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }

    /// <summary>The JSON of a GET; fails unless it is a 200.</summary>
    public async Task<JsonElement> GetAsync(string path)
    {
        using var response = await Http.GetAsync(new Uri(path, UriKind.Relative), TestContext.Current.CancellationToken);
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.True(response.StatusCode == HttpStatusCode.OK, $"GET {path}: {(int)response.StatusCode} {text}");
        return JsonDocument.Parse(text).RootElement.Clone();
    }

    /// <summary>The status of an order over the API; null when it is unknown.</summary>
    public async Task<string?> OrderStatusAsync(string orderId)
    {
        using var response = await Http.GetAsync(new Uri($"/api/orders/{orderId}", UriKind.Relative), TestContext.Current.CancellationToken);
        if (response.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
        response.EnsureSuccessStatusCode();
        return (await response.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken)).GetProperty("status").GetString();
    }

    /// <summary>All items behind a list of the API, page by page.</summary>
    public async Task<List<JsonElement>> AllAsync(string path)
    {
        var items = new List<JsonElement>();
        string? after = null;
        do
        {
            var page = await GetAsync($"{path}{(path.Contains('?', StringComparison.Ordinal) ? '&' : '?')}limit=100{(after is null ? "" : $"&after={Uri.EscapeDataString(after)}")}");
            items.AddRange(page.GetProperty("items").EnumerateArray());
            after = page.TryGetProperty("next", out var next) && next.ValueKind == JsonValueKind.String ? next.GetString() : null;
        }
        while (after is not null);
        return items;
    }

    /// <summary>SIGKILL.</summary>
    public async Task KillAsync()
    {
        process!.Kill();
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>SIGTERM.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> StopAsync(TimeSpan? deadline = null)
    {
        await SignalAsync("TERM");
        return await WaitForExitAsync(deadline);
    }

    /// <summary>Sends a signal, for instance <c>HUP</c>, <c>STOP</c> or <c>CONT</c>.</summary>
    public async Task SignalAsync(string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", process!.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    /// <returns>The exit code, once it has ended by itself.</returns>
    public async Task<int> WaitForExitAsync(TimeSpan? deadline = null)
    {
        using var timeout = new CancellationTokenSource(deadline ?? TimeSpan.FromSeconds(60));
        await process!.WaitForExitAsync(timeout.Token);
        return process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (process is { HasExited: false })
        {
            process.Kill();
            await process.WaitForExitAsync(CancellationToken.None);
        }
        process?.Dispose();
        Http.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    private Process Start(params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Binary, .. arguments])
        {
            WorkingDirectory = Folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in Settings)
        {
            start.Environment[name] = value;
        }
        if (Hosts is not null)
        {
            // In a mount namespace of its own, the machine's file stays as it is. It becomes the program, so that signals reach it.
            var file = Path.Combine(Folder, "hosts");
            File.WriteAllText(file, Hosts);
            start.FileName = "unshare";
            string[] wrapped = [Environment.UserName == "root" ? "-m" : "-rm", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec dotnet \"$@\"", file, .. start.ArgumentList];
            start.ArgumentList.Clear();
            foreach (var argument in wrapped)
            {
                start.ArgumentList.Add(argument);
            }
        }
        return Process.Start(start)!;
    }

    private void Keep(string? line)
    {
        if (line is not null)
        {
            output.Enqueue(line);
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
