using System.CommandLine;
using System.CommandLine.Parsing;
using OrderService.Admin;
using OrderService.Configuration;
using OrderService.Database;
using OrderService.Health;
using OrderService.Observability;
using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary><c>serve</c>: runs the service until it is told to stop.</summary>
internal static partial class ServeCommand
{
    public const string Name = "serve";

    private static readonly TimeSpan StorePatience = TimeSpan.FromSeconds(30);

    public static Command Create(Action<ILoggingBuilder, IConfiguration> logging)
    {
        var roles = new Option<string>("--roles") { Description = "What this process does: orders, dead-letters, relay, api, separated by commas. Default: all of them (setting Roles)." };
        var command = new Command(Name, "Runs the service: consumes orders, publishes events, parks dead letters, serves HTTP. Stops gracefully on SIGTERM or Ctrl-C.") { roles };
        command.SetAction((parsed, _) => RunAsync(parsed.GetValue(roles), logging));
        return command;
    }

    private static async Task<int> RunAsync(string? roles, Action<ILoggingBuilder, IConfiguration> logging)
    {
        var settings = Settings.Load(roles is null ? null : [new("Roles", roles)]);
        if (!await Commands.ReportAsync(settings))
        {
            return ExitCode.BadConfiguration;
        }
        WebApplication app;
        try
        {
            app = OrderServiceHost.Build(settings, builder => logging(builder, settings.Configuration));
        }
        catch (LogSettingsException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.BadConfiguration;
        }
        await using (app.ConfigureAwait(false))
        {
            var log = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger("OrderService");
            return await Commands.WithExitCodeAsync(() => ServeAsync(app, log), CancellationToken.None);
        }
    }

    private static async Task<int> ServeAsync(WebApplication app, ILogger log)
    {
        if (HealthSetup.TelemetryMistake(app.Services) is { } mistake)
        {
            StandardError.Say($"OpenTelemetry: {mistake}");
            return ExitCode.BadConfiguration;
        }
        await MigrateAsync(app.Services, log);
        await DeclareAsync(app.Services, log);
        var roles = app.Services.GetRequiredService<ServiceRoles>();
        try
        {
            await app.StartAsync();
        }
        catch (IOException exception) when (exception.InnerException is Microsoft.AspNetCore.Connections.AddressInUseException)
        {
            StandardError.Say($"Urls: {exception.InnerException.Message}");
            return ExitCode.BadConfiguration;
        }
        LogStarted(log, roles, string.Join(", ", app.Urls));
        if (roles.Api)
        {
            PrintFirstKey(app);
        }
        if (await BreaksDownAsync(app, log))
        {
            return ExitCode.Broken;
        }
        LogStopped(log);
        return ExitCode.Done;
    }

    /// <summary>Runs until the service was told to stop and has stopped, or a station broke down.</summary>
    /// <returns>Whether one broke down.</returns>
    private static async Task<bool> BreaksDownAsync(WebApplication app, ILogger log)
    {
        var broken = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var loops = app.Services.GetServices<IHostedService>().SelectMany(service => LoopsOf(service).Select(loop => (loop, service.GetType().Name))).ToList();
        foreach (var (loop, name) in loops)
        {
            _ = loop.ContinueWith(
                ended =>
                {
                    LogBroken(log, ended.Exception!.GetBaseException(), name);
                    broken.TrySetResult();
                },
                CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted | TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        }
        var stopped = app.WaitForShutdownAsync();
        await Task.WhenAny(stopped, broken.Task);
        app.Lifetime.StopApplication();
        try
        {
            await stopped;
        }
        catch (Exception) when (loops.Exists(entry => entry.loop.IsFaulted))
        {
            // The others finished what they had in hand; the broken station fails its stop as well, and has said why.
        }
        // The host stops by itself over some of them, so the signal may come later than the stop.
        return loops.Exists(entry => entry.loop.IsFaulted);
    }

    private static IEnumerable<Task> LoopsOf(IHostedService service) => service switch
    {
        IStation station => station.Loops,
        BackgroundService { ExecuteTask: { } loop } => [loop],
        _ => [],
    };

    /// <summary>Waits for a store that starts at the same moment, but not for ever: an orchestrator knows better what to do then.</summary>
    private static async Task MigrateAsync(IServiceProvider services, ILogger log)
    {
        var clock = services.GetRequiredService<TimeProvider>();
        var stopping = services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping;
        var began = clock.GetTimestamp();
        using var tick = new PeriodicTimer(TimeSpan.FromSeconds(1), clock);
        while (true)
        {
            try
            {
                await services.GetRequiredService<IDatabase>().MigrateAsync(stopping);
                return;
            }
            catch (StoreUnavailableException exception) when (clock.GetElapsedTime(began) < StorePatience)
            {
                LogWaitingForStore(log, exception.Message);
            }
            await tick.WaitForNextTickAsync(stopping);
        }
    }

    /// <summary>
    /// A queue with other arguments ends the start with the sentence that mends it. A broker that is out of reach does not:
    /// the subscriptions go on trying, and readiness says so.
    /// </summary>
    private static async Task DeclareAsync(IServiceProvider services, ILogger log)
    {
        try
        {
            await using var connection = await services.GetRequiredService<BrokerConnector>().OpenAsync("topology", CancellationToken.None);
            await services.GetRequiredService<Topology>().DeclareAsync(connection, CancellationToken.None);
        }
        catch (Exception exception) when (exception is not TopologyMismatchException)
        {
            LogBrokerOutOfReach(log, services.GetRequiredService<BrokerConnector>().Redacted, exception.GetBaseException().Message);
        }
    }

    // To the console itself and never to the log: a log is kept and shipped, a key must not be.
    private static void PrintFirstKey(WebApplication app)
    {
        var keys = app.Services.GetRequiredService<ApiKeyRing>();
        if (keys is not { GeneratedKey: { } key, GeneratedKeyIsNew: true })
        {
            return;
        }
        var address = app.Urls.FirstOrDefault() ?? "http://localhost:8080";
        address = address.Replace("://+", "://localhost", StringComparison.Ordinal).Replace("://*", "://localhost", StringComparison.Ordinal)
            .Replace("://[::]", "://localhost", StringComparison.Ordinal).Replace("://0.0.0.0", "://localhost", StringComparison.Ordinal);
        StandardError.Say($"""

            No API key is configured, so this first start made one with all scopes. It is shown this once and kept in the file api-key beside the store.
              key      {key}
              sign in  {address}/#key={key}

            """);
    }

    [LoggerMessage(LogLevel.Information, "Started with the roles {Roles}, listening on {Addresses}")]
    private static partial void LogStarted(ILogger logger, ServiceRoles roles, string addresses);

    [LoggerMessage(LogLevel.Information, "Stopped: what was in hand is committed and acknowledged")]
    private static partial void LogStopped(ILogger logger);

    [LoggerMessage(LogLevel.Critical, "{Station} broke down, so the service stopped")]
    private static partial void LogBroken(ILogger logger, Exception exception, string station);

    [LoggerMessage(LogLevel.Warning, "Waiting for the store: {Reason}")]
    private static partial void LogWaitingForStore(ILogger logger, string reason);

    [LoggerMessage(LogLevel.Warning, "The broker {Broker} is out of reach and is tried again and again: {Reason}")]
    private static partial void LogBrokerOutOfReach(ILogger logger, string broker, string reason);
}
