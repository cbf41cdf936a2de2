using System.Globalization;

namespace OrderService.Chaos.Faults;

/// <summary>A process of the service is killed, frozen or stopped.</summary>
internal static class ProcessFaults
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        Fault.Usual("killed", "F27", "An instance is killed and starts again, eight times.", KillAsync),
        Fault.Usual("frozen", "F29", "An instance is frozen for 25 s, longer than its leases last.", FreezeAsync),
        new("out-of-memory", "F31", "The kernel kills an instance at its container's limit of 256 MiB, five times.", RunInContainerAsync)
            { Needs = Service.RuntimeImage },
        Fault.Usual("stopped", "F30", "An instance is stopped as a container is stopped, five times.", StopAsync),
    ];

    private static async Task<string> KillAsync(Trial trial)
    {
        const int Kills = 8;
        for (var kill = 0; kill < Kills; kill++)
        {
            var service = Any(trial);
            await service.UntilReadyAsync("the instance is ready before it is killed");
            await Trial.LastAsync(0.2 + (2 * trial.World.Random.NextDouble()));
            await service.KillAsync();
            service.Start();
        }
        return string.Create(CultureInfo.InvariantCulture, $"{Kills} kills of an instance that was ready");
    }

    private static Task<Verdict> RunInContainerAsync(World world, TrialOptions options) =>
        UsualTrial.RunAsync(world, options, RunOutOfMemoryAsync, tells: false, memoryLimit: 256);

    private static async Task<string> RunOutOfMemoryAsync(Trial trial)
    {
        const int Times = 5;
        for (var time = 0; time < Times; time++)
        {
            var service = Any(trial);
            await service.UntilReadyAsync("the instance is ready before its memory is taken");
            await Trial.LastAsync(0.2 + (2 * trial.World.Random.NextDouble()));
            await service.RunOutOfMemoryAsync();
            service.Start();
        }
        return $"{Times} times the kernel killed an instance that was ready (exit code 137, OOMKilled)";
    }

    private static async Task<string> FreezeAsync(Trial trial)
    {
        await trial.Service.SignalAsync("STOP");
        await Trial.LastAsync(25);
        var answered = await trial.Service.HealthAsync();
        await trial.Service.SignalAsync("CONT");
        return answered is null ? "it answered nobody" : throw new ChaosException("A frozen process answered.");
    }

    private static async Task<string> StopAsync(Trial trial)
    {
        for (var stop = 0; stop < 5; stop++)
        {
            var service = Any(trial);
            await service.UntilReadyAsync("the instance is ready before it is stopped");
            await Trial.LastAsync(0.2 + (2 * trial.World.Random.NextDouble()));
            var code = await service.StopAsync(TimeSpan.FromSeconds(30));
            if (code != 0)
            {
                trial.Violations.Add(new Violation("a stop ends well within its grace", code is { } other ? $"exit code {other}" : "it had to be killed after 30 s"));
            }
            service.Start();
        }
        return "5 stops of an instance that was ready";
    }

    private static Service Any(Trial trial) => trial.Services[trial.World.Random.Next(trial.Services.Count)];
}
