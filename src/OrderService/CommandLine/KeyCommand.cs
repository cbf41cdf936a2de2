using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Admin;
using OrderService.Configuration;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>key show</c>: the key that the first start made.</summary>
internal static class KeyCommand
{
    public static Command Create()
    {
        var show = new Command("show", "Prints the key that the first start made, the address that signs a browser in, and when it ends. Exit code 1 when there is none.");
        show.SetAction((_, cancellationToken) => Commands.WithStationsAsync((stations, _) => Task.FromResult(Show(stations)), cancellationToken, needsStore: false));
        return new Command("key", "The key of the first start, where the settings have none.") { show };
    }

    private static int Show(IServiceProvider stations)
    {
        var (api, store) = (stations.GetRequiredService<IOptions<ApiOptions>>().Value, stations.GetRequiredService<IOptions<StoreOptions>>().Value);
        if (!FirstKey.IsWanted(api))
        {
            StandardError.Say($"Who may come in is configured ({(api.Keys.Count > 0 ? "Api:Keys" : "Api:Jwt")}), so no key of the first start is in use.");
            return ExitCode.SomeFailed;
        }
        try
        {
            if (FirstKey.Read(api, store) is not { } key)
            {
                StandardError.Say($"There is no {FirstKey.FileOf(store)} yet; the first orderservice serve makes it.");
                return ExitCode.SomeFailed;
            }
            Print(key, api, stations.GetRequiredService<IConfiguration>());
            if (key.Ends > stations.GetRequiredService<TimeProvider>().GetUtcNow())
            {
                return ExitCode.Done;
            }
            StandardError.Say($"It has ended. {HowToGoOn(key)}");
            return ExitCode.SomeFailed;
        }
        catch (UnauthorizedAccessException exception)
        {
            StandardError.Say($"Only its owner reads it: {exception.Message}");
            return ExitCode.SomeFailed;
        }
    }

    internal static void Print(FirstKey key, ApiOptions api, IConfiguration configuration, TextWriter? to = null) => (to ?? Console.Out).WriteLine(string.Create(
        CultureInfo.InvariantCulture,
        $"""
          key      {key.Key}
          sign in  {ProxyRules.Address(api, ListenAddresses.FromHere(ListenAddresses.OfEverything(configuration)[0]).ToString())}/#key={key.Key}
          until    {key.Ends.UtcDateTime:yyyy-MM-dd HH:mm:ss'Z'}
        """));

    internal static string HowToGoOn(FirstKey key) =>
        $"Set Api:Keys (docs/configuration.md). For another one of its kind delete {key.File} and start the service again.";
}
