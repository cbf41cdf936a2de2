using System.CommandLine;
using OrderService.Configuration;
using OrderService.Health;

namespace OrderService.CommandLine;

/// <summary><c>health</c>: for a container's health check, where there is no curl.</summary>
internal static class HealthCommand
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(4);

    public static Command Create()
    {
        var command = new Command("health", "Asks the service on this machine whether it is ready; prints every cause when it is not. Exit code 0 or 1.");
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.SetAction((parsed, cancellationToken) => RunAsync(parsed.GetValue(json), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(bool json, CancellationToken cancellationToken)
    {
        var settings = OrderServiceHost.LoadSettings();
        if (!await Commands.ReportAsync(settings))
        {
            return ExitCode.BadConfiguration;
        }
        // The listener that strangers can't fill, where there is one.
        var address = ListenAddresses.FromHere(ListenAddresses.OfManagement(settings.Configuration).Concat(ListenAddresses.OfEverything(settings.Configuration)).First());
        using var http = new HttpClient { Timeout = Patience };
        try
        {
            using var response = await http.GetAsync(new Uri(address, "/health/ready"), cancellationToken);
            var report = await response.Content.ReadFromJsonAsync<ReadinessReport>(cancellationToken);
            if (json)
            {
                JsonOutput.Write(report);
                return response.IsSuccessStatusCode ? ExitCode.Done : ExitCode.SomeFailed;
            }
            Console.WriteLine(report?.Status ?? "no answer");
            foreach (var cause in report?.Causes ?? [])
            {
                Console.WriteLine(cause);
            }
            return response.IsSuccessStatusCode ? ExitCode.Done : ExitCode.SomeFailed;
        }
        catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException or System.Text.Json.JsonException)
        {
            Console.WriteLine($"not ready: no answer from port {address.Port} ({exception.GetBaseException().Message})");
            return ExitCode.SomeFailed;
        }
    }
}
