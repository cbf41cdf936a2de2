using OrderService.Admin;
using OrderService.Configuration;
using OrderService.Customers;
using OrderService.Database;
using OrderService.Deadlines;
using OrderService.DeadLetters;
using OrderService.Events;
using OrderService.Health;
using OrderService.Inbox;
using OrderService.Kafka;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.RabbitMq;
using OrderService.Retention;
using OrderService.Seals;
using OrderService.Store;

namespace OrderService;

/// <summary>
/// Puts the stations together: a delivery comes in, is decoded, deduplicated and decided, appended, relayed, projected and notified;
/// a dead letter is parked, notified, replayed.
/// </summary>
public static class OrderServiceHost
{
    /// <summary>How long a stop may take to commit and acknowledge what is in hand; container runtimes must wait longer than this.</summary>
    public static readonly TimeSpan DrainTimeout = TimeSpan.FromSeconds(30);

    /// <summary>Whose settings there are.</summary>
    internal static readonly SettingsRules Rules = new(
        new Dictionary<string, Type>(StringComparer.OrdinalIgnoreCase)
        {
            [StoreOptions.Section] = typeof(StoreOptions),
            [KeysOptions.Section] = typeof(KeysOptions),
            [SealsOptions.Section] = typeof(SealsOptions),
            [RabbitMqOptions.Section] = typeof(RabbitMqOptions),
            [InboxOptions.Section] = typeof(InboxOptions),
            [OrdersOptions.Section] = typeof(OrdersOptions),
            [OutboxOptions.Section] = typeof(OutboxOptions),
            [EventsOptions.Section] = typeof(EventsOptions),
            [DeadLettersOptions.Section] = typeof(DeadLettersOptions),
            [AlertsOptions.Section] = typeof(AlertsOptions),
            [OrderConfirmationOptions.Section] = typeof(OrderConfirmationOptions),
            [KafkaOptions.Section] = typeof(KafkaOptions),
            [RetentionOptions.Section] = typeof(RetentionOptions),
            [ApiOptions.Section] = typeof(ApiOptions),
        },
        AddStations,
        ServiceLog.Mistakes);

    /// <summary>Reads all settings and checks each, see <see cref="Settings.Load"/>.</summary>
    public static LoadedSettings LoadSettings(IEnumerable<KeyValuePair<string, string?>>? overrides = null, bool environmentVariables = true) =>
        Settings.Load(Rules, overrides, environmentVariables);

    /// <summary>Builds the service with everything its roles ask for; nothing runs and nothing connects yet.</summary>
    /// <param name="settings">Checked settings, see <see cref="LoadSettings"/>.</param>
    /// <param name="logging">Where log lines go.</param>
    /// <param name="more">What a program that hosts the service adds to it, such as one more listener for commits.</param>
    public static WebApplication Build(LoadedSettings settings, Action<ILoggingBuilder> logging, Action<IServiceCollection>? more = null)
    {
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions
        {
            ApplicationName = typeof(OrderServiceHost).Assembly.GetName().Name,
            // Settings and pages lie beside the binary; paths of data are taken from the working directory.
            ContentRootPath = AppContext.BaseDirectory,
            EnvironmentName = Settings.EnvironmentName,
        });
        builder.Configuration.Sources.Clear();
        builder.Configuration.AddConfiguration(settings.Configuration);
        // The listeners are ours to make. ASP.NET Core reads the same setting, from the environment too where it is empty, and would warn that it has no say: so there it is a list of nothing.
        builder.Configuration.AddInMemoryCollection([new(WebHostDefaults.ServerUrlsKey, ";")]);
        var listeners = new Listeners(settings.Configuration);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            HttpRules.Limit(kestrel);
            listeners.Add(kestrel);
        });
        builder.Services.AddSingleton(settings);
        builder.Services.AddSingleton(listeners);
        builder.Host.UseDefaultServiceProvider(provider => provider.ValidateOnBuild = provider.ValidateScopes = true);
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = DrainTimeout);
        builder.Logging.ClearProviders();
        logging(builder.Logging);

        var (roles, _) = ServiceRoles.Read(settings.Configuration);
        AddStations(builder.Services, builder.Configuration, roles);
        Host(builder.Services, builder.Configuration, roles);
        more?.Invoke(builder.Services);

        var app = builder.Build();
        var requests = Tracing.PropagateRequests();
        app.Lifetime.ApplicationStopped.Register(requests.Dispose);
        // Before the first order comes, so that readiness knows whether one could be published.
        if (roles.Relay)
        {
            app.Lifetime.ApplicationStarted.Register(app.Services.GetRequiredService<ConfirmedPublisher>().Start);
        }
        if (roles.Api)
        {
            app.Lifetime.ApplicationStarted.Register(app.Services.GetRequiredKeyedService<ConfirmedPublisher>(TopologyNames.Orders).Start);
        }
        app.UseAdminRules();
        if (roles.Api)
        {
            app.MapAdmin();
        }
        app.Use(Onlookers.Judge);
        app.MapHealth();
        return app;
    }

    /// <summary>Every station, ready to be used and not running: what the command line works with.</summary>
    internal static void AddStations(IServiceCollection services, IConfiguration configuration, ServiceRoles roles)
    {
        services.AddSingleton(configuration);
        services.AddSingleton(roles);
        services.AddSingleton(TimeProvider.System);
        services.AddLogging();
        services.AddSingleton<Troubles>();
        services.AddStore(configuration);
        services.AddRabbitMq();
        services.AddInbox(configuration);
        services.AddOutbox();
        services.AddEvents();
        services.AddProjections();
        services.AddCustomers();
        services.AddRetention();
        services.AddSeals();
        services.AddKafka(configuration);
        services.AddDeadLetters();
        services.AddNotifications(configuration);
        services.AddHealth(configuration);
        services.AddAdmin(configuration);
    }

    /// <summary>What runs by itself. What is registered last stops first: the intake ends before what it feeds.</summary>
    private static void Host(IServiceCollection services, IConfiguration configuration, ServiceRoles roles)
    {
        // First in, last out: what goes wrong while the others stop is told as well.
        services.AddTroubleAlerts();
        services.AddIntakeWatch();
        if (roles.Orders || roles.DeadLetters)
        {
            // Before whoever writes, so that it stops after them.
            services.AddSealer();
        }
        services.AddHostedService(provider => provider.GetRequiredService<HealthWatch>());
        services.AddHostedService(provider => provider.GetRequiredService<QueueMonitor>());
        services.AddHostedService(provider => provider.GetRequiredService<StationReadings>());
        services.AddHostedService<BrokerWatch>();
        services.AddStoreBackups(configuration);
        services.AddUnreadableLetters();
        services.AddClockSteps();
        if (roles.Api)
        {
            services.AddHostedService<OldAnswers>();
            services.AddHostedService(provider => provider.GetRequiredService<Refusals>());
        }
        if (roles.Api || roles.DeadLetters)
        {
            services.AddHostedService(provider => provider.GetRequiredService<RightsWatch>());
        }
        if (roles.Relay)
        {
            services.AddOutboxRelay();
            services.AddStuckReport();
            services.AddOrderConfirmation(configuration, provider =>
            {
                // Whoever relays the first share of the streams also writes to customers: one instance of several.
                var relay = provider.GetRequiredService<OutboxRelay>();
                return () => relay.Shards.Contains(0);
            });
            services.AddKafkaEventStream(configuration, provider =>
            {
                var (relay, lease) = (provider.GetRequiredService<OutboxRelay>(), provider.GetRequiredService<IRelayLease>());
                return () => relay.Shards.Contains(0) && lease.IsCurrent;
            });
        }
        if (roles.DeadLetters)
        {
            services.AddRetentionWorker();
            services.AddNotificationSending();
            services.AddDeadLetterProcessing();
        }
        if (roles.Orders)
        {
            services.AddDeadlines(configuration);
            services.AddKafkaIntake(configuration);
            services.AddOrderConsumer();
        }
    }
}
