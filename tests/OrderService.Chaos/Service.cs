using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>The release binary as a process: started, killed, and asked over HTTP.</summary>
internal sealed class Service : IAsyncDisposable
{
    private const string ApiKey = "chaos-key-0123456789-0123456789-0123456789";

    private readonly World world;
    private readonly HttpClient http;
    private readonly StreamWriter log;
    private Process? process;

    public Service(World world, IReadOnlyDictionary<string, string>? settings = null)
    {
        this.world = world;
        var url = $"http://127.0.0.1:{FreePort()}";
        LogFile = Path.Combine(world.Folder, "service.log");
        log = new StreamWriter(LogFile) { AutoFlush = true };
        Settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["RabbitMq__Uri"] = world.Amqp,
            ["RabbitMq__AllowPlaintext"] = "true",
            ["RabbitMq__MaxReconnectDelay"] = "00:00:00.500",
            ["Urls"] = url,
            ["ManagementUrls"] = $"http://127.0.0.1:{FreePort()}",
            ["Api__Keys__0__Name"] = "chaos",
            ["Api__Keys__0__Key"] = ApiKey,
            ["Api__Keys__0__Scopes__0"] = "publish",
            ["Api__Keys__0__Scopes__1"] = "read",
            ["Api__Keys__0__Scopes__2"] = "operate",
        };
        if (world.ConnectionString is { } connection)
        {
            Settings["Store__Provider"] = "Postgres";
            Settings["Store__ConnectionString"] = connection;
        }
        else
        {
            Settings["Store__Path"] = Path.Combine(world.Folder, "orders.db");
        }
        foreach (var (name, value) in settings ?? new Dictionary<string, string>())
        {
            Settings[name] = value;
        }
        http = new HttpClient { BaseAddress = new Uri(url), Timeout = TimeSpan.FromSeconds(30) };
        http.DefaultRequestHeaders.Add("X-Api-Key", ApiKey);
    }

    public Dictionary<string, string> Settings { get; }

    public string LogFile { get; }

    /// <summary>How often it was started.</summary>
    public int Starts { get; private set; }

    public bool HasExited => process is null || process.HasExited;

    /// <summary>The largest resident set of the present run, in bytes.</summary>
    public long PeakMemory
    {
        get
        {
            if (HasExited)
            {
                return 0;
            }
            process!.Refresh();
            return process.PeakWorkingSet64;
        }
    }

    public void Start()
    {
        var start = new ProcessStartInfo("dotnet", [world.Binary, "serve"]) { WorkingDirectory = world.Folder, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in Settings)
        {
            start.Environment[name] = value;
        }
        process?.Dispose();
        process = Process.Start(start) ?? throw new ChaosException("dotnet did not start.");
        Starts++;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>SIGKILL.</summary>
    public async Task KillAsync()
    {
        if (!HasExited)
        {
            process!.Kill();
            await process.WaitForExitAsync();
        }
    }

    public async Task<bool> IsReadyAsync()
    {
        try
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative));
            return response.StatusCode == HttpStatusCode.OK;
        }
        catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException)
        {
            return false;
        }
    }

    /// <summary>Posts an empty or small JSON body; throws unless the answer is a success.</summary>
    public async Task PostAsync(string path, object body)
    {
        using var response = await http.PostAsJsonAsync(new Uri(path, UriKind.Relative), body);
        response.EnsureSuccessStatusCode();
    }

    /// <summary>All items behind a list of the API.</summary>
    public async Task<List<JsonElement>> AllAsync(string path)
    {
        var items = new List<JsonElement>();
        string? after = null;
        do
        {
            using var answer = JsonDocument.Parse(await http.GetStringAsync(
                new Uri($"{path}?limit=100{(after is null ? "" : $"&after={Uri.EscapeDataString(after)}")}", UriKind.Relative)));
            items.AddRange(answer.RootElement.GetProperty("items").EnumerateArray().Select(item => item.Clone()));
            after = answer.RootElement.TryGetProperty("next", out var next) && next.ValueKind == JsonValueKind.String ? next.GetString() : null;
        }
        while (after is not null);
        return items;
    }

    public async ValueTask DisposeAsync()
    {
        await KillAsync();
        process?.Dispose();
        http.Dispose();
        await log.DisposeAsync();
    }

    private void Keep(string? line)
    {
        if (line is not null)
        {
            lock (log)
            {
                log.WriteLine(string.Create(CultureInfo.InvariantCulture, $"[{Starts}] {line}"));
            }
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
