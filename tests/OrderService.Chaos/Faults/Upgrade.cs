namespace OrderService.Chaos.Faults;

/// <summary>
/// A store with orders, early commands, dead letters and alerts of an older build is taken over by the one under trial. The older build is named by
/// <c>ORDERSERVICE_CHAOS_OLDER_BINARY</c>.
/// </summary>
internal static class Upgrade
{
    public const string Older = "ORDERSERVICE_CHAOS_OLDER_BINARY";

    public static Task<Verdict> RunAsync(World world, TrialOptions options) =>
        Environment.GetEnvironmentVariable(Older) is { Length: > 0 } older
            ? UsualTrial.RunAsync(world, options, TakeOverAsync, tells: false, startWith: older)
            : throw new ChaosException($"{Older} is not set: name the orderservice.dll of an older release build.");

    private static async Task<string> TakeOverAsync(Trial trial)
    {
        foreach (var service in trial.Services)
        {
            var older = await service.TextAsync("/openapi/v1.json");
            var code = await service.StopAsync(TimeSpan.FromSeconds(60));
            if (code != 0)
            {
                throw new ChaosException($"The older build ended with {code?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "a kill"}.");
            }
            service.Binary = null;
            service.Start();
            await service.UntilReadyAsync("the newer build is ready");
            if (older == await service.TextAsync("/openapi/v1.json"))
            {
                throw new ChaosException("Both builds describe themselves alike: nothing shows that one took over from the other.");
            }
        }
        return "another build serves the store";
    }
}
