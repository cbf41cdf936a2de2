using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace OrderService.Tests.Infrastructure;

/// <summary>How the fake mail server answers.</summary>
public enum SmtpMood
{
    /// <summary>Takes every mail.</summary>
    Accept,

    /// <summary>Takes connections and says nothing.</summary>
    Tarpit,

    /// <summary>451 to every recipient.</summary>
    TryLater,

    /// <summary>550 to every recipient.</summary>
    RefuseAll,

    /// <summary>550 to the recipients that begin with <c>gone</c>.</summary>
    RefuseGone,
}

/// <summary>As much of SMTP as a client needs to hand over a mail, on a loopback port.</summary>
public sealed class FakeSmtpServer : IAsyncDisposable
{
    private readonly CancellationTokenSource stop = new();
    private readonly ConcurrentBag<Task> sessions = [];
    private TcpListener? listener;
    private int connections;
    private Task accepting = Task.CompletedTask;

    public FakeSmtpServer()
    {
        Start(0);
        Port = ((IPEndPoint)listener!.LocalEndpoint).Port;
    }

    public int Port { get; }

    public SmtpMood Mood { get; set; }

    /// <summary>Another answer than a friendly one: what the client says (<c>GREETING</c>, <c>BODY</c> or its command line), to what it gets; null for the mood's own answer.</summary>
    public Func<string, string?> Script { get; set; } = _ => null;

    /// <summary>What clients said, line by line, bodies left out.</summary>
    public ConcurrentQueue<string> Commands { get; } = new();

    /// <summary>Each recipient of each mail that was taken.</summary>
    public ConcurrentQueue<string> Delivered { get; } = new();

    /// <summary>The mails as they were sent, headers included.</summary>
    public ConcurrentQueue<string> Mails { get; } = new();

    /// <summary>Who they were addressed to.</summary>
    public ConcurrentQueue<string> Recipients { get; } = new();

    public int Connections => connections;

    /// <summary>Nobody listens any more.</summary>
    public void GoDown()
    {
        listener!.Stop();
        listener = null;
    }

    public void ComeBack() => Start(Port);

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        listener?.Stop();
        await accepting;
        await Task.WhenAll(sessions);
        stop.Dispose();
    }

    private void Start(int port)
    {
        listener = new TcpListener(IPAddress.Loopback, port);
        listener.Server.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        listener.Start();
        accepting = AcceptAsync(listener);
    }

    private async Task AcceptAsync(TcpListener from)
    {
        try
        {
            while (true)
            {
                sessions.Add(ServeAsync(await from.AcceptTcpClientAsync(stop.Token)));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The server went down.
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        Interlocked.Increment(ref connections);
        try
        {
            using (client)
            {
                await using var stream = client.GetStream();
                using var reader = new StreamReader(stream, Encoding.UTF8);
                if (Mood == SmtpMood.Tarpit)
                {
                    await reader.ReadLineAsync(stop.Token);
                    return;
                }
                var accepted = new List<string>();
                await SayAsync(stream, Script("GREETING") ?? "220 fake ready");
                while (await reader.ReadLineAsync(stop.Token) is { } line)
                {
                    Commands.Enqueue(line);
                    if (!line.StartsWith("RCPT", StringComparison.OrdinalIgnoreCase) && Script(line) is { } scripted)
                    {
                        await SayAsync(stream, scripted);
                        continue;
                    }
                    switch (line.Split(' ', ':')[0].ToUpperInvariant())
                    {
                        case "EHLO" or "HELO" or "MAIL" or "RSET":
                            await SayAsync(stream, "250 OK");
                            break;
                        case "RCPT":
                            var recipient = line[(line.IndexOf('<', StringComparison.Ordinal) + 1)..line.IndexOf('>', StringComparison.Ordinal)];
                            var answer = Script(line) ?? Mood switch
                            {
                                SmtpMood.TryLater => "451 try later",
                                SmtpMood.RefuseAll => "550 no such user",
                                SmtpMood.RefuseGone when recipient.StartsWith("gone", StringComparison.Ordinal) => "550 no such user",
                                _ => "250 OK",
                            };
                            if (answer.StartsWith('2'))
                            {
                                accepted.Add(recipient);
                            }
                            await SayAsync(stream, answer);
                            Recipients.Enqueue(recipient);
                            break;
                        case "DATA":
                            await SayAsync(stream, "354 go on");
                            var mail = await ReadMailAsync(reader);
                            if (Script("BODY") is { } refusal)
                            {
                                await SayAsync(stream, refusal);
                                break;
                            }
                            Mails.Enqueue(mail);
                            accepted.ForEach(Delivered.Enqueue);
                            accepted.Clear();
                            await SayAsync(stream, "250 taken");
                            break;
                        case "QUIT":
                            await SayAsync(stream, "221 bye");
                            return;
                        default:
                            await SayAsync(stream, "502 what?");
                            break;
                    }
                }
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException or SocketException)
        {
            // The client left, or the test is over.
        }
    }

    private async Task<string> ReadMailAsync(StreamReader reader)
    {
        var mail = new StringBuilder();
        while (await reader.ReadLineAsync(stop.Token) is { } line && line != ".")
        {
            mail.Append(line).Append('\n');
        }
        return mail.ToString();
    }

    private async Task SayAsync(NetworkStream stream, string line) => await stream.WriteAsync(Encoding.ASCII.GetBytes(line + "\r\n"), stop.Token);
}
