using System.Net;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.HttpOverrides;
using Microsoft.Extensions.Options;
using IPNetwork = System.Net.IPNetwork;

namespace OrderService.Admin;

/// <summary>
/// What a proxy in front changes about a request: its caller's address, scheme, host and path. Only proxies that are named in the settings are believed;
/// what the settings say about the public address holds whatever a request claims.
/// </summary>
internal static partial class ProxyRules
{
    /// <summary>Takes over what trusted proxies say.</summary>
    public static void Use(WebApplication app)
    {
        var trusted = app.Services.GetRequiredService<IOptions<ApiOptions>>().Value.TrustedProxies;
        if (trusted.Count == 0)
        {
            return;
        }
        var options = new ForwardedHeadersOptions
        {
            ForwardedHeaders = ForwardedHeaders.XForwardedFor | ForwardedHeaders.XForwardedProto | ForwardedHeaders.XForwardedHost | ForwardedHeaders.XForwardedPrefix,
            // From the nearest proxy on, as far as each is trusted.
            ForwardLimit = null,
        };
        options.KnownProxies.Clear();
        options.KnownIPNetworks.Clear();
        foreach (var text in trusted)
        {
            if (IPAddress.TryParse(text, out var address))
            {
                options.KnownProxies.Add(address);
            }
            else
            {
                options.KnownIPNetworks.Add(IPNetwork.Parse(text));
            }
        }
        app.UseForwardedHeaders(options);
    }

    /// <summary>Whether the address is a trusted proxy's.</summary>
    public static bool IsTrusted(ApiOptions options, IPAddress address) => options.TrustedProxies.Any(
        text => IPAddress.TryParse(text, out var proxy) ? proxy.Equals(address) : IPNetwork.Parse(text).Contains(address));

    /// <summary>Puts the public address in place, and takes the path base off the path where the proxy has left it there.</summary>
    public static void UsePublicAddress(WebApplication app)
    {
        var options = app.Services.GetRequiredService<IOptions<ApiOptions>>().Value;
        var publicUrl = options.PublicUrl is { Length: > 0 } url ? new Uri(url) : null;
        var configured = PathBaseOf(options);
        app.Use((context, next) =>
        {
            var request = context.Request;
            if (publicUrl is not null)
            {
                request.Scheme = publicUrl.Scheme;
                request.Host = HostString.FromUriComponent(publicUrl);
            }
            var pathBase = configured.HasValue ? configured : new PathString(request.PathBase.Value?.TrimEnd('/'));
            if (!pathBase.HasValue)
            {
                return next(context);
            }
            request.PathBase = pathBase;
            if (request.Path.StartsWithSegments(pathBase, out var rest))
            {
                if (!rest.HasValue && (HttpMethods.IsGet(request.Method) || HttpMethods.IsHead(request.Method)))
                {
                    // The page's own addresses are relative to a folder.
                    context.Response.Redirect($"{pathBase}/");
                    return Task.CompletedTask;
                }
                request.Path = rest;
            }
            return next(context);
        });
    }

    /// <summary>The address that signs a browser in; <paramref name="listening"/> where the settings name no public one.</summary>
    public static string Address(ApiOptions options, string listening) =>
        options.PublicUrl is { Length: > 0 } url ? url.TrimEnd('/') : $"{listening.TrimEnd('/')}{PathBaseOf(options)}";

    /// <summary>What is wrong with the settings about proxies.</summary>
    public static IEnumerable<string> Check(ApiOptions options)
    {
        for (var index = 0; index < options.TrustedProxies.Count; index++)
        {
            if (!IPAddress.TryParse(options.TrustedProxies[index], out _) && !IPNetwork.TryParse(options.TrustedProxies[index], out _))
            {
                yield return $"Api:TrustedProxies:{index}: must be an address (10.0.0.7) or a network whose bits beyond its length are zero (10.0.0.0/24).";
            }
        }
        if (options.PathBase is { Length: > 0 } path && !FormOfPathBase().IsMatch(path))
        {
            yield return "Api:PathBase: must begin with '/' and not end with it, such as /orders.";
        }
        if (options.PublicUrl is { Length: > 0 } url)
        {
            if (!Uri.TryCreate(url, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https") || uri.Query.Length > 0 || uri.Fragment.Length > 0 || uri.UserInfo.Length > 0
                || (uri.AbsolutePath != "/" && !FormOfPathBase().IsMatch(uri.AbsolutePath.TrimEnd('/'))))
            {
                yield return "Api:PublicUrl: must be an http or https address without user, query and fragment, such as https://shop.example.com/orders/.";
            }
            else if (options.PathBase is { Length: > 0 } && uri.AbsolutePath.TrimEnd('/') != options.PathBase)
            {
                yield return "Api:PathBase: names another path than Api:PublicUrl; leave it out, it is taken from there.";
            }
        }
    }

    private static PathString PathBaseOf(ApiOptions options) => options switch
    {
        { PathBase: { Length: > 0 } path } => new PathString(path),
        { PublicUrl: { Length: > 0 } url } => new PathString(new Uri(url).AbsolutePath.TrimEnd('/')),
        _ => default,
    };

    [GeneratedRegex(@"^(/[A-Za-z0-9._~-]+)+$")]
    private static partial Regex FormOfPathBase();
}
