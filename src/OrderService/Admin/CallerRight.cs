using System.Globalization;
using System.Net;
using System.Text.RegularExpressions;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// What lets a caller in, in words that the audit log keeps: <c>key 1f2e3d4c</c> (that of the first start with its end), <c>session 4f3a9c0d12ab55e0 of key 1f2e3d4c until 2026-11-27T07:22:16Z</c> or
/// <c>token (ben) until 2026-11-27T07:22:16Z</c>. The ids tell nothing about the key or the cookie.
/// </summary>
internal sealed partial record CallerRight(string? Key, string? Session, DateTimeOffset? Until)
{
    /// <summary>How a token's holder calls itself.</summary>
    public string? Calls { get; init; }

    /// <summary>The claim that carries it through a request.</summary>
    public const string ClaimType = "right";

    private const string Time = "yyyy-MM-dd'T'HH:mm:ss'Z'";

    public static CallerRight Of(ApiKeyRing.Entry key) => new(key.Id, null, key.Ends);

    public static CallerRight Of(BrowserSessions.Session session) => new(session.Key.Id, session.Id, session.Ends);

    /// <param name="name">How its holder calls itself; of anybody's choice.</param>
    public static CallerRight OfToken(DateTime until, string? name) => new(null, null, new DateTimeOffset(until, TimeSpan.Zero)) { Calls = CallerName.Shown(name) };

    /// <summary>The right of the request's caller; null for a caller without one.</summary>
    public static CallerRight? Of(HttpContext context) => context.User.FindFirst(ClaimType) is { } claim ? Parse(claim.Value) : null;

    /// <summary>Who sends this request: name, right and address.</summary>
    public static Caller CallerOf(HttpContext context) =>
        new(context.User.Identity?.Name ?? "unknown", context.User.FindFirst(ClaimType)?.Value ?? "", AddressOf(context), Problems.RequestId(context));

    /// <summary>Who signs in or out with this session, before the request itself is known to be of it.</summary>
    public static Caller CallerOf(HttpContext context, BrowserSessions.Session session) =>
        new(CallerName.OfKey(session.Key.Name), Of(session).ToString(), AddressOf(context), Problems.RequestId(context));

    /// <summary>Where the request came from; behind a trusted proxy, what that says. IPv4 addresses look like IPv4 addresses.</summary>
    public static string AddressOf(HttpContext context) => Plain(context.Connection.RemoteIpAddress)?.ToString() ?? "";

    internal static IPAddress? Plain(IPAddress? address) => address is { IsIPv4MappedToIPv6: true } mapped ? mapped.MapToIPv4() : address;

    public static CallerRight? Parse(string text) => Form().Match(text) is { Success: true } match
        ? new(Part(match, "key"), Part(match, "session"), Part(match, "until") is { } until ? DateTimeOffset.ParseExact(until, Time, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal) : null)
            { Calls = Part(match, "calls") }
        : null;

    public override string ToString()
    {
        var until = Until is { } time ? string.Create(CultureInfo.InvariantCulture, $" until {time.UtcDateTime.ToString(Time, CultureInfo.InvariantCulture)}") : "";
        return Key is null ? $"token{(Calls is null ? "" : $" ({Calls})")}{until}" : Session is null ? $"key {Key}{until}" : $"session {Session} of key {Key}{until}";
    }

    /// <summary>Why it ended, as a sentence about its owner; null while it holds.</summary>
    public string? WhyEnded(ApiKeyRing keys, Func<string, string?> whySessionEnded, DateTimeOffset now) =>
        Key is not null && !keys.Holds(Key) ? keys.HasEnded(Key) ? "whose key ended" : "whose key was taken out of the settings"
        : Session is not null && whySessionEnded(Session) is { } why ? why
        : Until <= now ? Session is null ? "whose token expired" : "whose session expired"
        : null;

    private static string? Part(Match match, string name) => match.Groups[name] is { Success: true } group ? group.Value : null;

    [GeneratedRegex(@"^(?:token(?: \((?<calls>[^()\]]+)\))?|(?:session (?<session>[0-9a-f]+) of )?key (?<key>[0-9a-f]+))(?: until (?<until>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ))?$")]
    private static partial Regex Form();
}
