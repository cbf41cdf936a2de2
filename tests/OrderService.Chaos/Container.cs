using System.Diagnostics;

namespace OrderService.Chaos;

/// <summary>A container of broker or database, as its engine's command line moves it.</summary>
internal readonly record struct Container(string Id)
{
    public Task KillAsync() => RunAsync("kill", "-s", "KILL", Id);

    public Task StopAsync() => RunAsync("stop", "-t", "20", Id);

    public Task StartAsync() => RunAsync("start", Id);

    public Task PauseAsync() => RunAsync("pause", Id);

    public Task ContinueAsync() => RunAsync("unpause", Id);

    /// <summary>Runs a program in it and returns what it printed.</summary>
    public Task<string> ExecuteAsync(params string[] command) => RunAsync(["exec", Id, .. command]);

    /// <summary>What the engine knows of it.</summary>
    public async Task<string> InspectAsync(string format) => (await RunAsync("inspect", "--format", format, Id)).Trim();

    /// <summary>Ends and removes it.</summary>
    public Task RemoveAsync() => RunAsync("rm", "--force", "--volumes", Id);

    private static Task<string> RunAsync(params string[] arguments) => Command.RunAsync("docker", arguments);
}

/// <summary>A program that must succeed.</summary>
internal static class Command
{
    /// <returns>What it printed.</returns>
    /// <exception cref="ChaosException">It did not; what it said is in the message.</exception>
    public static async Task<string> RunAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })
            ?? throw new ChaosException($"{program} did not start.");
        var output = process.StandardOutput.ReadToEndAsync();
        var error = await process.StandardError.ReadToEndAsync();
        var said = await output;
        await process.WaitForExitAsync();
        if (process.ExitCode != 0)
        {
            throw new ChaosException($"{program} {string.Join(' ', arguments)}: {error.Trim()}");
        }
        return said;
    }
}
