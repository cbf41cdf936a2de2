using System.Diagnostics;

namespace OrderService.Tests.Infrastructure;

/// <summary>Programs that some tests run: from PATH, or as <c>eng/tools</c> unpacked them.</summary>
internal static class Tool
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    /// <summary>The folder that <c>eng/tools</c> unpacks into.</summary>
    public static string Folder { get; } = Repository.PathOf("artifacts/tools");

    /// <summary>The program's path. Without it the test is skipped, or fails where ORDERSERVICE_TESTS_REQUIRE_ENGINE is 1, and says where to get it.</summary>
    public static string Require(string name, string source = "eng/tools unpacks it")
    {
        var folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Append(Path.Combine(Folder, "usr", "bin"));
        if (folders.Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists) is { } found)
        {
            return found;
        }
        if (Environment.GetEnvironmentVariable("ORDERSERVICE_TESTS_REQUIRE_ENGINE") == "1")
        {
            Assert.Fail($"There is no {name} here: {source}.");
        }
        Assert.Skip($"There is no {name} here: {source}.");
        return "";
    }

    /// <returns>Exit code, and what it wrote to both of its outputs.</returns>
    public static async Task<(int ExitCode, string Output)> RunAsync(
        string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null, string? folder = null)
    {
        var start = new ProcessStartInfo(program, arguments) { WorkingDirectory = folder ?? Repository.Root, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
        {
            start.Environment[name] = value;
        }
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        deadline.CancelAfter(Patience);
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEndAsync(deadline.Token);
        var errors = process.StandardError.ReadToEndAsync(deadline.Token);
        try
        {
            await process.WaitForExitAsync(deadline.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
        return (process.ExitCode, await output + await errors);
    }
}
