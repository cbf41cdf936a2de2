using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Options;
using OrderService.Admin;
using OrderService.Configuration;
using OrderService.Customers;
using OrderService.Database;
using OrderService.Health;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>serve</c>: runs the service until it is told to stop.</summary>
internal static partial class ServeCommand
{
    public const string Name = "serve";

    private static readonly TimeSpan StorePatience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan OneMoment = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan LongestWait = TimeSpan.FromHours(1);

    /// <summary>How long health says, and alerts have time to tell, that the store was taken away. After that nothing of what is in hand can be finished.</summary>
    private static readonly TimeSpan LastWords = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan LostGracePeriod = TimeSpan.FromSeconds(3);

    public static Command Create(Action<ILoggingBuilder, IConfiguration> logging)
    {
        var roles = new Option<string>("--roles") { Description = "What this process does: orders, dead-letters, relay, api, separated by commas. Default: all of them (setting Roles)." };
        var wait = new Option<string>("--wait-for-store")
        {
            Description = "How long to wait while another process serves the SQLite store, or PostgreSQL is not there yet: 60s, 5m or 00:05:00. Default: 0s for the first, 30s for the second. For rolling restarts.",
        };
        var command = new Command(Name, "Runs the service: consumes orders, publishes events, parks dead letters, serves HTTP. Stops gracefully on SIGTERM or Ctrl-C.") { roles, wait };
        command.Validators.Add(result =>
        {
            if (result.ValueOf(wait) is { } text && Duration(text) is null)
            {
                result.AddError($"--wait-for-store takes a time of at most {LongestWait.TotalHours:0} hour: 60s, 5m or 00:05:00.");
            }
        });
        command.SetAction((parsed, _) => RunAsync(parsed.GetValue(roles), Duration(parsed.GetValue(wait) ?? "0s") ?? TimeSpan.Zero, logging));
        return command;
    }

    /// <summary>A time as people type it; null when it is none.</summary>
    internal static TimeSpan? Duration(string text)
    {
        var unit = text.Length == 0 ? ' ' : text[^1];
        TimeSpan? read = unit is 's' or 'm' && double.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) && number <= LongestWait.TotalSeconds
            ? unit == 's' ? TimeSpan.FromSeconds(number) : TimeSpan.FromMinutes(number)
            : text.Contains(':', StringComparison.Ordinal) && TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out var time) ? time : null;
        return read >= TimeSpan.Zero && read <= LongestWait ? read : null;
    }

    private static async Task<int> RunAsync(string? roles, TimeSpan wait, Action<ILoggingBuilder, IConfiguration> logging)
    {
        var settings = OrderServiceHost.LoadSettings(roles is null ? null : [new("Roles", roles)]);
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
        catch (StoreSettingsException exception)
        {
            // The first start's key is made beside the store: where the whole folder is closed, that is the sentence.
            var store = settings.Configuration.GetSection(StoreOptions.Section).Get<StoreOptions>() ?? new StoreOptions();
            StandardError.Say((store.UsesPostgres ? null : SqliteAccess.Problem(Path.GetFullPath(store.Path))) ?? exception.Message);
            return ExitCode.BadConfiguration;
        }
        await using (app.ConfigureAwait(false))
        {
            var log = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger("OrderService");
            // A terminal that closes, or a reload by habit, must not end the process without its drain.
            using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal =>
            {
                signal.Cancel = true;
                LogHangUp(log);
            });
            return await Commands.WithExitCodeAsync(() => ServeAsync(app, wait, log), CancellationToken.None);
        }
    }

    private static async Task<int> ServeAsync(WebApplication app, TimeSpan wait, ILogger log)
    {
        if (HealthSetup.TelemetryMistake(app.Services) is { } mistake)
        {
            StandardError.Say($"OpenTelemetry: {mistake}");
            return ExitCode.BadConfiguration;
        }
        var addresses = app.Services.GetRequiredService<Listeners>();
        await ClaimAsync(app.Services, wait, log);
        await MigrateAsync(app.Services, wait > StorePatience ? wait : StorePatience, log);
        await DeclareAsync(app.Services, log);
        var roles = app.Services.GetRequiredService<ServiceRoles>();
        try
        {
            await app.StartAsync();
        }
        catch (IOException exception) when (exception.InnerException is Microsoft.AspNetCore.Connections.AddressInUseException)
        {
            StandardError.Say(addresses.InUse(exception));
            return ExitCode.BadConfiguration;
        }
        LogStarted(log, roles, string.Join(", ", app.Urls));
        if (roles.Api)
        {
            TellFirstKey(app, log);
            TellWhoSeesPersonal(app, log);
            TellPlainHttp(app, log);
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
        var stopping = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var told = app.Lifetime.ApplicationStopping.Register(stopping.SetResult);
        var lost = app.Services.GetRequiredService<IDatabase>().Lost;
        await Task.WhenAny(stopping.Task, broken.Task, lost);
        if (lost.IsCompleted)
        {
            await EndWithoutStoreAsync(app, stopping.Task, log);
            return true;
        }
        try
        {
            await app.StopAsync();
        }
        catch (Exception) when (loops.Exists(entry => entry.loop.IsFaulted))
        {
            // The others finished what they had in hand; the broken station fails its stop as well, and has said why.
        }
        // The host stops by itself over some of them, so the signal may come later than the stop.
        return loops.Exists(entry => entry.loop.IsFaulted);
    }

    /// <summary>Nothing can be committed any more. For a moment health and alerts say why; a restart then finds every message in the broker, and what is left of the store.</summary>
    private static async Task EndWithoutStoreAsync(WebApplication app, Task stopping, ILogger log)
    {
        LogStoreLost(log, LastWords);
        var clock = app.Services.GetRequiredService<TimeProvider>();
        await Task.WhenAny(stopping, Task.Delay(LastWords, clock));
        using var patience = new CancellationTokenSource(LostGracePeriod, clock);
        try
        {
            await app.StopAsync(patience.Token);
        }
        catch (Exception exception) when (exception is OperationCanceledException or AggregateException)
        {
            // What is in hand goes back to the broker, as it would after a kill.
        }
    }

    private static IEnumerable<Task> LoopsOf(IHostedService service) => service switch
    {
        IStation station => station.Loops,
        BackgroundService { ExecuteTask: { } loop } => [loop],
        _ => [],
    };

    /// <summary>Where only one process may serve the store, this one does from here on, and says what it found there.</summary>
    private static async Task ClaimAsync(IServiceProvider services, TimeSpan patience, ILogger log)
    {
        var clock = services.GetRequiredService<TimeProvider>();
        var troubles = services.GetRequiredService<Troubles>();
        var began = clock.GetTimestamp();
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(200), clock);
        string? told = null;
        while (true)
        {
            try
            {
                var findings = await services.GetRequiredService<IDatabase>().ClaimAsync(CancellationToken.None);
                foreach (var (finding, number) in findings.Select((finding, index) => (finding, index + 1)))
                {
                    LogFound(log, finding);
                    troubles.Raise(new Trouble($"store:found-{number}", TroubleLevel.Notice, "The store is not as the service left it", finding) { Patience = TimeSpan.Zero });
                }
                return;
            }
            // Whoever only looks may have the lock in hand for an instant.
            catch (Exception exception) when (clock.GetElapsedTime(began) < (exception is StoreInUseException ? patience + OneMoment : exception is StoreUnavailableException ? StorePatience : TimeSpan.Zero))
            {
                if (told != exception.Message && (exception is not StoreInUseException || patience > TimeSpan.Zero))
                {
                    told = exception.Message;
                    LogWaitingForStore(log, told);
                }
            }
            await tick.WaitForNextTickAsync();
        }
    }

    /// <summary>Waits for a store that starts at the same moment, but not for ever: an orchestrator knows better what to do then.</summary>
    private static async Task MigrateAsync(IServiceProvider services, TimeSpan patience, ILogger log)
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
                // Before anybody reads what came back with a backup.
                await services.GetRequiredService<CustomerForgetting>().ApplyAgainAsync(stopping);
                return;
            }
            catch (StoreUnavailableException exception) when (clock.GetElapsedTime(began) < patience)
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

    /// <summary>
    /// To a terminal and never to the log: a log is kept and shipped, a key must not be. In a container standard error is the log, so there it is said where the key is.
    /// </summary>
    private static void TellFirstKey(WebApplication app, ILogger log)
    {
        if (app.Services.GetRequiredService<ApiKeyRing>().First is not { } key)
        {
            return;
        }
        var ends = key.Ends.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
        if (key.Ends <= app.Services.GetRequiredService<TimeProvider>().GetUtcNow())
        {
            LogFirstKeyEnded(log, ends, KeyCommand.HowToGoOn(key));
            return;
        }
        LogFirstKey(log, key.File, ends);
        if (!key.IsNew)
        {
            return;
        }
        const string Made = "No API key is configured, so this first start made one with all scopes.";
        if (Console.IsErrorRedirected)
        {
            StandardError.Say($"{Made} It is in {key.File}; orderservice key show prints it, with the address that signs a browser in.");
            return;
        }
        using var words = new StringWriter(CultureInfo.InvariantCulture);
        KeyCommand.Print(key, app.Services.GetRequiredService<IOptions<ApiOptions>>().Value, app.Services.GetRequiredService<LoadedSettings>().Configuration, words);
        StandardError.Say($"\n{Made} It is shown this once; orderservice key show prints it again.\n{words}");
    }

    /// <summary>Keys that see what is personal although nobody gave them the scope for it.</summary>
    private static void TellWhoSeesPersonal(WebApplication app, ILogger log)
    {
        var api = app.Services.GetRequiredService<IOptions<ApiOptions>>().Value;
        var seeing = api.Keys.Where(key => key.Scopes.Contains(Scopes.Read) && !key.Scopes.Contains(Scopes.Personal)).Select(key => key.Name).ToList();
        if (!api.RequirePersonalScope && seeing.Count > 0)
        {
            LogSeesPersonal(log, string.Join(", ", seeing));
        }
    }

    /// <summary>Keys and cookies that everybody on the way can read.</summary>
    private static void TellPlainHttp(WebApplication app, ILogger log)
    {
        if (Listeners.PlainHttp(app.Services.GetRequiredService<LoadedSettings>().Configuration, app.Services.GetRequiredService<IOptions<ApiOptions>>().Value) is { } finding)
        {
            LogPlainHttp(log, finding);
        }
    }

    [LoggerMessage(LogLevel.Warning, "{Finding}")]
    private static partial void LogPlainHttp(ILogger logger, string finding);

    [LoggerMessage(LogLevel.Warning, "The API keys {Names} see names, addresses and the bodies of dead letters without the scope personal. Give it to those that need it and set Api:RequirePersonalScope")]
    private static partial void LogSeesPersonal(ILogger logger, string names);

    [LoggerMessage(LogLevel.Warning, "Whoever has the key of the first start may do everything, until {Ends}; it is in {File}. Set Api:Keys for keys of your own")]
    private static partial void LogFirstKey(ILogger logger, string file, string ends);

    [LoggerMessage(LogLevel.Warning, "The key of the first start ended on {Ends}, and nobody can use the API: {Advice}")]
    private static partial void LogFirstKeyEnded(ILogger logger, string ends, string advice);

    [LoggerMessage(LogLevel.Information, "Started with the roles {Roles}, listening on {Addresses}")]
    private static partial void LogStarted(ILogger logger, ServiceRoles roles, string addresses);

    [LoggerMessage(LogLevel.Information, "Stopped: what was in hand is committed and acknowledged")]
    private static partial void LogStopped(ILogger logger);

    [LoggerMessage(LogLevel.Critical, "{Station} broke down, so the service stopped")]
    private static partial void LogBroken(ILogger logger, Exception exception, string station);

    [LoggerMessage(LogLevel.Critical, "The service can't go on without its store and stops in {Moment}; nothing more is acknowledged")]
    private static partial void LogStoreLost(ILogger logger, TimeSpan moment);

    [LoggerMessage(LogLevel.Warning, "{Finding}")]
    private static partial void LogFound(ILogger logger, string finding);

    [LoggerMessage(LogLevel.Information, "SIGHUP came and changes nothing; SIGTERM stops the service")]
    private static partial void LogHangUp(ILogger logger);

    [LoggerMessage(LogLevel.Warning, "Waiting for the store: {Reason}")]
    private static partial void LogWaitingForStore(ILogger logger, string reason);

    [LoggerMessage(LogLevel.Warning, "The broker {Broker} is out of reach and is tried again and again: {Reason}")]
    private static partial void LogBrokerOutOfReach(ILogger logger, string broker, string reason);
}
