using System.Collections.Concurrent;
using System.Net;
using System.Text;
using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>An alert as it was received by somebody whom the service told.</summary>
internal sealed record HeardAlert(string Id, string Text, JsonElement Data);

/// <summary>A webhook's receiver on loopback, which answers as it is told. Only what it took counts as received.</summary>
internal sealed class Receiver : IAsyncDisposable
{
    private readonly HttpListener listener = new();
    private readonly ConcurrentQueue<HeardAlert> heard = new();
    private readonly Task listening;
    private int refused;

    public Receiver()
    {
        Url = new Uri($"http://127.0.0.1:{Service.FreePort()}/alerts/");
        listener.Prefixes.Add(Url.AbsoluteUri);
        listener.Start();
        listening = ListenAsync();
    }

    public Uri Url { get; }

    /// <summary>The answer's status.</summary>
    public int Status { get; set; } = 200;

    public IReadOnlyCollection<HeardAlert> Heard => heard;

    /// <summary>How many alerts were turned away.</summary>
    public int Refused => Volatile.Read(ref refused);

    public async ValueTask DisposeAsync()
    {
        listener.Stop();
        await listening;
        listener.Close();
    }

    private async Task ListenAsync()
    {
        while (true)
        {
            HttpListenerContext context;
            try
            {
                context = await listener.GetContextAsync();
            }
            catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
            {
                return;
            }
            using var reader = new StreamReader(context.Request.InputStream, Encoding.UTF8);
            var text = await reader.ReadToEndAsync();
            if (Status is >= 200 and < 300)
            {
                using var json = JsonDocument.Parse(text);
                heard.Enqueue(new HeardAlert(context.Request.Headers["webhook-id"] ?? "", text, json.RootElement.GetProperty("data").Clone()));
            }
            else
            {
                Interlocked.Increment(ref refused);
            }
            context.Response.StatusCode = Status;
            context.Response.Close();
        }
    }
}
