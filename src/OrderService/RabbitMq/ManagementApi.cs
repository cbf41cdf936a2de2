using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

namespace OrderService.RabbitMq;

/// <summary>What the management API says of a queue. What it does not say is null: less than it could say is usual (statistics off, rights on another virtual host, a proxy).</summary>
/// <param name="UnsafePolicies">One sentence for each setting that could lose messages; null when it is not known which policies are in force.</param>
internal sealed record ManagedQueue(long? Ready, int? Consumers, long? Unacknowledged, long? Total, long? Published, IReadOnlyList<string>? UnsafePolicies);

/// <summary>It could not be asked, for a reason already put in plain words.</summary>
internal sealed class ManagementException(string reason) : Exception(reason);

/// <summary>The broker's management API, as far as the service needs it.</summary>
internal sealed class ManagementApi : IDisposable
{
    /// <summary>Why no policies are known although it answers.</summary>
    public const string NoPolicies = "the management API does not say which policies are in force (its statistics are off?)";

    // What a policy may not set on the queues whose messages must not get lost. Overflow drop-head even deletes dead letters that wait for their target.
    private static readonly string[] LosingPolicyKeys = ["max-length", "max-length-bytes", "overflow", "message-ttl", "expires", "delivery-limit", "dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"];

    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(5);

    private readonly HttpClient http;
    private readonly string virtualHost;

    private ManagementApi(Uri address, BrokerAddress broker, string virtualHost, Func<string, CancellationToken, Task<IPAddress[]>>? resolve)
    {
        this.virtualHost = virtualHost;
        var credentials = address.UserInfo.Length > 0 ? Uri.UnescapeDataString(address.UserInfo) : $"{broker.User}:{broker.Password}";
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            ConnectCallback = EveryAddress.ForHttp(resolve, Timeout),
            PooledConnectionLifetime = TimeSpan.FromMinutes(5),
            // The broker closes a connection that was quiet for 60 s, which is the default here too: a request could meet the end.
            PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30),
        };
        http = new HttpClient(handler)
        {
            BaseAddress = new UriBuilder(address) { UserName = "", Password = "", Path = address.AbsolutePath.TrimEnd('/') + "/" }.Uri,
            Timeout = Timeout,
        };
        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(credentials)));
    }

    /// <summary>Null where the settings name none.</summary>
    public static ManagementApi? Open(BrokerConnector connector) =>
        connector.Options.ManagementUri is { Length: > 0 } address ? new ManagementApi(new Uri(address), connector.Address, connector.VirtualHost, connector.Resolve) : null;

    public void Dispose() => http.Dispose();

    /// <exception cref="ManagementException">It could not be asked.</exception>
    public async Task<ManagedQueue> ReadAsync(string name, CancellationToken cancellationToken)
    {
        using var document = await GetAsync("queues", name, "", cancellationToken);
        return document.RootElement.ValueKind == JsonValueKind.Object
            ? Read(name, document.RootElement)
            : throw new ManagementException("the management API answered something that is no queue");
    }

    /// <summary>What it says of a queue or an exchange, as it says it.</summary>
    /// <param name="kind"><c>queues</c> or <c>exchanges</c>.</param>
    /// <param name="rest">What follows the name in the address.</param>
    /// <exception cref="ManagementException">It could not be asked.</exception>
    public async Task<JsonDocument> GetAsync(string kind, string name, string rest, CancellationToken cancellationToken)
    {
        try
        {
            var path = new Uri($"api/{kind}/{Uri.EscapeDataString(virtualHost)}/{Uri.EscapeDataString(name)}{rest}", UriKind.Relative);
            using var response = await http.GetAsync(path, cancellationToken);
            if (!response.IsSuccessStatusCode)
            {
                throw new ManagementException(string.Create(CultureInfo.InvariantCulture, $"the management API answered {(int)response.StatusCode}{Hint((int)response.StatusCode)}"));
            }

            return await JsonDocument.ParseAsync(await response.Content.ReadAsStreamAsync(cancellationToken), cancellationToken: cancellationToken);
        }
        catch (JsonException)
        {
            throw new ManagementException("the management API did not answer with JSON: something else listens there, or a proxy asks for a sign-in");
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            throw new ManagementException($"the management API does not answer ({(exception is OperationCanceledException ? "no answer in time" : BrokerErrors.Describe(exception))})");
        }
    }

    private static string Hint(int status) => status switch
    {
        401 => ": it does not accept the user or the password, or the user has no tag such as monitoring",
        403 or 404 => ": the user may have no rights on this virtual host",
        >= 300 and < 400 => ": it points elsewhere, as a proxy that asks for a sign-in does",
        _ => "",
    };

    private static ManagedQueue Read(string name, JsonElement queue) => new(
        Number(queue, "messages_ready"),
        (int?)Number(queue, "consumers"),
        Number(queue, "messages_unacknowledged"),
        Number(queue, "messages"),
        // Not counted for what the broker itself puts there: dead letters.
        queue.TryGetProperty("message_stats", out var stats) ? Number(stats, "publish") : null,
        FindUnsafePolicies(name, queue));

    private static long? Number(JsonElement parent, string name) =>
        parent.ValueKind == JsonValueKind.Object && parent.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number) ? number : null;

    private static List<string>? FindUnsafePolicies(string name, JsonElement queue)
    {
        if (!queue.TryGetProperty("effective_policy_definition", out var definition))
        {
            return null;
        }

        var found = new List<string>();
        // Where no policy is in force some versions write an empty list.
        if (definition.ValueKind != JsonValueKind.Object)
        {
            return definition.ValueKind is JsonValueKind.Null || (definition.ValueKind is JsonValueKind.Array && definition.GetArrayLength() == 0) ? found : null;
        }

        var policy = queue.TryGetProperty("policy", out var named) && named.ValueKind == JsonValueKind.String && named.GetString() is { Length: > 0 } text ? text : "(operator policy)";
        foreach (var setting in definition.EnumerateObject())
        {
            var harmless = setting is { Name: "overflow", Value.ValueKind: JsonValueKind.String } && setting.Value.GetString() == "reject-publish";
            if (LosingPolicyKeys.Contains(setting.Name) && !harmless)
            {
                found.Add($"The policy '{policy}' sets {setting.Name} to {setting.Value} on the queue '{name}', which can lose or divert messages; remove it: rabbitmqctl clear_policy '{policy}'");
            }
        }

        return found;
    }
}
