using System.Buffers;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

namespace OrderService.Notifications;

/// <summary>How a webhook's body looks.</summary>
public enum WebhookFormat
{
    /// <summary>Standard Webhooks: <c>{"type","timestamp","data"}</c>, signed.</summary>
    Standard,

    /// <summary>A Slack message with blocks.</summary>
    Slack,

    /// <summary>An adaptive card for a Teams workflow.</summary>
    Teams,
}

/// <summary>An HTTP POST for each alert. Only a 2xx answer counts; a chat's has to say that it took the message, because chats answer 200 with the text of a failure as well.</summary>
public sealed class WebhookChannel : INotificationChannel, IDisposable
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(10);

    private readonly HttpClient http;
    private readonly Uri url;
    private readonly WebhookFormat format;
    private readonly IReadOnlyList<string> secrets;
    private readonly TimeProvider clock;

    /// <param name="secrets">Sign a <see cref="WebhookFormat.Standard"/> body; the chats know none.</param>
    public WebhookChannel(string name, WebhookFormat format, Uri url, IReadOnlyList<string> secrets, HttpMessageHandler handler, TimeProvider clock)
    {
        Name = name;
        this.format = format;
        this.url = url;
        this.secrets = secrets;
        this.clock = clock;
        http = new HttpClient(handler) { Timeout = System.Threading.Timeout.InfiniteTimeSpan };
        http.DefaultRequestHeaders.UserAgent.ParseAdd("OrderService-Alerts/1.0");
    }

    public string Name { get; }

    public async Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken)
    {
        var body = Body(alert);
        using var request = new HttpRequestMessage(HttpMethod.Post, url) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        if (format == WebhookFormat.Standard)
        {
            var now = clock.GetUtcNow();
            request.Headers.Add("webhook-id", alert.MessageId);
            request.Headers.Add("webhook-timestamp", now.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture));
            request.Headers.Add("webhook-signature", WebhookSignature.Sign(alert.MessageId, now, body, secrets));
        }
        using var timeout = new CancellationTokenSource(Timeout, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, either.Token);
            return (int)response.StatusCode switch
            {
                >= 200 and < 300 when format == WebhookFormat.Standard => new ChannelAnswer.Sent(),
                >= 200 and < 300 => ChatAnswer.Problem(await ReadStartAsync(response, either.Token)) is { } problem
                    ? new ChannelAnswer.Retry($"the chat answered {(int)response.StatusCode} and said: {AlertText.Line(problem)}")
                    : new ChannelAnswer.Sent(),
                410 => new ChannelAnswer.Gone("the endpoint answered 410 Gone"),
                >= 300 and < 400 => new ChannelAnswer.Retry($"the endpoint answered {(int)response.StatusCode}; redirects are not followed, set its final URL"),
                _ => new ChannelAnswer.Retry($"the endpoint answered {(int)response.StatusCode}", RetryAfter(response)),
            };
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new ChannelAnswer.Retry($"the endpoint did not answer within {Timeout.TotalSeconds:0} s");
        }
        catch (HttpRequestException exception)
        {
            // The URL is a secret for the chats: the message names only the kind of trouble.
            var reason = exception.InnerException switch
            {
                ForbiddenTargetException forbidden => forbidden.Message,
                { } inner => $"{exception.HttpRequestError}: {inner.Message}",
                null => exception.HttpRequestError.ToString(),
            };
            return new ChannelAnswer.Retry(AlertText.Line(reason));
        }
        catch (IOException exception)
        {
            return new ChannelAnswer.Retry(AlertText.Line($"the answer broke off: {exception.Message}"));
        }
        catch (ForbiddenTargetException exception)
        {
            return new ChannelAnswer.Retry(exception.Message);
        }
    }

    public void Dispose() => http.Dispose();

    /// <summary>The beginning of an answer; what is longer is no "ok".</summary>
    private static async Task<string> ReadStartAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        var buffer = new byte[4096];
        await using var body = await response.Content.ReadAsStreamAsync(cancellationToken);
        return Encoding.UTF8.GetString(buffer, 0, await body.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellationToken));
    }

    /// <summary>The bytes are the same in every attempt.</summary>
    internal byte[] Body(Alert alert)
    {
        var buffer = new ArrayBufferWriter<byte>(2048);
        using (var json = new Utf8JsonWriter(buffer))
        {
            switch (format)
            {
                case WebhookFormat.Standard:
                    WriteStandard(json, alert);
                    break;
                case WebhookFormat.Slack:
                    WriteSlack(json, alert);
                    break;
                default:
                    WriteTeams(json, alert);
                    break;
            }
        }
        return buffer.WrittenSpan.ToArray();
    }

    private TimeSpan? RetryAfter(HttpResponseMessage response) => response.StatusCode is not (HttpStatusCode.TooManyRequests or HttpStatusCode.ServiceUnavailable)
        ? null
        : response.Headers.RetryAfter switch
        {
            { Delta: { } delta } => delta,
            { Date: { } date } => date - clock.GetUtcNow(),
            _ => null,
        };

    private static void WriteStandard(Utf8JsonWriter json, Alert alert)
    {
        json.WriteStartObject();
        json.WriteString("type", "alert." + alert.Kind);
        json.WriteString("timestamp", alert.CreatedAt);
        json.WritePropertyName("data");
        JsonSerializer.Serialize(json, alert.Content, AlertJson.Default.AlertContent);
        json.WriteEndObject();
    }

    private static void WriteSlack(Utf8JsonWriter json, Alert alert)
    {
        json.WriteStartObject();
        json.WriteString("text", Escape(alert.Subject));
        json.WriteStartArray("blocks");
        Block("header", "plain_text", AlertText.Line(alert.Subject, 150));
        Block("section", "mrkdwn", "```" + Cut(Escape(alert.Text.Replace("```", "'''", StringComparison.Ordinal)), 2900) + "```");
        json.WriteEndArray();
        json.WriteEndObject();

        void Block(string type, string textType, string text)
        {
            json.WriteStartObject();
            json.WriteString("type", type);
            json.WriteStartObject("text");
            json.WriteString("type", textType);
            json.WriteString("text", text);
            json.WriteEndObject();
            json.WriteEndObject();
        }

        // Slack reads <...> as links and mentions.
        static string Escape(string text) => text.Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal).Replace(">", "&gt;", StringComparison.Ordinal);
    }

    private static void WriteTeams(Utf8JsonWriter json, Alert alert)
    {
        json.WriteStartObject();
        json.WriteString("type", "message");
        json.WriteStartArray("attachments");
        json.WriteStartObject();
        json.WriteString("contentType", "application/vnd.microsoft.card.adaptive");
        json.WriteStartObject("content");
        json.WriteString("$schema", "http://adaptivecards.io/schemas/adaptive-card.json");
        json.WriteString("type", "AdaptiveCard");
        json.WriteString("version", "1.4");
        json.WriteStartArray("body");
        // A RichTextBlock shows its runs as they are; a TextBlock would read them as Markdown.
        Text(alert.Subject, bold: true);
        Text(Cut(alert.Text, 10_000), bold: false);
        json.WriteEndArray();
        json.WriteEndObject();
        json.WriteEndObject();
        json.WriteEndArray();
        json.WriteEndObject();

        void Text(string text, bool bold)
        {
            json.WriteStartObject();
            json.WriteString("type", "RichTextBlock");
            json.WriteStartArray("inlines");
            json.WriteStartObject();
            json.WriteString("type", "TextRun");
            json.WriteString("text", text);
            if (bold)
            {
                json.WriteString("weight", "Bolder");
            }
            json.WriteEndObject();
            json.WriteEndArray();
            json.WriteEndObject();
        }
    }

    private static string Cut(string text, int longest) => text.Length <= longest ? text : string.Concat(text.AsSpan(0, longest - 1), "…");
}
