using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.DeadLetters;

public static class DeadLettersSetup
{
    /// <summary>Registers parking, queries and replay; <see cref="AddDeadLetterProcessing"/> hosts the intake. Needs the options of <see cref="Notifications.AlertsOptions"/>.</summary>
    public static IServiceCollection AddDeadLetters(this IServiceCollection services)
    {
        services.AddOptions<DeadLettersOptions>().BindConfiguration(DeadLettersOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<DeadLettersOptions>, DeadLettersOptionsValidator>();
        services.AddSingleton<DeadLetterParking>();
        services.AddSingleton<DeadLetterQueries>();
        services.AddSingleton<DeadLetterReplay>();
        services.AddSingleton<ReplayRefused>(provider => provider.GetRequiredService<DeadLetterReplay>().RefusedAsync);
        services.AddSingleton<DeadLetterDiscards>();
        services.AddSingleton<ReplayForecast>();
        services.AddSingleton<ReplayJobs>();
        services.AddSingleton<QueueDepthReading>(provider =>
        {
            var monitor = provider.GetRequiredService<QueueMonitor>();
            return () => monitor.Orders?.Ready;
        });
        services.AddSingleton<IntakeReading>(provider =>
        {
            var watch = provider.GetRequiredService<IntakeWatch>();
            return () => watch.WhyPaused;
        });
        services.AddSingleton<UnreadableReading>(provider =>
        {
            var monitor = provider.GetRequiredService<QueueMonitor>();
            return () => monitor.Depths.FirstOrDefault(depth => depth.Queue == TopologyNames.Unreadable);
        });
        services.AddSingleton<ClockSteps>();
        services.AddSingleton<IncidentStates>();
        services.AddSingleton<DeadLetterIntake>();
        return services;
    }

    /// <summary>Watches the clock that deadlines are judged by, in every process that writes or judges them.</summary>
    public static IServiceCollection AddClockSteps(this IServiceCollection services) => services.AddHostedService(provider => provider.GetRequiredService<ClockSteps>());

    /// <summary>Tells of messages that nobody can read, in any process: each of them reads the queues' depths.</summary>
    public static IServiceCollection AddUnreadableLetters(this IServiceCollection services) => services.AddHostedService<UnreadableLetters>();

    /// <summary>Consumes the dead-letter queue in this process, looks for letters that never came, gives up commands whose order never came, and tells of all of them.</summary>
    public static IServiceCollection AddDeadLetterProcessing(this IServiceCollection services)
    {
        services.AddSingleton(provider =>
        {
            var letters = provider.GetRequiredKeyedService<QueueSubscription>(TopologyNames.DeadLetters);
            return new IntakeValve(TopologyNames.DeadLetters, letters.Pause, letters.Resume, () => letters.State.InHand);
        });
        services.AddHostedService<DeadLetterNotifier>();
        services.AddHostedService<MissingLetters>();
        services.AddHostedService<PlainLetters>();
        services.AddHostedService<ReplayJobRunner>();
        services.AddHostedService<OverdueCommands>();
        services.AddHostedService(provider => provider.GetRequiredService<DeadLetterIntake>());
        return services;
    }
}
