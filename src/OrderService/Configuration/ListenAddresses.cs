using System.Net;
using Microsoft.AspNetCore.Http;

namespace OrderService.Configuration;

/// <summary>The settings <c>Urls</c>, where everything is served, and <c>ManagementUrls</c>, where health and metrics have a listener to themselves.</summary>
internal static class ListenAddresses
{
    private const string Everything = "Urls";
    private const string Management = "ManagementUrls";

    public static IReadOnlyList<BindingAddress> OfEverything(IConfiguration configuration) => [.. Split(configuration[Everything] ?? "http://localhost:8080").Select(BindingAddress.Parse)];

    /// <summary>Empty where the setting is: whoever has no use for the listener goes without.</summary>
    public static IReadOnlyList<BindingAddress> OfManagement(IConfiguration configuration) => [.. Split(configuration[Management] ?? "http://localhost:8081").Select(BindingAddress.Parse)];

    /// <summary>Where a program on this machine reaches it.</summary>
    public static Uri FromHere(BindingAddress address) =>
        new($"{address.Scheme}://{(IPAddress.TryParse(address.Host, out var ip) && !ip.Equals(IPAddress.Any) && !ip.Equals(IPAddress.IPv6Any) ? address.Host : "localhost")}:{address.Port}");

    /// <summary>The first address of <c>Urls</c> that others than this machine may reach without TLS; null when there is none.</summary>
    public static string? PlainToOthers(IConfiguration configuration) => configuration.GetSection("Kestrel:Endpoints").GetChildren().Any()
        ? null
        : OfEverything(configuration).Where(address => address.Scheme == "http" && !ThisMachine.Is(address.Host)).Select(address => address.ToString()).FirstOrDefault();

    public static IEnumerable<string> Mistakes(IConfiguration configuration)
    {
        if (Split(configuration[Everything] ?? "-").Length == 0)
        {
            yield return "Urls: names no address to listen on; write http://localhost:8080 or http://+:8080, or leave it out.";
        }
        var used = new HashSet<int>();
        foreach (var (key, example) in new[] { (Everything, 8080), (Management, 8081) })
        {
            var ports = new List<int>();
            foreach (var url in Split(configuration[key] ?? ""))
            {
                if (Read(url) is not { } address)
                {
                    yield return $"{key}: '{url}' is no address to listen on; write http://localhost:{example} or http://+:{example}.";
                }
                else if (used.Contains(address.Port))
                {
                    yield return $"{key}: '{url}' has a port that Urls has as well; it needs one of its own, such as {example}.";
                }
                else if (address.Port > 0)
                {
                    ports.Add(address.Port);
                }
            }
            used.UnionWith(ports);
        }
    }

    private static string[] Split(string urls) => urls.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private static BindingAddress? Read(string url)
    {
        try
        {
            var address = BindingAddress.Parse(url);
            return address.Scheme is "http" or "https" && address.Port is >= 0 and <= IPEndPoint.MaxPort && address.PathBase.Length == 0 ? address : null;
        }
        catch (FormatException)
        {
            return null;
        }
    }
}
