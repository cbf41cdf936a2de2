using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>The release binary as a process, in a container where <see cref="MemoryLimit"/> says so: started, killed, and asked over HTTP.</summary>
internal sealed class Service : IAsyncDisposable
{
    public const string ApiKey = "chaos-key-0123456789-0123456789-0123456789";

    private readonly World world;
    private readonly HttpClient http;
    private readonly StreamWriter log;
    private readonly string family = $"orderservice-chaos-{Guid.NewGuid():N}";
    private Process? process;
    private int? processInContainer;

    public Service(World world, IReadOnlyDictionary<string, string>? settings = null)
    {
        this.world = world;
        var url = $"http://127.0.0.1:{FreePort()}";
        LogFile = Path.Combine(world.Folder, $"service-{Guid.NewGuid():N}.log");
        log = new StreamWriter(LogFile) { AutoFlush = true };
        Settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["RabbitMq__Uri"] = world.LinkedAmqp,
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
        if (world.LinkedConnectionString is { } connection)
        {
            Settings["Store__Provider"] = "Postgres";
            Settings["Store__ConnectionString"] = connection;
        }
        else
        {
            Settings["Store__Path"] = world.StoreFile;
        }
        foreach (var (name, value) in settings ?? new Dictionary<string, string>())
        {
            Settings[name] = value;
        }
        // Shorter than the 20 s after which the service ends a quiet connection, or a request meets the end.
        http = new HttpClient(new SocketsHttpHandler { PooledConnectionIdleTimeout = TimeSpan.FromSeconds(10) })
        {
            BaseAddress = new Uri(url),
            Timeout = TimeSpan.FromSeconds(30),
        };
        http.DefaultRequestHeaders.Add("X-Api-Key", ApiKey);
    }

    /// <summary>What .NET takes for a container of 256 MiB.</summary>
    public static IReadOnlyDictionary<string, string> SmallContainer { get; } = Memory("DOTNET_GCTotalPhysicalMemory", 256);

    /// <summary>A setting of the runtime that takes bytes as hexadecimal digits.</summary>
    public static Dictionary<string, string> Memory(string name, long mebibytes) => new() { [name] = (mebibytes << 20).ToString("X", CultureInfo.InvariantCulture) };

    public Dictionary<string, string> Settings { get; }

    /// <summary>The limit of its container, in MiB; null for a process of this machine.</summary>
    public int? MemoryLimit { get; init; }

    /// <summary>The image that such a container is made of.</summary>
    public const string RuntimeImage = "ORDERSERVICE_CHAOS_RUNTIME_IMAGE";

    /// <summary>Each start has one of its own.</summary>
    private string ContainerName => string.Create(CultureInfo.InvariantCulture, $"{family}-{Starts}");

    /// <summary>Another build than the one under trial; null for that one.</summary>
    public string? Binary { get; set; }

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
            if (MemoryLimit is null)
            {
                try
                {
                    process!.Refresh();
                    return process.PeakWorkingSet64;
                }
                catch (InvalidOperationException)
                {
                    // It ends at this moment.
                    return 0;
                }
            }
            try
            {
                processInContainer ??= int.Parse(new Container(ContainerName).InspectAsync("{{.State.Pid}}").GetAwaiter().GetResult(), CultureInfo.InvariantCulture);
                using var inside = Process.GetProcessById(processInContainer.Value);
                return inside.PeakWorkingSet64;
            }
            catch (Exception exception) when (exception is ChaosException or ArgumentException or InvalidOperationException)
            {
                // It begins or ends at this moment.
                return 0;
            }
        }
    }

    public void Start()
    {
        Starts++;
        var binary = Binary ?? world.Binary;
        var start = MemoryLimit is { } limit ? InContainer(binary, limit) : new ProcessStartInfo("dotnet", [binary, "serve"]) { WorkingDirectory = world.Folder };
        (start.RedirectStandardOutput, start.RedirectStandardError) = (true, true);
        foreach (var (name, value) in Settings)
        {
            start.Environment[name] = value;
        }
        processInContainer = null;
        process?.Dispose();
        process = Process.Start(start) ?? throw new ChaosException($"{start.FileName} did not start.");
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>A service that is ready.</summary>
    /// <exception cref="ChaosException">It did not become ready.</exception>
    public static async Task<Service> StartReadyAsync(
        World world, IReadOnlyDictionary<string, string>? settings = null, string? binary = null, int? memoryLimit = null)
    {
        var service = new Service(world, settings) { Binary = binary, MemoryLimit = memoryLimit };
        service.Start();
        await service.UntilReadyAsync("the service is ready");
        return service;
    }

    /// <exception cref="ChaosException">It did not become ready.</exception>
    public Task UntilReadyAsync(string what) => Until.TrueAsync(IsReadyAsync, TimeSpan.FromSeconds(90), what);

    public int ProcessId => process?.Id ?? throw new ChaosException("The service does not run.");

    /// <summary>The exit code of the run that ended.</summary>
    public int ExitCode => process!.ExitCode;

    /// <summary>Sends a signal by its name: <c>STOP</c>, <c>CONT</c>, <c>TERM</c>.</summary>
    public Task SignalAsync(string signal) => MemoryLimit is null
        ? Command.RunAsync("kill", "-s", signal, ProcessId.ToString(CultureInfo.InvariantCulture))
        : Command.RunAsync("docker", "kill", "-s", signal, ContainerName);

    /// <summary>Takes up the memory that its container may have, beside it and where nothing but its end gives room, until the kernel has killed it.</summary>
    public async Task RunOutOfMemoryAsync()
    {
        var container = new Container(ContainerName);
        try
        {
            await container.ExecuteAsync("dd", "if=/dev/zero", "of=/dev/shm/taken", "bs=1M", $"count={MemoryLimit}");
        }
        catch (ChaosException)
        {
            // It ended with the container.
        }
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        try
        {
            await process!.WaitForExitAsync(deadline.Token);
        }
        catch (OperationCanceledException)
        {
            throw new ChaosException("The container's limit ended nobody.");
        }
        if (await container.InspectAsync("{{.State.OOMKilled}} {{.State.ExitCode}}") is var ended and not "true 137")
        {
            throw new ChaosException($"The process was not killed for its memory: {ended}");
        }
    }

    /// <summary>SIGTERM, and waits for the end.</summary>
    /// <returns>The exit code; null when it had to be killed after the grace period.</returns>
    public async Task<int?> StopAsync(TimeSpan grace)
    {
        await SignalAsync("TERM");
        using var deadline = new CancellationTokenSource(grace);
        try
        {
            await process!.WaitForExitAsync(deadline.Token);
            return process.ExitCode;
        }
        catch (OperationCanceledException)
        {
            await KillAsync();
            return null;
        }
    }

    /// <summary>SIGKILL.</summary>
    public async Task KillAsync()
    {
        if (!HasExited)
        {
            if (MemoryLimit is null)
            {
                process!.Kill();
            }
            else
            {
                await new Container(ContainerName).RemoveAsync();
            }
            await process!.WaitForExitAsync();
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

    /// <summary>What <c>/health/ready</c> says: the status code, and its text; null when nobody answers.</summary>
    public async Task<(int Status, string Text)?> HealthAsync()
    {
        try
        {
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(5));
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), patience.Token);
            return ((int)response.StatusCode, await response.Content.ReadAsStringAsync(patience.Token));
        }
        catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException)
        {
            return null;
        }
    }

    /// <summary>An answer of the API as JSON; null for a 404.</summary>
    public async Task<JsonElement?> GetAsync(string path)
    {
        using var response = await http.GetAsync(new Uri(path, UriKind.Relative));
        if (response.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
        response.EnsureSuccessStatusCode();
        using var json = JsonDocument.Parse(await response.Content.ReadAsStreamAsync());
        return json.RootElement.Clone();
    }

    public string ReadLog()
    {
        lock (log)
        {
            using var reader = new StreamReader(new FileStream(LogFile, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
            return reader.ReadToEnd();
        }
    }

    public Task<byte[]> BytesAsync(string path) => http.GetByteArrayAsync(new Uri(path, UriKind.Relative));

    public Task<string> TextAsync(string path) => http.GetStringAsync(new Uri(path, UriKind.Relative));

    /// <summary>Posts an empty or small JSON body; throws unless the answer is a success.</summary>
    public async Task PostAsync(string path, object body)
    {
        using var response = await http.PostAsJsonAsync(new Uri(path, UriKind.Relative), body);
        response.EnsureSuccessStatusCode();
    }

    /// <summary>All items behind a list of the API.</summary>
    public async Task<List<JsonElement>> AllAsync(string path, int limit = 100)
    {
        var items = new List<JsonElement>();
        string? after = null;
        do
        {
            using var answer = JsonDocument.Parse(await http.GetStringAsync(
                new Uri($"{path}?limit={limit}{(after is null ? "" : $"&after={Uri.EscapeDataString(after)}")}", UriKind.Relative)));
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

    /// <summary>The engine's client, which lives as long as the container and writes what that writes.</summary>
    private ProcessStartInfo InContainer(string binary, int limit) => new("docker",
    [
        "run", "--name", ContainerName, "--label", $"orderservice.run={Environment.GetEnvironmentVariable("ORDERSERVICE_CHAOS_RUN")}", "--network", "host",
        "--memory", $"{limit}m", "--memory-swap", $"{limit}m", "--shm-size", $"{limit}m",
        "--volume", $"{Path.GetDirectoryName(binary)}:/app:ro", "--volume", $"{world.Folder}:{world.Folder}", "--workdir", world.Folder,
        .. Settings.Keys.SelectMany(name => new[] { "--env", name }),
        "--entrypoint", "dotnet",
        Environment.GetEnvironmentVariable(RuntimeImage) ?? throw new ChaosException($"{RuntimeImage} is not set: start this program with eng/chaos."),
        $"/app/{Path.GetFileName(binary)}", "serve",
    ]);

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

    public static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
