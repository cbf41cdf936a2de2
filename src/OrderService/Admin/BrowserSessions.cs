using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>
/// The cookie of a signed-in browser: 32 random bytes, of which the store has the hash (<see cref="LivingSessions"/>). Taking a key out of the settings ends its sessions.
/// </summary>
/// <remarks>
/// Over https the cookie is <c>__Host-orders-session</c> with <c>Secure</c>; under a path it is <c>__Secure-orders-session</c> and goes to that path alone, not to its neighbours. Over plain http (the first start on localhost) it has neither:
/// the prefix needs <c>Secure</c>, and not every browser keeps a <c>Secure</c> cookie from http://localhost, so the sign-in would silently fail there.
/// Both are <c>HttpOnly</c> and <c>SameSite=Strict</c>.
/// </remarks>
internal sealed class BrowserSessions(LivingSessions living, ApiKeyRing keys, IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>Unsafe requests of a session must bring its token in this header: another site can't set it.</summary>
    public const string CsrfHeader = "X-CSRF-Token";

    private const string HostCookie = "__Host-orders-session";
    private const string SecureCookie = "__Secure-orders-session";
    internal const string PlainCookie = "orders-session";

    /// <summary>What the page sends with what it reads by itself: nobody need sit before it.</summary>
    public const string BackgroundHeader = "X-Background";

    private const int CookieBytes = 32;

    /// <summary>Sets the cookie of a new session.</summary>
    public async Task<Session> SignInAsync(HttpContext context, ApiKeyRing.Entry key)
    {
        var now = clock.GetUtcNow();
        var ends = now + options.Value.SessionLifetime;
        var token = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(CookieBytes));
        var row = new SessionRow
        {
            Hash = HashOf(token),
            KeyId = key.Id,
            Address = CallerRight.AddressOf(context),
            StartedAt = now.ToUnixTimeMilliseconds(),
            UsedAt = now.ToUnixTimeMilliseconds(),
            EndsAt = ends.ToUnixTimeMilliseconds(),
        };
        await living.AddAsync(row);
        context.Response.Cookies.Append(CookieName(context), token, CookieOptions(context, ends));
        return Of(key, token, row);
    }

    /// <summary>Takes the cookie from the browser; <see cref="LivingSessions"/> sees to copies of it.</summary>
    public static void SignOut(HttpContext context)
    {
        context.Response.Cookies.Delete(CookieName(context), CookieOptions(context, null));
        if (context.Request.IsHttps)
        {
            // Browsers take it over TLS alone. Not the storage: it holds the colours, and under a path it is the neighbours' too.
            context.Response.Headers["Clear-Site-Data"] = "\"cache\"";
        }
    }

    /// <summary>Whose session the request's cookie is; null when there is none or it has ended.</summary>
    public async ValueTask<Session?> ReadAsync(HttpContext context)
    {
        // Another application of this host may have set a cookie of the same name for a path above ours; the browser then sends both.
        var name = CookieName(context) + "=";
        foreach (var cookie in context.Request.Headers.Cookie.SelectMany(header => header?.Split(';', StringSplitOptions.TrimEntries) ?? []))
        {
            if (cookie.StartsWith(name, StringComparison.Ordinal) && await ReadAsync(cookie[name.Length..], context.RequestAborted) is { } session)
            {
                return session;
            }
        }
        return null;
    }

    /// <summary>Whether the request brings a session's cookie, whatever that is worth.</summary>
    public static bool IsBroughtBy(HttpContext context) => context.Request.Cookies.ContainsKey(CookieName(context));

    /// <summary>Notes that somebody sits before the browser, unless its page only keeps itself up to date.</summary>
    public void Use(HttpContext context, Session session)
    {
        if (context.Request.Headers[BackgroundHeader].Count == 0 && !context.Request.Headers.Accept.Contains("text/event-stream"))
        {
            living.Use(session.Row);
        }
    }

    private async ValueTask<Session?> ReadAsync(string token, CancellationToken cancellationToken)
    {
        if (!Base64Url.IsValid(token, out var length) || length != CookieBytes)
        {
            return null;
        }
        return await living.FindAsync(HashOf(token), cancellationToken) is { } row && keys.FindById(row.KeyId) is { } key ? Of(key, token, row) : null;
    }

    /// <summary>
    /// Whether a session may do this: reading is always fine; anything else must come from this very site, by what the browser says about the request's origin and by the token.
    /// </summary>
    public static bool IsFromThisSite(HttpContext context, Session session)
    {
        if (HttpMethods.IsGet(context.Request.Method) || HttpMethods.IsHead(context.Request.Method) || HttpMethods.IsOptions(context.Request.Method))
        {
            return true;
        }
        return IsSameOrigin(context) && context.Request.Headers[CsrfHeader] is [{ } given] && Same(given, session.CsrfToken);
    }

    /// <summary>What the browser says: <c>Sec-Fetch-Site</c>, or <c>Origin</c> where it is too old to send that.</summary>
    public static bool IsSameOrigin(HttpContext context)
    {
        if (context.Request.Headers["Sec-Fetch-Site"] is [{ } site])
        {
            return site is "same-origin" or "none";
        }
        return context.Request.Headers.Origin is not [{ } origin] || IsHost(context, origin);
    }

    /// <summary>
    /// What to do when a browser that sends no <c>Sec-Fetch-Site</c> (over plain http by name) is at another address than the one that reached us, as behind a proxy
    /// that changes <c>Host</c>; null when the request was refused for something else.
    /// </summary>
    public static string? OriginMismatch(HttpContext context) =>
        context.Request.Headers["Sec-Fetch-Site"].Count == 0 && context.Request.Headers.Origin is [{ } origin] && !IsHost(context, origin)
            ? $"The page is at {Shown(origin)} and this request came for the host {Shown(context.Request.Host.Value ?? "")}. Behind a proxy, let it hand the name on "
                + "(nginx: proxy_set_header Host $http_host;), or set Api:PublicUrl to the address of the page: see docs/operations.md, \"Behind a proxy\"."
            : null;

    private static bool IsHost(HttpContext context, string origin) =>
        Uri.TryCreate(origin, UriKind.Absolute, out var page) && Uri.TryCreate($"{page.Scheme}://{context.Request.Host.Value}", UriKind.Absolute, out var here)
            && page.Authority.Equals(here.Authority, StringComparison.OrdinalIgnoreCase);

    private static string Shown(string text) => text.Length <= 100 && text.All(character => character is > ' ' and <= '~') ? text : "(an address that can't be shown)";

    private static string CookieName(HttpContext context) => !context.Request.IsHttps ? PlainCookie : context.Request.PathBase.HasValue ? SecureCookie : HostCookie;

    private static CookieOptions CookieOptions(HttpContext context, DateTimeOffset? expires) => new()
    {
        HttpOnly = true,
        SameSite = SameSiteMode.Strict,
        Secure = context.Request.IsHttps,
        Path = $"{context.Request.PathBase}/",
        Expires = expires,
        IsEssential = true,
    };

    private static Session Of(ApiKeyRing.Entry key, string token, SessionRow row) => new(
        key, row, Base64Url.EncodeToString(HMACSHA256.HashData(Encoding.ASCII.GetBytes(token), "orderservice csrf"u8)));

    private static string HashOf(string token) => Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(token)));

    private static bool Same(string left, string right) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(left), Encoding.UTF8.GetBytes(right));

    /// <param name="CsrfToken">What unsafe requests must bring in <see cref="CsrfHeader"/>.</param>
    internal sealed record Session(ApiKeyRing.Entry Key, SessionRow Row, string CsrfToken)
    {
        public string Id => Row.Id;

        public DateTimeOffset Ends => DateTimeOffset.FromUnixTimeMilliseconds(Row.EndsAt);
    }
}
