using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using OrderService.Configuration;
using OrderService.Observability;
using Serilog;
using Serilog.Configuration;
using Serilog.Core;
using Serilog.Debugging;
using Serilog.Events;
using Serilog.Formatting.Compact;
using Serilog.Sinks.Async;
using ILogger = Serilog.ILogger;

namespace OrderService;

/// <summary>
/// Where log lines go: levels and sinks belong to <c>appsettings.json</c>, as the library has it. Between the stations and each sink lies a queue of its own, with an end:
/// a sink that is slow, or a pipe that nobody reads, costs lines and never work.
/// </summary>
internal static class ServiceLog
{
    /// <summary>Lines that wait for one sink.</summary>
    private const int Room = 5000;

    private const string Section = "Serilog";

    /// <summary>How long a stop waits for the sinks.</summary>
    internal static readonly TimeSpan FlushTimeout = TimeSpan.FromSeconds(2);

    // As the library's reader has them.
    private static readonly string[] Members =
        ["Using", "LevelSwitches", "FilterSwitches", "MinimumLevel", "WriteTo", "AuditTo", "Enrich", "Filter", "Destructure", "Properties"];

    private static readonly string[] SinkLists = ["WriteTo", "AuditTo"];

    // What the library itself offers beside the sinks of its packages.
    private static readonly string[] Wrappers = ["Logger", "Sink", "Conditional", "FallbackChain", "Fallible"];

    /// <summary>Makes the log that <paramref name="settings"/> describe.</summary>
    /// <exception cref="LogSettingsException">Something in them has no effect: a line would be missed without a word.</exception>
    public static void Add(ILoggingBuilder logging, IConfiguration settings)
    {
        var complaints = new List<string>();
        SelfLog.Enable(text =>
        {
            lock (complaints)
            {
                complaints.Add(text);
            }
        });
        var lines = new LogLines();
        ILogger log;
        try
        {
            var queues = Queues(settings);
            lines.CountedBy(() => queues.Dropped + queues.Lost);
            log = new LoggerConfiguration().ReadFrom.Configuration(Without(settings, SinkLists)).Enrich.FromLogContext().WriteTo.Sink(queues).CreateLogger();
            queues.TellWith(log);
        }
        catch (Exception exception) when (exception is not LogSettingsException)
        {
            throw new LogSettingsException([$"{Section}: {exception.GetBaseException().Message}"]);
        }
        finally
        {
            SelfLog.Enable(new Complaints().Say);
        }
        string[] mistakes;
        lock (complaints)
        {
            // Of a file that can't be opened the library has something to say as well.
            string[] closed = [.. ClosedFiles(settings)];
            mistakes = closed.Length > 0 ? closed : [.. complaints.Select(text => $"{Section}: {FirstLine(text)}")];
        }
        if (mistakes.Length > 0)
        {
            throw new LogSettingsException(mistakes);
        }
        logging.AddSerilog(log, dispose: true);
        logging.Services.AddSingleton(lines);
    }

    /// <summary>What can be told from the settings alone, for every command.</summary>
    public static IEnumerable<string> Mistakes(IConfiguration settings)
    {
        var section = settings.GetSection(Section);
        foreach (var member in section.GetChildren().Where(child => !Members.Contains(child.Key, StringComparer.OrdinalIgnoreCase)))
        {
            yield return $"{member.Path}: unknown setting{(Spelling.Nearest(member.Key, Members) is { } nearest ? $", did you mean {Section}:{nearest}?" : $"; there are {string.Join(", ", Members)}.")}";
        }
        var sinks = SinkLists.SelectMany(list => Sinks(section.GetSection(list))).ToList();
        if (sinks.Count == 0)
        {
            yield break;
        }
        var known = KnownSinks(section);
        foreach (var (key, name) in sinks.Where(sink => !known.Contains(sink.Name) && !Wrappers.Contains(sink.Name, StringComparer.OrdinalIgnoreCase)))
        {
            yield return $"{key}: there is no sink '{name}' in this program; there are {string.Join(", ", known.Order(StringComparer.Ordinal))}{(Spelling.Nearest(name, known) is { } nearest ? $", did you mean {nearest}?" : ".")}";
        }
    }

    /// <summary>
    /// The event as any sink may write it. What a producer or a caller sent moves no cursor and begins no line of its own: control characters and those that turn the direction of text
    /// become their code. Of an exception that is not this service's own the message is left out, because it can quote what failed.
    /// </summary>
    internal static LogEvent Safe(LogEvent logEvent)
    {
        var exception = logEvent.Exception is { } thrown and not QuietException ? new QuietException(thrown) : logEvent.Exception;
        if (exception == logEvent.Exception && !logEvent.Properties.Values.Any(value => value is ScalarValue { Value: string text } && text.Any(IsActive)))
        {
            return logEvent;
        }
        return LogEvent.UnstableAssembleFromParts(
            logEvent.Timestamp, logEvent.Level, exception, logEvent.MessageTemplate,
            logEvent.Properties.ToDictionary(property => property.Key, property => property.Value is ScalarValue { Value: string text } ? new ScalarValue(Plain(text)) : property.Value),
            logEvent.TraceId ?? default, logEvent.SpanId ?? default);
    }

    /// <summary>Several messages are decided together, with no span current: a line about one of them is of that one's trace.</summary>
    private static LogEvent OfMessage(LogEvent logEvent) => Tracing.OfLines is var trace && trace == default
        ? logEvent
        : LogEvent.UnstableAssembleFromParts(
            logEvent.Timestamp, logEvent.Level, logEvent.Exception, logEvent.MessageTemplate, logEvent.Properties.ToDictionary(), trace.TraceId, trace.SpanId);

    private static bool IsActive(char character) =>
        char.IsControl(character) || CharUnicodeInfo.GetUnicodeCategory(character) is UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator;

    private static string Plain(string text) => text.Any(IsActive)
        ? string.Concat(text.Select(character => IsActive(character) ? string.Create(CultureInfo.InvariantCulture, $"\\u{(int)character:x4}") : character.ToString()))
        : text;

    private static SinkQueues Queues(IConfiguration settings)
    {
        var queues = new SinkQueues(CollectorLog.Of(settings));
        // Each sink has its own queue: one that stands still keeps no other from its lines.
        foreach (var list in SinkLists)
        {
            foreach (var sink in settings.GetSection(Section).GetSection(list).GetChildren())
            {
                queues.Add(new LoggerConfiguration().MinimumLevel.Verbose().ReadFrom.Configuration(Only(settings, sink)).CreateLogger());
            }
        }
        if (!settings.GetSection($"{Section}:WriteTo").GetChildren().Any())
        {
            // Without any there, people get lines and programs get JSON.
            var console = new LoggerConfiguration().MinimumLevel.Verbose();
            queues.Add((Console.IsOutputRedirected
                ? console.WriteTo.Console(new CompactJsonFormatter())
                : console.WriteTo.Console(outputTemplate: "{Timestamp:HH:mm:ss} {Level:u3} {Message:lj}{NewLine}{Exception}", formatProvider: CultureInfo.InvariantCulture)).CreateLogger());
        }
        return queues;
    }

    private static IConfigurationRoot Without(IConfiguration settings, string[] members) => Where(settings, key => !members.Any(member => IsUnder(key, $"{Section}:{member}")));

    // A sink may refer to switches and to settings elsewhere; levels and enrichers have been at work before.
    private static IConfigurationRoot Only(IConfiguration settings, IConfigurationSection sink) => Where(settings, key =>
        !IsUnder(key, Section) || IsUnder(key, sink.Path) || ((string[])["Using", "LevelSwitches", "FilterSwitches"]).Any(member => IsUnder(key, $"{Section}:{member}")));

    private static IConfigurationRoot Where(IConfiguration settings, Func<string, bool> isTaken) =>
        new ConfigurationBuilder().AddInMemoryCollection(settings.AsEnumerable().Where(pair => pair.Value is not null && isTaken(pair.Key))).Build();

    private static bool IsUnder(string key, string parent) =>
        key.Equals(parent, StringComparison.OrdinalIgnoreCase) || key.StartsWith(parent + ":", StringComparison.OrdinalIgnoreCase);

    /// <summary>The sinks of a list and of the sinks that wrap others, with the keys of their names.</summary>
    private static IEnumerable<(string Key, string Name)> Sinks(IConfigurationSection list)
    {
        foreach (var sink in list.GetChildren())
        {
            if ((sink["Name"] ?? sink.Value) is not { } name)
            {
                yield return (sink.Path, "");
                continue;
            }
            yield return (sink["Name"] is null ? sink.Path : sink.Path + ":Name", name);
            var inner = ((string[])["Args:configure", "Args:configureLogger:WriteTo", "Args:configureSink"]).SelectMany(path => Sinks(sink.GetSection(path)));
            foreach (var found in inner)
            {
                yield return found;
            }
        }
    }

    private static HashSet<string> KnownSinks(IConfigurationSection section)
    {
        var assemblies = Directory.EnumerateFiles(AppContext.BaseDirectory, "*Serilog*.dll").Select(file => Path.GetFileNameWithoutExtension(file)!)
            .Concat(section.GetSection("Using").GetChildren().Select(child => child.Value ?? ""));
        return new(assemblies.SelectMany(SinksIn), StringComparer.OrdinalIgnoreCase);
    }

    private static IEnumerable<string> SinksIn(string assembly)
    {
        try
        {
            return [.. Assembly.Load(assembly).GetExportedTypes()
                .Where(type => type is { IsAbstract: true, IsSealed: true })
                .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Static))
                .Where(method => method.IsDefined(typeof(ExtensionAttribute)) && method.GetParameters() is [var first, ..]
                    && (first.ParameterType == typeof(LoggerSinkConfiguration) || first.ParameterType == typeof(LoggerAuditSinkConfiguration)))
                .Select(method => method.Name)];
        }
        catch (Exception exception) when (exception is IOException or BadImageFormatException or ArgumentException or TypeLoadException)
        {
            // The library says so when it looks for it.
            return [];
        }
    }

    /// <summary>Files that can't be written. A file that rolls is opened at its first line only, which is too late to be told.</summary>
    private static IEnumerable<string> ClosedFiles(IConfiguration settings)
    {
        foreach (var (key, value) in settings.GetSection(Section).AsEnumerable())
        {
            if (value is null || !key.EndsWith(":Args:path", StringComparison.OrdinalIgnoreCase) || !"File".Equals(settings[key[..^":Args:path".Length] + ":Name"], StringComparison.OrdinalIgnoreCase))
            {
                continue;
            }
            var path = Path.GetFullPath(Environment.ExpandEnvironmentVariables(value));
            string? mistake = null;
            try
            {
                var probe = Path.Combine(Directory.CreateDirectory(Path.GetDirectoryName(path)!).FullName, $".{Path.GetFileName(path)}.{Environment.ProcessId}");
                new FileStream(probe, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Options = FileOptions.DeleteOnClose }).Dispose();
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                mistake = $"{key}: {path} can't be written by the user {Environment.UserName}: {exception.Message}";
            }
            if (mistake is not null)
            {
                yield return mistake;
            }
        }
    }

    // "2026-11-26T... Unable to ..." with a stack trace behind it.
    private static string FirstLine(string text)
    {
        var line = text.Split('\n', 2)[0].TrimEnd();
        var blank = line.IndexOf(' ', StringComparison.Ordinal);
        return blank > 0 && DateTime.TryParse(line[..blank], CultureInfo.InvariantCulture, DateTimeStyles.None, out _) ? line[(blank + 1)..] : line;
    }

    /// <summary>What the library complains of while it works goes to standard error: ten in ten seconds, so that a full disk does not become a flood.</summary>
    private sealed class Complaints
    {
        private const int Most = 10;
        private static readonly TimeSpan Span = TimeSpan.FromSeconds(10);

        private readonly Lock gate = new();
        private long began;
        private int said;
        private long leftOut;

        public void Say(string text)
        {
            lock (gate)
            {
                if (said > 0 && TimeProvider.System.GetElapsedTime(began) >= Span)
                {
                    said = 0;
                }
                if (said == 0)
                {
                    began = TimeProvider.System.GetTimestamp();
                }
                if (said == Most)
                {
                    leftOut++;
                    return;
                }
                said++;
                StandardError.Say($"The log can't be written: {FirstLine(text)}{(leftOut > 0 ? $" ({leftOut} more before)" : "")}");
                leftOut = 0;
            }
        }
    }

    /// <summary>The queues before the sinks, as one sink.</summary>
    private sealed class SinkQueues(CollectorLog? collector) : ILogEventSink, IDisposable
    {
        private static readonly TimeSpan Look = TimeSpan.FromSeconds(1);

        private readonly List<Queue> queues = [];
        private Timer? look;
        private ILogger? log;
        private long told;
        private long toldLost;

        public long Dropped => queues.Sum(queue => queue.Dropped);

        /// <summary>What the collector did not get.</summary>
        public long Lost => collector?.Lost ?? 0;

        public void Add(Logger sink)
        {
            var queue = new Queue(sink);
            queue.Before = new LoggerConfiguration().MinimumLevel.Verbose()
                .WriteTo.Async(after => after.Logger(sink), bufferSize: Room, blockWhenFull: false, monitor: queue).CreateLogger();
            queues.Add(queue);
        }

        /// <summary>Begins to tell of lines that were dropped, each time there is room again.</summary>
        public void TellWith(ILogger logger)
        {
            log = logger.ForContext(Constants.SourceContextPropertyName, nameof(OrderService));
            look = new Timer(_ => Tell(), null, Look, Look);
        }

        public void Emit(LogEvent logEvent)
        {
            var safe = OfMessage(Safe(logEvent));
            collector?.Emit(safe);
            foreach (var queue in queues)
            {
                queue.Before!.Write(safe);
            }
        }

        public void Dispose()
        {
            look?.Dispose();
            // What a sink does not take within the time is lost: the process ends all the same.
            Task.WaitAll([Task.Run(() => collector?.Dispose()), .. queues.Select(queue => Task.Run(queue.Dispose))], FlushTimeout);
        }

        private void Tell()
        {
            if (collector is { IsBehind: false, Lost: var lost } && lost > toldLost)
            {
                log!.Warning("{Lost} lines did not reach the collector. Work went on.", lost - toldLost);
                toldLost = lost;
            }
            var dropped = Dropped;
            if (dropped == told || queues.Exists(queue => queue.IsHalfFull))
            {
                return;
            }
            log!.Warning("{Dropped} lines are missing here: nobody took them from the log in time. Work went on.", dropped - told);
            told = dropped;
        }
    }

    private sealed class Queue(Logger sink) : IAsyncLogEventSinkMonitor, IDisposable
    {
        private IAsyncLogEventSinkInspector? inspector;
        private long dropped;

        public Logger? Before { get; set; }

        public long Dropped => inspector?.DroppedMessagesCount ?? dropped;

        public bool IsHalfFull => inspector is { } inside && inside.Count > inside.BufferSize / 2;

        public void StartMonitoring(IAsyncLogEventSinkInspector inside) => inspector = inside;

        public void StopMonitoring(IAsyncLogEventSinkInspector inside)
        {
            dropped = inside.DroppedMessagesCount;
            inspector = null;
        }

        public void Dispose()
        {
            Before?.Dispose();
            sink.Dispose();
        }
    }
}

/// <summary>The log would not be what the settings ask for; one sentence for each reason, with its key.</summary>
internal sealed class LogSettingsException(IReadOnlyList<string> mistakes) : Exception(string.Join('\n', mistakes));

/// <summary>An exception as the log shows it: types and frames, and messages of this service's own and of the network's, which quote nobody's input.</summary>
internal sealed class QuietException(Exception exception) : Exception
{
    public override string Message => Told(exception);

    public override string? StackTrace => exception.StackTrace;

    public override string ToString()
    {
        var text = new System.Text.StringBuilder();
        for (var inner = exception; inner is not null; inner = inner.InnerException)
        {
            text.Append(text.Length == 0 ? "" : "\n ---> ").Append(inner.GetType().FullName).Append(": ").Append(Told(inner)).Append('\n').Append(inner.StackTrace);
        }
        return text.ToString();
    }

    private static string Told(Exception exception) =>
        exception.GetType().Assembly == typeof(QuietException).Assembly || exception is IOException or System.Net.Sockets.SocketException or TimeoutException or OperationCanceledException
            ? string.Concat(exception.Message.Select(character => char.IsControl(character) ? ' ' : character))
            : "(its message is left out: it can quote what failed)";
}
