using System.Diagnostics;
using OrderService.Store;

namespace OrderService.Bench.Contestants;

/// <summary>
/// The service itself, built by its own host, with one more listener for commits. The listener is called after the commit came back and after its deliveries were settled,
/// so the times it notes are a little later than the commits; never earlier.
/// </summary>
internal static class ServiceInProcess
{
    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var loaded = OrderServiceHost.LoadSettings([new("Roles", "orders,relay")]);
        if (loaded.Mistakes.Count > 0)
        {
            throw new BenchException(string.Join('\n', loaded.Mistakes));
        }
        await using var app = OrderServiceHost.Build(
            loaded,
            logging => logging.AddSimpleConsole().SetMinimumLevel(LogLevel.Warning),
            services => services.AddSingleton<Committed>(append =>
            {
                var now = Stopwatch.GetTimestamp();
                var numbers = new int[append.Events.Count];
                for (var index = 0; index < numbers.Length; index++)
                {
                    numbers[index] = Workload.NumberOf(append.Events[index].OrderId, []);
                }
                commits.Add(numbers, now);
            }));
        await app.Services.GetRequiredService<IDatabase>().MigrateAsync(stopping);
        await app.StartAsync(stopping);
        await Stop.WhenAskedAsync(stopping);
        await app.StopAsync(CancellationToken.None);
    }
}
