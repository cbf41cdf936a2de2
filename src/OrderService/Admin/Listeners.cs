using System.Net;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Options;
using OrderService.Configuration;

namespace OrderService.Admin;

/// <summary>
/// Where HTTP listens. Health and metrics have a listener with connections of its own beside the one for everything, so that whoever watches the service gets an answer however many
/// strangers hold connections to the other.
/// </summary>
internal sealed class Listeners(IConfiguration configuration)
{
    /// <summary>Of a few probes and scrapers; more is nobody who watches.</summary>
    private const int MostManagement = 200;
    private const int MostManagementOfAddress = 50;

    private static readonly object Item = new();

    // Endpoints that are described there take the place of Urls, as ASP.NET Core has it.
    private readonly IReadOnlyList<BindingAddress> everything =
        configuration.GetSection("Kestrel:Endpoints").GetChildren().Any() ? [] : ListenAddresses.OfEverything(configuration);

    private readonly IReadOnlyList<BindingAddress> management = ListenAddresses.OfManagement(configuration);

    public void Add(KestrelServerOptions kestrel)
    {
        var api = kestrel.ApplicationServices.GetRequiredService<IOptions<ApiOptions>>().Value;
        var refusals = kestrel.ApplicationServices.GetRequiredService<Refusals>();
        var limit = new ConnectionLimit(api.MaxConnections, api.MaxConnectionsPerAddress, address => ProxyRules.IsTrusted(api, address), refusals.CountConnection);
        Listen(kestrel, everything, listen => listen.Use(limit.Limit));
        var ofManagement = new ConnectionLimit(MostManagement, MostManagementOfAddress, _ => false, refusals.CountConnection);
        Listen(kestrel, management, listen =>
        {
            listen.Use(ofManagement.Limit);
            listen.Use(next => connection =>
            {
                connection.Items[Item] = Item;
                return next(connection);
            });
        });
        // From here on, for the endpoints of Kestrel:Endpoints.
        kestrel.ConfigureEndpointDefaults(listen => listen.Use(limit.Limit));
    }

    /// <summary>A sentence about an address that another program listens on.</summary>
    public string InUse(IOException failure)
    {
        var key = management.FirstOrDefault(address => failure.Message.Contains($":{address.Port}:", StringComparison.Ordinal) || failure.Message.EndsWith($":{address.Port}", StringComparison.Ordinal)) is null
            ? "Urls" : "ManagementUrls";
        return $"{key}: {failure.Message.TrimEnd('.')}. Name another port{(key == "Urls" ? "" : ", or none (ManagementUrls=) to go without")}, or stop the program that listens there.";
    }

    /// <summary>A sentence where keys and cookies may cross a network unencrypted; null where a proxy with TLS is named, or nobody else reaches the port.</summary>
    public static string? PlainHttp(IConfiguration configuration, ApiOptions api) =>
        api.TrustedProxies.Count == 0 && api.PublicUrl?.StartsWith("https:", StringComparison.OrdinalIgnoreCase) != true && ListenAddresses.PlainToOthers(configuration) is { } address
            ? $"Urls: other machines may reach {address} over plain http, and everybody on the way reads keys and cookies. Put a proxy with TLS before it (Api:TrustedProxies, Api:PublicUrl), "
                + "name an https address, or publish the port on this machine alone."
            : null;

    /// <summary>On the management listener there is nothing but health and metrics.</summary>
    public static Task KeepApart(HttpContext context, RequestDelegate next)
    {
        if (IsManagement(context) && !context.Request.Path.StartsWithSegments("/health") && !context.Request.Path.StartsWithSegments("/metrics"))
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return Task.CompletedTask;
        }
        return next(context);
    }

    public static bool IsManagement(HttpContext context) => context.Features.Get<Microsoft.AspNetCore.Connections.Features.IConnectionItemsFeature>()?.Items.ContainsKey(Item) == true;

    private static void Listen(KestrelServerOptions kestrel, IEnumerable<BindingAddress> addresses, Action<ListenOptions> configure)
    {
        foreach (var address in addresses)
        {
            if (address.Host.Equals("localhost", StringComparison.OrdinalIgnoreCase))
            {
                kestrel.ListenLocalhost(address.Port, All);
            }
            else if (IPAddress.TryParse(address.Host, out var ip))
            {
                kestrel.Listen(ip, address.Port, All);
            }
            else
            {
                // + and *, and as in ASP.NET Core any name.
                kestrel.ListenAnyIP(address.Port, All);
            }

            void All(ListenOptions listen)
            {
                configure(listen);
                if (address.Scheme == "https")
                {
                    listen.UseHttps();
                }
            }
        }
    }
}
