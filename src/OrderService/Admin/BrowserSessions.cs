using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>
/// Signed cookies for browsers. Nothing of a living session is stored, so every instance knows it; <see cref="EndedSessions"/> knows those that were signed out, and
/// taking a key out of the settings ends its sessions.
/// </summary>
/// <remarks>
/// Over https the cookie is <c>__Host-orders-session</c> with <c>Secure</c>; under a path it is <c>__Secure-orders-session</c> and goes to that path alone, not to its neighbours. Over plain http (the first start on localhost) it has neither:
/// the prefix needs <c>Secure</c>, and not every browser keeps a <c>Secure</c> cookie from http://localhost, so the sign-in would silently fail there.
/// Both are <c>HttpOnly</c> and <c>SameSite=Strict</c>.
/// </remarks>
public sealed class BrowserSessions(ApiKeyRing keys, IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>Unsafe requests of a session must bring its token in this header: another site can't set it.</summary>
    public const string CsrfHeader = "X-CSRF-Token";

    private const string HostCookie = "__Host-orders-session";
    private const string SecureCookie = "__Secure-orders-session";
    internal const string PlainCookie = "orders-session";

    /// <summary>Sets the cookie of a new session.</summary>
    public Session SignIn(HttpContext context, ApiKeyRing.Entry key)
    {
        var expires = DateTimeOffset.FromUnixTimeSeconds(clock.GetUtcNow().Add(options.Value.SessionLifetime).ToUnixTimeSeconds());
        var claim = string.Create(CultureInfo.InvariantCulture,
            $"{Base64Url.EncodeToString(Encoding.UTF8.GetBytes(key.Name))}.{expires.ToUnixTimeSeconds()}.{Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(12))}");
        var token = $"{claim}.{Sign(key, "session", claim)}";
        context.Response.Cookies.Append(CookieName(context), token, CookieOptions(context, expires));
        return Of(key, token, expires);
    }

    /// <summary>Takes the cookie from the browser; <see cref="EndedSessions"/> sees to copies of it.</summary>
    public void SignOut(HttpContext context) => context.Response.Cookies.Delete(CookieName(context), CookieOptions(context, null));

    /// <summary>Whose session the request's cookie is; null when there is none or it does not hold.</summary>
    public Session? Read(HttpContext context)
    {
        // Another application of this host may have set a cookie of the same name for a path above ours; the browser then sends both.
        var name = CookieName(context) + "=";
        foreach (var cookie in context.Request.Headers.Cookie.SelectMany(header => header?.Split(';', StringSplitOptions.TrimEntries) ?? []))
        {
            if (cookie.StartsWith(name, StringComparison.Ordinal) && Read(cookie[name.Length..]) is { } session)
            {
                return session;
            }
        }
        return null;
    }

    private Session? Read(string token)
    {
        if (token.Length > 512)
        {
            return null;
        }
        var parts = token.Split('.');
        if (parts.Length != 4 || !Base64Url.IsValid(parts[0]) || !long.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
            || seconds > DateTimeOffset.MaxValue.ToUnixTimeSeconds())
        {
            return null;
        }
        var key = keys.FindByName(Encoding.UTF8.GetString(Base64Url.DecodeFromChars(parts[0])));
        if (key is null || !Same(parts[3], Sign(key, "session", token[..token.LastIndexOf('.')])) || clock.GetUtcNow().ToUnixTimeSeconds() >= seconds)
        {
            return null;
        }
        return Of(key, token, DateTimeOffset.FromUnixTimeSeconds(seconds));
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

    private static Session Of(ApiKeyRing.Entry key, string token, DateTimeOffset ends) =>
        new(key, Sign(key, "csrf", token), Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token.Split('.')[2])).AsSpan(0, 8)), ends);

    private static string Sign(ApiKeyRing.Entry key, string purpose, string text) =>
        Base64Url.EncodeToString(HMACSHA256.HashData(HMACSHA256.HashData(key.Hash, Encoding.UTF8.GetBytes("orderservice " + purpose)), Encoding.UTF8.GetBytes(text)));

    private static bool Same(string left, string right) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(left), Encoding.UTF8.GetBytes(right));

    /// <param name="CsrfToken">What unsafe requests must bring in <see cref="CsrfHeader"/>.</param>
    /// <param name="Id">Names the session in the audit log; tells nothing about its cookie.</param>
    public sealed record Session(ApiKeyRing.Entry Key, string CsrfToken, string Id, DateTimeOffset Ends);
}
