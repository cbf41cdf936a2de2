using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;

namespace OrderService.Chaos.Faults;

/// <summary>
/// One stranger holds 5,000 connections, idle or slow, and sends 1,000 requests of nonsense a second, while orders drain and a client with a key works from another address.
/// Where there is an nginx, the same flood strikes a static page of it first, as long, beside the same orders: what the flood costs on its own.
/// </summary>
internal static class AnonymousFlood
{
    private const int Connections = 5_000;
    private const int RequestsPerSecond = 1_000;
    private const int MemoryBound = 256;
    private const string Stranger = "127.0.0.66";
    private const string Client = "127.0.0.77";
    private const string Nginx = "/usr/sbin/nginx";
    private static readonly TimeSpan HealthBound = TimeSpan.FromSeconds(1);

    public static async Task<Verdict> RunAsync(World world, TrialOptions options)
    {
        var lasts = TimeSpan.FromSeconds(options.Rounds > 0 ? options.Rounds : 600);
        await using var service = await Service.StartReadyAsync(world, Service.SmallContainer);
        await using var subscriber = await Subscriber.StartAsync(world);
        await using var producer = new Producer(world);
        using var end = new CancellationTokenSource();
        var sending = SendOrdersAsync(producer, end.Token);
        var violations = new List<Violation>();
        var figures = new List<string>();

        double? beside = null;
        if (File.Exists(Nginx))
        {
            await using var page = await StaticPage.StartAsync(world.Folder);
            world.Progress.Report("the flood strikes a static page of nginx");
            (beside, _) = await MeasureAsync(page.Url, service, subscriber, lasts, []);
            figures.Add($"{beside:0} orders/s beside the flood on nginx");
        }
        world.Progress.Report("the flood strikes the service");
        var (rate, seen) = await MeasureAsync(service.Settings["Urls"], service, subscriber, lasts, violations);
        await end.CancelAsync();
        await sending;

        figures.Add($"{rate:0} orders/s under the flood{(beside is > 0 ? string.Create(CultureInfo.InvariantCulture, $", {rate / beside:P0} of that") : "")}");
        figures.Add(seen);
        if (beside is { } other && rate < other * 0.9)
        {
            violations.Add(new Violation("orders are at 90 % of what they are beside the same flood elsewhere", $"{rate:0}/s and {other:0}/s"));
        }
        var lines = service.ReadLog().Split('\n').Count(line => line.Contains("In a second", StringComparison.Ordinal));
        figures.Add($"{lines} log lines about refusals in {lasts.TotalSeconds:0} s");
        if (lines == 0 || lines > lasts.TotalSeconds + 30)
        {
            violations.Add(new Violation("the log has one line a second", $"{lines} lines in {lasts.TotalSeconds:0} s"));
        }
        await Until.TrueAsync(() => Task.FromResult(subscriber.Distinct >= producer.Sent.Count), TimeSpan.FromMinutes(5), "every event comes out");
        violations.AddRange(Judge.Conservation(producer.Sent, subscriber.Heard, await service.AllAsync("/api/dead-letters")));
        return new Verdict(violations, figures);
    }

    /// <summary>As many as are decided, and some in the queue.</summary>
    private static async Task SendOrdersAsync(Producer producer, CancellationToken stoppingToken)
    {
        for (var number = 0; !stoppingToken.IsCancellationRequested; number += 500)
        {
            var first = number;
            await producer.PublishAsync(Enumerable.Range(first, 500).Select(order => SentMessage.Place($"F-{order}")));
        }
    }

    private static async Task<(double OrdersPerSecond, string Seen)> MeasureAsync(string target, Service service, Subscriber subscriber, TimeSpan lasts, List<Violation> violations)
    {
        using var flood = new Flood(new Uri(target));
        await Until.TrueAsync(() => Task.FromResult(flood.Answered > 0 && flood.Connected > 0), TimeSpan.FromSeconds(60), "the flood strikes");
        using var end = new CancellationTokenSource();
        var health = new Probe(Client, service.Settings["ManagementUrls"], "/health/ready", null);
        var api = new Probe(Client, service.Settings["Urls"], "/api/orders?limit=1", Service.ApiKey);
        var signIn = new Probe(Client, service.Settings["Urls"], "/api/session", Service.ApiKey) { SignsIn = true };
        var probing = Task.WhenAll(health.RunAsync(end.Token), api.RunAsync(end.Token), signIn.RunAsync(end.Token));
        var began = Stopwatch.StartNew();
        var before = subscriber.Distinct;
        long memory = 0;
        using (var tick = new PeriodicTimer(TimeSpan.FromSeconds(1)))
        {
            while (began.Elapsed < lasts && await tick.WaitForNextTickAsync(CancellationToken.None))
            {
                if (service.HasExited)
                {
                    throw new ChaosException("The service ended.");
                }
                memory = Math.Max(memory, AnonymousBytes(service.ProcessId));
            }
        }
        var rate = (subscriber.Distinct - before) / began.Elapsed.TotalSeconds;
        await end.CancelAsync();
        await probing;
        foreach (var (probe, promise) in new[] { (health, "health answers within a second"), (api, "a right key gets in"), (signIn, "a right key signs in") })
        {
            if (probe.Failed > 0 || (probe == health && probe.Longest > HealthBound))
            {
                violations.Add(new Violation(promise, probe.ToString()));
            }
        }
        if (memory > (long)MemoryBound << 20)
        {
            violations.Add(new Violation("memory stays below its bound", $"{memory >> 20} MiB of {MemoryBound}"));
        }
        return (rate, $"flood: {flood.Answered / began.Elapsed.TotalSeconds:0} answers/s, {flood.Connected:N0} connections made; at most {memory >> 20} MiB; health {health}; API {api}; sign-in {signIn}");
    }

    /// <summary>What a container's limit counts for certain.</summary>
    private static long AnonymousBytes(int process)
    {
        const string Name = "RssAnon:";
        var line = File.ReadLines($"/proc/{process}/status").First(line => line.StartsWith(Name, StringComparison.Ordinal));
        return long.Parse(line[Name.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture) * 1024;
    }

    private static HttpClient From(string address, TimeSpan patience) => new(new SocketsHttpHandler
    {
        UseCookies = false,
        AllowAutoRedirect = false,
        MaxConnectionsPerServer = 64,
        ConnectCallback = async (context, cancellationToken) => new NetworkStream(await ConnectAsync(address, context.DnsEndPoint.Port, cancellationToken), ownsSocket: true),
    }) { Timeout = patience };

    private static async Task<Socket> ConnectAsync(string from, int port, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            socket.Bind(new IPEndPoint(IPAddress.Parse(from), 0));
            await socket.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Asks twice a second, each time over a connection of its own.</summary>
    private sealed class Probe(string from, string url, string path, string? key)
    {
        private int asked;
        private string? failure;

        public bool SignsIn { get; init; }

        public int Failed { get; private set; }

        public TimeSpan Longest { get; private set; }

        public async Task RunAsync(CancellationToken stoppingToken)
        {
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(500));
            while (!stoppingToken.IsCancellationRequested)
            {
                await AskAsync();
                await tick.WaitForNextTickAsync(CancellationToken.None);
            }
        }

        public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{asked - Failed} of {asked} answered, at most {Longest.TotalMilliseconds:0} ms{(failure is null ? "" : $" ({failure})")}");

        private async Task AskAsync()
        {
            using var client = From(from, TimeSpan.FromSeconds(10));
            using var request = new HttpRequestMessage(SignsIn ? HttpMethod.Post : HttpMethod.Get, new Uri(new Uri(url), path));
            if (SignsIn)
            {
                request.Content = JsonContent.Create(new { key });
            }
            else if (key is not null)
            {
                request.Headers.Add("X-Api-Key", key);
            }
            asked++;
            var began = Stopwatch.StartNew();
            try
            {
                using var answer = await client.SendAsync(request);
                if (answer.StatusCode != HttpStatusCode.OK)
                {
                    Failed++;
                    failure = $"{(int)answer.StatusCode}";
                }
            }
            catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException)
            {
                Failed++;
                failure = exception.GetBaseException().Message;
            }
            Longest = began.Elapsed > Longest ? began.Elapsed : Longest;
        }
    }

    /// <summary>The stranger.</summary>
    private sealed class Flood : IDisposable
    {
        private readonly Uri target;
        private readonly CancellationTokenSource end = new();
        private readonly HttpClient http = From(Stranger, TimeSpan.FromSeconds(10));
        private readonly Task[] work;
        private long answered;
        private long connected;

        public Flood(Uri target)
        {
            this.target = target;
            work = [RequestAsync(), .. Enumerable.Range(0, Connections).Select(HoldAsync)];
        }

        public long Answered => Interlocked.Read(ref answered);

        public long Connected => Interlocked.Read(ref connected);

        public void Dispose()
        {
            end.Cancel();
            Task.WaitAll(work);
            http.Dispose();
            end.Dispose();
        }

        /// <summary>Every other one asks once and keeps still; the others send a header byte by byte. One that is closed comes again a second later.</summary>
        private async Task HoldAsync(int number)
        {
            var buffer = new byte[1024];
            while (!end.IsCancellationRequested)
            {
                try
                {
                    await Task.Delay(TimeSpan.FromMilliseconds(1000 + (number % 100 * 10)), end.Token);
                    using var socket = await ConnectAsync(Stranger, target.Port, end.Token);
                    Interlocked.Increment(ref connected);
                    var isSlow = number % 2 == 1;
                    await socket.SendAsync(Encoding.ASCII.GetBytes(isSlow ? "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " : "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), end.Token);
                    var closed = CloseAsync(socket, buffer);
                    while (isSlow && !closed.IsCompleted)
                    {
                        await Task.WhenAny(closed, Task.Delay(TimeSpan.FromSeconds(2), end.Token));
                        await socket.SendAsync("a"u8.ToArray(), end.Token);
                    }
                    await closed;
                }
                catch (Exception exception) when (exception is SocketException or OperationCanceledException)
                {
                    // Closed by the other side, which is its right, or the end.
                }
            }
        }

        private async Task CloseAsync(Socket socket, byte[] buffer)
        {
            while (await socket.ReceiveAsync(buffer, end.Token) > 0)
            {
                // The answer.
            }
        }

        private async Task RequestAsync()
        {
            const int PerTick = RequestsPerSecond / 50;
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
            var number = 0;
            var underWay = 0;
            try
            {
                while (await tick.WaitForNextTickAsync(end.Token))
                {
                    // A server that is slow does not make the flood grow.
                    for (var count = 0; count < PerTick && Volatile.Read(ref underWay) < RequestsPerSecond; count++)
                    {
                        Interlocked.Increment(ref underWay);
                        _ = OneAsync(number++);
                    }
                }
            }
            catch (OperationCanceledException)
            {
                // The end.
            }

            async Task OneAsync(int one)
            {
                try
                {
                    using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(target, one % 3 == 0 ? $"/nothing/{one}" : "/api/orders"));
                    if (one % 3 == 1)
                    {
                        request.Headers.Add("X-Api-Key", $"guess-{one}");
                    }
                    else if (one % 3 == 2)
                    {
                        (request.Method, request.RequestUri, request.Content) = (HttpMethod.Post, new Uri(target, "/api/session"), JsonContent.Create(new { key = "guess" }));
                    }
                    using var answer = await http.SendAsync(request, end.Token);
                    Interlocked.Increment(ref answered);
                }
                catch (Exception exception) when (exception is HttpRequestException or OperationCanceledException)
                {
                    // Closed by the other side, or the end.
                }
                finally
                {
                    Interlocked.Decrement(ref underWay);
                }
            }
        }
    }

    /// <summary>An nginx of the distribution with one page.</summary>
    private sealed class StaticPage : IAsyncDisposable
    {
        private readonly Process process;

        private StaticPage(Process process, string url) => (this.process, Url) = (process, url);

        public string Url { get; }

        public static async Task<StaticPage> StartAsync(string parent)
        {
            var folder = Directory.CreateDirectory(Path.Combine(parent, "nginx")).FullName;
            var port = Service.FreePort();
            await File.WriteAllTextAsync(Path.Combine(folder, "index.html"), "<p>A static page.</p>");
            await File.WriteAllTextAsync(
                Path.Combine(folder, "nginx.conf"),
                $$"""
                daemon off;
                master_process off;
                pid {{folder}}/nginx.pid;
                error_log /dev/null crit;
                events { worker_connections 12000; }
                http {
                  access_log off;
                  client_body_temp_path {{folder}}/body;
                  proxy_temp_path {{folder}}/proxy;
                  fastcgi_temp_path {{folder}}/fastcgi;
                  uwsgi_temp_path {{folder}}/uwsgi;
                  scgi_temp_path {{folder}}/scgi;
                  keepalive_timeout 20s;
                  client_header_timeout 15s;
                  server { listen 127.0.0.1:{{port}}; root {{folder}}; }
                }
                """);
            var process = Process.Start(new ProcessStartInfo(Nginx, ["-p", folder, "-c", Path.Combine(folder, "nginx.conf")]) { RedirectStandardError = true })!;
            return new StaticPage(process, $"http://127.0.0.1:{port}");
        }

        public async ValueTask DisposeAsync()
        {
            if (!process.HasExited)
            {
                process.Kill();
                await process.WaitForExitAsync();
            }
            process.Dispose();
        }
    }
}
