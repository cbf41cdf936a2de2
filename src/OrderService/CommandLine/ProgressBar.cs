using Spectre.Console;

namespace OrderService.CommandLine;

/// <summary>A bar for whoever sits before a terminal; nothing where the output goes elsewhere.</summary>
internal static class ProgressBar
{
    public static async Task<T> RunAsync<T>(string what, Func<IProgress<(long Done, long Total)>?, Task<T>> work)
    {
        if (Console.IsOutputRedirected)
        {
            return await work(null);
        }
        return await AnsiConsole.Progress().AutoClear(true).StartAsync(async progress =>
        {
            var task = progress.AddTask(what);
            return await work(new Progress<(long Done, long Total)>(now => (task.MaxValue, task.Value) = (Math.Max(1, now.Total), now.Done)));
        });
    }
}
