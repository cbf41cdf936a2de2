using Microsoft.Extensions.Options;
using OrderService.Inbox;

namespace OrderService.Kafka;

public static class KafkaSetup
{
    /// <summary>Registers the options and, when Kafka is switched on, what looks at the cluster. Nothing connects yet.</summary>
    public static IServiceCollection AddKafka(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<KafkaOptions>().BindConfiguration(KafkaOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<KafkaOptions>, KafkaOptionsValidator>();
        if (IsOn(configuration, "Enabled") || IsOn(configuration, "Intake:Enabled"))
        {
            services.AddSingleton<KafkaProbe>();
        }
        return services;
    }

    /// <summary>Publishes the log to Kafka in this process, when that is switched on.</summary>
    /// <param name="isMine">Whether this instance does it; one of several.</param>
    public static IServiceCollection AddKafkaEventStream(this IServiceCollection services, IConfiguration configuration, Func<IServiceProvider, Func<bool>> isMine)
    {
        if (IsOn(configuration, "Enabled"))
        {
            services.AddSingleton(provider => ActivatorUtilities.CreateInstance<KafkaEventStream>(provider, isMine(provider)));
            services.AddHostedService(provider => provider.GetRequiredService<KafkaEventStream>());
        }
        return services;
    }

    /// <summary>Takes orders from Kafka in this process, when that is switched on. Register it last: what is registered last stops first.</summary>
    public static IServiceCollection AddKafkaIntake(this IServiceCollection services, IConfiguration configuration)
    {
        if (IsOn(configuration, "Intake:Enabled"))
        {
            services.AddSingleton<KafkaIntake>();
            services.AddSingleton(provider =>
            {
                var intake = provider.GetRequiredService<KafkaIntake>();
                return new IntakeValve(IntakeQueues.Orders, intake.Pause, intake.Resume, () => intake.InHand);
            });
            services.AddHostedService(provider => provider.GetRequiredService<KafkaIntake>());
        }
        return services;
    }

    private static bool IsOn(IConfiguration configuration, string key) => bool.TryParse(configuration[$"{KafkaOptions.Section}:{key}"], out var on) && on;
}
