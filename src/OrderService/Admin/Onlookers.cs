using System.Net;
using Microsoft.Extensions.Options;
using OrderService.Health;

namespace OrderService.Admin;

/// <summary>
/// What health and metrics tell to whom. Anybody who reaches <c>Urls</c> may ask without a key. Names, counts and the sentences of this service are for all of
/// them; what the store and the broker say, in their own words, is for those who watch the service: at the management listener, with a key that may <c>read</c>,
/// or on this machine.
/// </summary>
internal static class Onlookers
{
    private static readonly object NamedByUs = new();

    /// <summary>Beside those that begin with <c>X-Forwarded-</c>.</summary>
    private static readonly string[] ProxyHeaders = ["X-Original-For", "Forwarded", "Via"];

    private static readonly string[] PrivateNames = [".localhost", ".local", ".internal"];

    /// <summary>Before the public address takes the place of the one that the request names.</summary>
    public static Task LookAtHost(HttpContext context, RequestDelegate next)
    {
        if (IsOurs(context.Request.Host.Host, context.RequestServices))
        {
            context.Items[NamedByUs] = true;
        }
        return next(context);
    }

    /// <summary>After the caller is known.</summary>
    public static Task Judge(HttpContext context, RequestDelegate next)
    {
        if (context.Request.Path.StartsWithSegments("/health"))
        {
            if (Watches(context) || IsOnThisMachine(context))
            {
                context.Items[HealthSetup.TellsAll] = true;
            }
        }
        else if (context.Request.Path.StartsWithSegments("/metrics") && !Watches(context) && !context.Items.ContainsKey(NamedByUs))
        {
            return Problems.WriteAsync(
                context, StatusCodes.Status401Unauthorized, "unauthorized",
                $"Under the name {Shown(context)} metrics need a key that may read: a web page whose name leads here could ask for them. "
                + "Use an address, AllowedHosts or ManagementUrls.");
        }
        return next(context);
    }

    private static bool Watches(HttpContext context) => Listeners.IsManagement(context) || context.User.HasClaim(ApiAuthentication.ScopeClaim, Scopes.Read);

    /// <summary>Behind a proxy on this machine everybody seems to be on it.</summary>
    private static bool IsOnThisMachine(HttpContext context) =>
        context.Items.ContainsKey(NamedByUs)
        && context.Connection.RemoteIpAddress is { } address && IPAddress.IsLoopback(CallerRight.Plain(address)!)
        && !context.Request.Headers.Keys.Any(name => name.StartsWith("X-Forwarded-", StringComparison.OrdinalIgnoreCase)
            || ProxyHeaders.Contains(name, StringComparer.OrdinalIgnoreCase));

    /// <summary>
    /// Whether no stranger can make this name lead here: a browser sends a page's requests to wherever the page's own name leads (DNS rebinding).
    /// </summary>
    private static bool IsOurs(string host, IServiceProvider services)
    {
        if (IPAddress.TryParse(host.Trim('[', ']'), out _) || !host.Contains('.', StringComparison.Ordinal)
            || PrivateNames.Any(end => host.EndsWith(end, StringComparison.OrdinalIgnoreCase)))
        {
            return true;
        }
        if (services.GetRequiredService<IOptions<ApiOptions>>().Value.PublicUrl is { Length: > 0 } url
            && new Uri(url).Host.Equals(host, StringComparison.OrdinalIgnoreCase))
        {
            return true;
        }
        // Whoever names hosts has let this one in.
        return services.GetRequiredService<IConfiguration>()["AllowedHosts"] is { Length: > 0 } allowed
            && !allowed.Split(';', StringSplitOptions.TrimEntries).Contains("*");
    }

    private static string Shown(HttpContext context) =>
        context.Request.Host.Host is { Length: <= 64 } host && host.All(character => char.IsAsciiLetterOrDigit(character) || character is '.' or '-')
            ? host
            : "that it was asked by";
}
