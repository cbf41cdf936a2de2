using System.Diagnostics;
using System.Globalization;

namespace OrderService.Tests.CommandLine;

/// <summary>Runs the built binary as a script would, in a folder of its own.</summary>
internal static class Binary
{
    /// <summary>A command that does not end, such as a start that should have been refused, fails its test.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    public static async Task<Result> RunAsync(string[] arguments, Dictionary<string, string>? environment = null, string? input = null)
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-cli-");
        var start = new ProcessStartInfo("dotnet")
        {
            WorkingDirectory = folder.FullName,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "orderservice.dll"));
        foreach (var argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }
        start.Environment["RabbitMq__Uri"] = "amqp://guest:guest@127.0.0.1:1/";
        foreach (var (name, value) in environment ?? [])
        {
            start.Environment[name] = value;
        }
        using var process = Process.Start(start)!;
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(Patience);
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        if (input is not null)
        {
            await process.StandardInput.WriteAsync(input);
        }
        process.StandardInput.Close();
        try
        {
            await process.WaitForExitAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"orderservice {string.Join(' ', arguments)} did not end within {Patience}: {await output}{await error}");
        }
        var result = new Result(process.ExitCode, await output, await error);
        folder.Delete(recursive: true);
        return result;
    }

    /// <summary>How much processor time a command takes: what a machine with other things to do does not stretch.</summary>
    public static async Task<TimeSpan> WorkAsync(string[] arguments, Dictionary<string, string> environment)
    {
        var start = new ProcessStartInfo("sh") { RedirectStandardOutput = true, WorkingDirectory = Path.GetTempPath() };
        // The second line of times is the children's user and system time, as 0m0.35s 0m0.08s.
        foreach (var argument in (string[])["-c", "dotnet \"$@\" >/dev/null 2>&1; times", "sh", Path.Combine(AppContext.BaseDirectory, "orderservice.dll"), .. arguments])
        {
            start.ArgumentList.Add(argument);
        }
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }
        using var process = Process.Start(start)!;
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        var children = output.Split('\n', StringSplitOptions.RemoveEmptyEntries)[1].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return children.Select(text => text.TrimEnd('s').Split('m'))
            .Select(parts => TimeSpan.FromSeconds((60 * int.Parse(parts[0], CultureInfo.InvariantCulture)) + double.Parse(parts[1], CultureInfo.InvariantCulture)))
            .Aggregate(TimeSpan.Zero, (sum, part) => sum + part);
    }

    public sealed record Result(int ExitCode, string Output, string Error)
    {
        public IReadOnlyList<string> ErrorLines => Error.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
    }
}
