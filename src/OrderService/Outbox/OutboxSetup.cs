using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Outbox;

public static class OutboxSetup
{
    public static IServiceCollection AddOutbox(this IServiceCollection services)
    {
        services.AddOptions<OutboxOptions>().BindConfiguration(OutboxOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<OutboxOptions>, OutboxOptionsValidator>();
        services.AddOptions<EventsOptions>().BindConfiguration(EventsOptions.Section);
        services.AddSingleton<OutboxStore>();
        services.AddSingleton<OutboxRelay>();
        return services;
    }

    /// <summary>Publishes in this process, and takes what this process commits straight from memory.</summary>
    public static IServiceCollection AddOutboxRelay(this IServiceCollection services)
    {
        services.AddSingleton<Committed>(provider => provider.GetRequiredService<OutboxRelay>().Offer);
        services.AddSingleton<GiveWay>(provider => provider.GetRequiredService<OutboxRelay>().GiveWayAsync);
        return services.AddHostedService(provider => provider.GetRequiredService<OutboxRelay>());
    }
}
