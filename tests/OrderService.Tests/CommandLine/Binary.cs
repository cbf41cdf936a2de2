using System.Diagnostics;

namespace OrderService.Tests.CommandLine;

/// <summary>Runs the built binary as a script would, in a folder of its own.</summary>
internal static class Binary
{
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
        var watch = Stopwatch.StartNew();
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        if (input is not null)
        {
            await process.StandardInput.WriteAsync(input);
        }
        process.StandardInput.Close();
        try
        {
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
        var result = new Result(process.ExitCode, await output, await error, watch.Elapsed);
        folder.Delete(recursive: true);
        return result;
    }

    public sealed record Result(int ExitCode, string Output, string Error, TimeSpan Elapsed)
    {
        public IReadOnlyList<string> ErrorLines => Error.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
    }
}
