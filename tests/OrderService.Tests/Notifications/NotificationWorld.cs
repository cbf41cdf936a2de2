using System.Collections.Concurrent;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Notifications;

/// <summary>A store, a clock that stands still, and a sender with some channels.</summary>
internal sealed class NotificationWorld : IAsyncDisposable
{
    public const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly OrderMetrics metrics;

    private NotificationWorld(TestStore store, AlertsOptions options, IReadOnlyList<INotificationChannel> channels)
    {
        Store = store;
        Options = options;
        metrics = new OrderMetrics(services.GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>());
        Channels = channels;
        Sender = AnotherSender();
        Queries = new AlertQueries(store.Database);
    }

    public static CancellationToken Stopping => TestContext.Current.CancellationToken;

    public TestStore Store { get; }
    public AlertsOptions Options { get; }
    public Troubles Troubles => field ??= new Troubles(Clock);
    public FakeTimeProvider Clock { get; } = new(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));
    public IReadOnlyList<INotificationChannel> Channels { get; }
    public NotificationSender Sender { get; }
    public AlertQueries Queries { get; }

    public static async Task<NotificationWorld> OpenAsync(AlertsOptions options, params INotificationChannel[] channels) => Over(await TestStore.OpenAsync(), options, channels);

    public static NotificationWorld Over(TestStore store, AlertsOptions options, params INotificationChannel[] channels) => new(store, options, channels);

    public static AlertContent Content(string subject = "Something failed - 1 order is stuck", string kind = AlertKind.First) => new()
    {
        Kind = kind,
        Subject = subject,
        Summary = "A message became a dead letter <script>alert(1)</script>.",
        Letters = 1,
        Incidents = [new AlertIncident("0123456789abcdef", "unknown_field", "A field is not known", "new", 1, 7, 7)],
        Held = new AlertHeld(1, 1, 1, [new AlertAmount("EUR", 9980, "99.80")], new DateTimeOffset(2026, 3, 1, 2, 0, 0, TimeSpan.Zero)),
        OrderIds = ["A-1"],
    };

    /// <summary>The sender of another process on the same store.</summary>
    public NotificationSender AnotherSender() => new(
        Store.Database, Channels, Microsoft.Extensions.Options.Options.Create(Options), metrics, Troubles, new StoreTime(Clock), Clock, NullLogger<NotificationSender>.Instance);

    public Task<long> AddAlertAsync(string subject = "Something failed - 1 order is stuck") =>
        Store.Database.WriteAsync(transaction => AlertsTable.AddAsync(transaction, Content(subject), "0123456789abcdef", Clock.GetUtcNow()), Stopping);

    /// <summary>One look at everything that is due.</summary>
    public async Task TickAsync()
    {
        await Sender.DispatchAsync(Stopping);
        foreach (var channel in Channels)
        {
            await Sender.SendDueAsync(channel, Stopping);
        }
    }

    /// <summary>The same as the service does it: what fails is said, and nothing waits for it.</summary>
    public async Task LookAsync()
    {
        foreach (var step in Sender.Steps)
        {
            await Sender.TryAsync(step, Stopping);
        }
    }

    public async Task<AlertDeliveryRecord> DeliveryAsync(string channel, long? alertId = null)
    {
        var alerts = await Queries.ListAsync(null, 100, Stopping);
        return alerts.First(alert => alertId is null || alert.Id == alertId).Deliveries.Single(delivery => delivery.Channel == channel);
    }

    public async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync();
        metrics.Dispose();
        await services.DisposeAsync();
    }
}

/// <summary>A channel that does what a test says.</summary>
internal sealed class ScriptedChannel(string name, Func<Alert, ChannelAnswer> answer) : INotificationChannel
{
    public string Name => name;

    /// <summary>Several senders may try at once.</summary>
    public ConcurrentQueue<long> Tried { get; } = new();

    public Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken)
    {
        Tried.Enqueue(alert.Id);
        return Task.FromResult(answer(alert));
    }
}
