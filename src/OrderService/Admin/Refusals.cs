using System.Globalization;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Requests that were refused (401, 403, 429), that could not be understood (400, 413, 415, 422), and the first request of each key and token from each address in an hour. Anybody
/// may send any number of them, so each costs a counter and no more: the log has one line a second, the audit log one row for each caller and minute, or hour.
/// </summary>
internal sealed partial class Refusals(IDatabase database, TimeProvider clock, ILogger<Refusals> logger) : BackgroundService
{
    /// <summary>Callers that are counted one by one within a minute: those without a key for each address, those with one by name. The rest is one row.</summary>
    private const int MostStrangers = 100;
    private const int MostKnown = 1_000;

    /// <summary>Addresses that are told apart for the line of a second.</summary>
    private const int MostAddresses = 1_000;

    /// <summary>What waits while the store takes nothing.</summary>
    private const int MostRows = 10_000;

    private const int DifferentRequests = 5;
    private const int LongestRequest = 128;
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);
    private static readonly object ReasonItem = new();
    private const string Refused = "refused";
    private const string Invalid = "invalid";

    private readonly Lock gate = new();
    private readonly Dictionary<string, long> addresses = new(StringComparer.Ordinal);
    private readonly List<Row> unwritten = [];
    private readonly HashSet<string> used = new(StringComparer.Ordinal);
    private Dictionary<string, Counted> callers = new(StringComparer.Ordinal);
    private long minute;
    private long hour;
    private long requests;
    private long connections;

    /// <summary>Says why the request is refused, for its caller's row.</summary>
    public static void Because(HttpContext context, string reason) => context.Items[ReasonItem] = reason;

    public async Task CountAsync(HttpContext context, RequestDelegate next)
    {
        await next(context);
        switch (context.Response.StatusCode)
        {
            case StatusCodes.Status401Unauthorized or StatusCodes.Status403Forbidden or StatusCodes.Status429TooManyRequests:
                Count(context, Refused);
                break;
            case StatusCodes.Status400BadRequest or StatusCodes.Status413PayloadTooLarge or StatusCodes.Status415UnsupportedMediaType or StatusCodes.Status422UnprocessableEntity:
                Count(context, Invalid);
                break;
            default:
                break;
        }
        if (context.User.Identity is { IsAuthenticated: true, AuthenticationType: "key" or "token" } known)
        {
            CountUse(context, known.AuthenticationType);
        }
    }

    /// <summary>Who brings a key or a token signs in with each request; the first of an hour tells of all of them.</summary>
    private void CountUse(HttpContext context, string kind)
    {
        var now = clock.GetUtcNow().ToUnixTimeSeconds() / 3600;
        var name = $"{context.User.Identity!.Name} {CallerRight.AddressOf(context)}";
        lock (gate)
        {
            if (now != hour)
            {
                hour = now;
                used.Clear();
            }
            if (used.Count < MostKnown && used.Add(name) && unwritten.Count < MostRows)
            {
                unwritten.Add(new Row(CallerRight.CallerOf(context), $"{kind}.use", Describe(context, isKnown: true), "The first request of the hour from this address."));
            }
        }
    }

    /// <summary>A connection that was closed so that others have room.</summary>
    /// <param name="network">See <see cref="RateLimits.NetworkOf(System.Net.IPAddress?)"/>.</param>
    public void CountConnection(string network)
    {
        lock (gate)
        {
            connections++;
            CountAddress(network);
        }
    }

    // The rest is written by StopAsync.
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AfterTickAsync(Interval, clock, _ =>
        {
            Tell();
            return WriteAsync(withPresentMinute: false);
        }, stoppingToken);

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        Tell();
        await WriteAsync(withPresentMinute: true);
    }

    private void Count(HttpContext context, string action)
    {
        var isKnown = context.User.Identity?.IsAuthenticated == true;
        var network = RateLimits.NetworkOf(context);
        var who = CallerRight.CallerOf(context);
        var key = $"{action} {(isKnown ? who.Name : network)}";
        var request = Describe(context, isKnown);
        lock (gate)
        {
            if (action == Refused)
            {
                requests++;
                CountAddress(network);
            }
            Turn();
            if (!callers.TryGetValue(key, out var counted))
            {
                if (callers.Values.Count(other => other.IsKnown == isKnown) >= (isKnown ? MostKnown : MostStrangers))
                {
                    who = new Caller(isKnown ? "other keys" : "other addresses");
                    key = $"{action} {who.Name}";
                    _ = callers.TryGetValue(key, out counted);
                }
                callers[key] = counted ??= new Counted(who, isKnown, action, minute, context.Items[ReasonItem] as string);
            }
            counted.Add(context.Response.StatusCode, request, KindOf(context));
        }
    }

    /// <summary>What the caller brought.</summary>
    private static string KindOf(HttpContext context) =>
        context.User.Identity is { IsAuthenticated: true, AuthenticationType: { } kind } ? kind
        : ApiAuthentication.PresentedKey(context) is { } presented ? presented.Count(character => character == '.') == 2 ? "token" : "key"
        : context.GetEndpoint()?.Metadata.GetMetadata<IEndpointNameMetadata>()?.EndpointName == SessionEndpoints.SignInName ? "key at the sign-in"
        : BrowserSessions.IsBroughtBy(context) ? "session" : "nothing";

    private void CountAddress(string network)
    {
        if (addresses.Count < MostAddresses || addresses.ContainsKey(network))
        {
            addresses[network] = addresses.GetValueOrDefault(network) + 1;
        }
    }

    /// <summary>What a caller with a key asked for; of a stranger only what the service has, because the rest is of its choice.</summary>
    private static string Describe(HttpContext context, bool isKnown)
    {
        var method = HttpMethods.GetCanonicalizedValue(context.Request.Method);
        method = method.Length <= 7 && method.All(char.IsAsciiLetterUpper) ? method : "?";
        var path = isKnown ? context.Request.Path.Value : (context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText;
        var text = $"{method} {path ?? "(no such address)"}";
        return text.Length <= LongestRequest ? text : text[..LongestRequest];
    }

    /// <summary>Begins a new minute when it is time.</summary>
    private void Turn(bool always = false)
    {
        var now = clock.GetUtcNow().ToUnixTimeSeconds() / 60;
        if (now == minute && !always)
        {
            return;
        }
        minute = now;
        if (callers.Count > 0)
        {
            unwritten.AddRange(callers.Values.Take(MostRows - unwritten.Count).Select(counted => counted.ToRow()));
            callers = new(StringComparer.Ordinal);
        }
    }

    private void Tell()
    {
        lock (gate)
        {
            if (addresses.Count == 0)
            {
                return;
            }
            var (address, most) = addresses.MaxBy(pair => pair.Value);
            LogRefused(requests, connections, most, address);
            (requests, connections) = (0, 0);
            addresses.Clear();
        }
    }

    private async Task WriteAsync(bool withPresentMinute)
    {
        Row[] rows;
        lock (gate)
        {
            Turn(withPresentMinute);
            rows = [.. unwritten];
        }
        if (rows.Length == 0)
        {
            return;
        }
        try
        {
            await database.WriteAsync(async transaction =>
            {
                foreach (var row in rows)
                {
                    await AuditTrail.WriteAsync(transaction, row.Who, row.Action, row.Subject, row.Detail, clock.GetUtcNow().ToUnixTimeMilliseconds());
                }
                return true;
            });
            lock (gate)
            {
                unwritten.RemoveRange(0, rows.Length);
            }
        }
        catch (Exception exception)
        {
            // They stay for the next second; after a stop the log is all that has them.
            LogNotWritten(rows.Length, exception.Message);
        }
    }

    [LoggerMessage(LogLevel.Information, "In a second {Requests} requests were refused (401, 403 or 429) and {Connections} connections closed to make room for others; the most, {Most}, came from {Address}")]
    private partial void LogRefused(long requests, long connections, long most, string address);

    [LoggerMessage(LogLevel.Warning, "{Rows} audit rows about refused requests could not be written and are tried again: {Reason}")]
    private partial void LogNotWritten(int rows, string reason);

    /// <summary>A row of the audit log that is to be written.</summary>
    private sealed record Row(Caller Who, string Action, string Subject, string Detail);

    /// <summary>What was refused to one caller within a minute.</summary>
    /// <param name="action">What the audit log calls it.</param>
    private sealed class Counted(Caller who, bool isKnown, string action, long minute, string? reason)
    {
        private readonly SortedDictionary<int, long> statuses = [];
        private readonly SortedSet<string> kinds = new(StringComparer.Ordinal);
        private readonly List<string> requests = [];
        private bool hadOthers;

        public bool IsKnown => isKnown;

        public void Add(int status, string request, string kind)
        {
            kinds.Add(kind);
            statuses[status] = statuses.GetValueOrDefault(status) + 1;
            if (!requests.Contains(request))
            {
                if (requests.Count < DifferentRequests)
                {
                    requests.Add(request);
                }
                else
                {
                    hadOthers = true;
                }
            }
        }

        public Row ToRow()
        {
            var from = DateTimeOffset.FromUnixTimeSeconds(minute * 60).ToString("HH:mm'Z'", CultureInfo.InvariantCulture);
            var counts = string.Join(", ", statuses.Select(pair => string.Create(CultureInfo.InvariantCulture, $"{pair.Key} x {pair.Value}")));
            var others = requests.Count == 1 ? "" : $" Also {string.Join(", ", requests.Skip(1))}{(hadOthers ? " and others" : "")}.";
            return new Row(
                who, action, requests[0], $"In the minute from {from}: {counts}. Brought: {string.Join(", ", kinds)}.{(reason is null ? "" : $" First: {reason}")}{others}");
        }
    }
}
