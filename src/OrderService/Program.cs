using OrderService.CommandLine;
using Serilog;
using Serilog.Formatting.Compact;

// A delivery comes in, is decoded, deduplicated and decided, appended, relayed, projected and notified; a dead letter is parked, notified, replayed.
// The stations are put together in OrderServiceHost; what can be typed is in CommandLine.
return await Commands.RunAsync(args, (logging, settings) =>
{
    // Sinks and levels belong to appsettings.json. Without any there, people get lines and programs get JSON.
    var log = new LoggerConfiguration().ReadFrom.Configuration(settings).Enrich.FromLogContext();
    if (!settings.GetSection("Serilog:WriteTo").GetChildren().Any())
    {
        log = Console.IsOutputRedirected
            ? log.WriteTo.Console(new CompactJsonFormatter())
            : log.WriteTo.Console(outputTemplate: "{Timestamp:HH:mm:ss} {Level:u3} {Message:lj}{NewLine}{Exception}", formatProvider: System.Globalization.CultureInfo.InvariantCulture);
    }
    logging.AddSerilog(log.CreateLogger(), dispose: true);
});
