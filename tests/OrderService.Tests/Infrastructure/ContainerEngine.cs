using System.Diagnostics;

namespace OrderService.Tests.Infrastructure;

/// <summary>Finds the container engine and prepares Testcontainers for it, so that tests run the same from <c>eng/test</c>, from an IDE and by hand.</summary>
public static class ContainerEngine
{
    /// <summary>eng/test removes by this label what a crashed run left behind.</summary>
    public const string RunLabel = "orderservice.run";

    private static readonly Lazy<Task<string?>> Problem = new(PrepareAsync);

    public static string Run { get; } = Environment.GetEnvironmentVariable("ORDERSERVICE_TEST_RUN") ?? "by-hand";

    /// <summary>Skips the test when there is no engine; fails it where ORDERSERVICE_TESTS_REQUIRE_ENGINE is 1. Call it before any type of Testcontainers is touched.</summary>
    public static async Task RequireAsync()
    {
        if (await Problem.Value is not { } problem)
        {
            return;
        }

        if (Environment.GetEnvironmentVariable("ORDERSERVICE_TESTS_REQUIRE_ENGINE") == "1")
        {
            Assert.Fail($"A container engine is required: {problem}");
        }

        Assert.Skip($"No container engine: {problem}");
    }

    /// <summary>The image the environment names, else the one <c>eng/engine</c> builds when it is there, else the published one.</summary>
    public static async Task<string> ImageAsync(string variable, string built, string published)
    {
        if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } named)
        {
            return named;
        }

        (var exitCode, _) = await DockerAsync("image", "inspect", "--format", "{{.Id}}", built);
        return exitCode == 0 ? built : published;
    }

    /// <summary>SIGKILL to a container's process; the container stays and can be started again.</summary>
    public static async Task KillAsync(string containerId)
    {
        (var exitCode, var output) = await DockerAsync("kill", "--signal", "KILL", containerId);
        Assert.True(exitCode == 0, output);
    }

    /// <summary>Starts a container again that was killed or stopped.</summary>
    public static async Task StartAgainAsync(string containerId)
    {
        (var exitCode, var output) = await DockerAsync("start", containerId);
        Assert.True(exitCode == 0, output);
    }

    private static async Task<string?> PrepareAsync()
    {
        try
        {
            (var exitCode, var output) = await DockerAsync("version", "--format", "{{.Server.APIVersion}}");
            if (exitCode != 0)
            {
                return output.Trim();
            }

            // Testcontainers asks for a newer interface than older engines have.
            SetDefault("DOCKER_API_VERSION", output.Trim());
            SetDefault("TESTCONTAINERS_RYUK_DISABLED", "true");
            if (File.Exists("/.dockerenv"))
            {
                SetDefault("TESTCONTAINERS_HOST_OVERRIDE", "localhost");
            }

            return null;
        }
        catch (Exception exception) when (exception is System.ComponentModel.Win32Exception or OperationCanceledException)
        {
            return exception.Message;
        }
    }

    private static void SetDefault(string variable, string value)
    {
        if (string.IsNullOrEmpty(Environment.GetEnvironmentVariable(variable)))
        {
            Environment.SetEnvironmentVariable(variable, value);
        }
    }

    /// <summary>Runs a command of the engine, within a minute.</summary>
    public static async Task<(int ExitCode, string Output)> DockerAsync(params string[] arguments)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        using var process = Process.Start(new ProcessStartInfo("docker", arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = process.StandardOutput.ReadToEndAsync(deadline.Token);
        var errors = process.StandardError.ReadToEndAsync(deadline.Token);
        await process.WaitForExitAsync(deadline.Token);
        return (process.ExitCode, process.ExitCode == 0 ? await output : await errors);
    }
}
