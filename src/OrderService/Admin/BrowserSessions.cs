using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>
/// Signed cookies for browsers. Nothing is stored, so every instance knows every session; taking a key out of the settings ends its sessions.
/// </summary>
/// <remarks>
/// Over https the cookie is <c>__Host-orders-session</c> with <c>Secure</c>. Over plain http (the first start on localhost) it has neither:
/// the prefix needs <c>Secure</c>, and not every browser keeps a <c>Secure</c> cookie from http://localhost, so the sign-in would silently fail there.
/// Both are <c>HttpOnly</c> and <c>SameSite=Strict</c>.
/// </remarks>
public sealed class BrowserSessions(ApiKeyRing keys, IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>Unsafe requests of a session must bring its token in this header: another site can't set it.</summary>
    public const string CsrfHeader = "X-CSRF-Token";

    private const string SecureCookie = "__Host-orders-session";
    internal const string PlainCookie = "orders-session";

    /// <summary>Sets the cookie and returns the token for <see cref="CsrfHeader"/>.</summary>
    public string SignIn(HttpContext context, ApiKeyRing.Entry key)
    {
        var expires = clock.GetUtcNow().Add(options.Value.SessionLifetime);
        var claim = string.Create(CultureInfo.InvariantCulture,
            $"{Base64Url.EncodeToString(Encoding.UTF8.GetBytes(key.Name))}.{expires.ToUnixTimeSeconds()}.{Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(12))}");
        var token = $"{claim}.{Sign(key, "session", claim)}";
        context.Response.Cookies.Append(CookieName(context), token, CookieOptions(context, expires));
        return Sign(key, "csrf", token);
    }

    public void SignOut(HttpContext context) => context.Response.Cookies.Delete(CookieName(context), CookieOptions(context, null));

    /// <summary>Whose session the request's cookie is; null when there is none or it does not hold.</summary>
    public Session? Read(HttpContext context)
    {
        if (!context.Request.Cookies.TryGetValue(CookieName(context), out var token) || token.Length > 512)
        {
            return null;
        }
        var parts = token.Split('.');
        if (parts.Length != 4 || !Base64Url.IsValid(parts[0]) || !long.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out var seconds))
        {
            return null;
        }
        var key = keys.FindByName(Encoding.UTF8.GetString(Base64Url.DecodeFromChars(parts[0])));
        if (key is null || !Same(parts[3], Sign(key, "session", token[..token.LastIndexOf('.')])) || clock.GetUtcNow().ToUnixTimeSeconds() >= seconds)
        {
            return null;
        }
        return new Session(key, Sign(key, "csrf", token));
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
        return context.Request.Headers.Origin is not [{ } origin]
            || (Uri.TryCreate(origin, UriKind.Absolute, out var uri) && uri.Authority.Equals(context.Request.Host.Value, StringComparison.OrdinalIgnoreCase));
    }

    private static string CookieName(HttpContext context) => context.Request.IsHttps ? SecureCookie : PlainCookie;

    private static CookieOptions CookieOptions(HttpContext context, DateTimeOffset? expires) => new()
    {
        HttpOnly = true,
        SameSite = SameSiteMode.Strict,
        Secure = context.Request.IsHttps,
        Path = "/",
        Expires = expires,
        IsEssential = true,
    };

    private static string Sign(ApiKeyRing.Entry key, string purpose, string text) =>
        Base64Url.EncodeToString(HMACSHA256.HashData(HMACSHA256.HashData(key.Hash, Encoding.UTF8.GetBytes("orderservice " + purpose)), Encoding.UTF8.GetBytes(text)));

    private static bool Same(string left, string right) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(left), Encoding.UTF8.GetBytes(right));

    /// <param name="CsrfToken">What unsafe requests must bring in <see cref="CsrfHeader"/>.</param>
    public sealed record Session(ApiKeyRing.Entry Key, string CsrfToken);
}
