using System.CommandLine;
using System.Globalization;
using OrderService.Retention;

namespace OrderService.CommandLine;

/// <summary><c>retention</c>: says what is old enough to go, and takes it out.</summary>
internal static class RetentionCommands
{
    public static Command Create()
    {
        var dryRun = new Option<bool>("--dry-run") { Description = "Says what would go, by kind; takes nothing out. That is what the command does without it too." };
        var command = new Command("retention", "Says what is older than the settings under Retention keep it; retention run takes it out now.") { dryRun, Run() };
        command.SetAction((_, cancellationToken) => Commands.WithStationsAsync(CountAsync, cancellationToken));
        return command;
    }

    private static Command Run()
    {
        var dryRun = new Option<bool>("--dry-run") { Description = "Says what would go, by kind; takes nothing out." };
        var command = new Command("run", "Takes out what is old enough, as the service does by itself; it may go on running.") { dryRun };
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(parsed.GetValue(dryRun) ? CountAsync : RunAsync, cancellationToken));
        return command;
    }

    private static async Task<int> CountAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        foreach (var count in await stations.GetRequiredService<RetentionRound>().CountAsync(cancellationToken))
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{count.Kind,-22} {(count.Days is { } days ? $"{count.Rows,12:N0} older than {days} days would go" : "             kept for ever")}"));
        }
        return ExitCode.Done;
    }

    private static async Task<int> RunAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        IReadOnlyDictionary<string, long>? done;
        try
        {
            done = await stations.GetRequiredService<RetentionRound>().RunAsync(null, cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            await Console.Error.WriteLineAsync($"The archive can't be written to, and what is not archived was not taken out: {exception.Message}");
            return ExitCode.SomeFailed;
        }
        if (done is null)
        {
            await Console.Error.WriteLineAsync("Another instance takes old rows out at the moment; look again later: orderservice retention");
            return ExitCode.SomeFailed;
        }
        foreach (var (kind, rows) in done.Where(rows => rows.Value > 0))
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{kind,-22} {rows,12:N0} taken out"));
        }
        if (done.Values.All(rows => rows == 0))
        {
            Console.WriteLine("Nothing is old enough.");
        }
        return ExitCode.Done;
    }
}
