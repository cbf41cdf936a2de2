using Microsoft.Extensions.Options;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.RabbitMq;

namespace OrderService.DeadLetters;

/// <summary>Says while messages lie in <c>orders.unreadable</c>, which nobody consumes.</summary>
public sealed class UnreadableLetters(UnreadableReading read, Troubles troubles, IOptions<AlertsOptions> options, TimeProvider clock) : BackgroundService
{
    private const string Key = "unreadable";

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AtOnceAsync(options.Value.PollInterval, clock, _ =>
        {
            Look();
            return Task.CompletedTask;
        }, stoppingToken);

    internal void Look()
    {
        switch (read())
        {
            case { Exists: true, Ready: > 0 and var letters }:
                troubles.Raise(new Trouble(
                    Key,
                    TroubleLevel.Degraded,
                    letters == 1 ? "1 message can't be read and is held in the broker" : FormattableString.Invariant($"{letters:N0} messages can't be read and are held in the broker"),
                    FormattableString.Invariant($"{letters} messages that the service can't read lie in {TopologyNames.Unreadable}, and nothing happens to them until somebody takes them out."),
                    "See docs/operations.md, Unreadable messages: look at each, send its body to the queue orders again without the header, then take it out.")
                {
                    Patience = TimeSpan.Zero,
                    Size = letters,
                });
                break;
            case { Exists: true }:
                troubles.Clear(Key);
                break;
        }
    }
}

/// <summary>The newest reading of <c>orders.unreadable</c>; null before the first.</summary>
public delegate QueueDepth? UnreadableReading();
