using OrderService.Store;

namespace OrderService.Events;

public static class EventsSetup
{
    /// <summary>Registers the event bus, fed by what this process commits, and the reads of the log.</summary>
    public static IServiceCollection AddEvents(this IServiceCollection services)
    {
        services.AddSingleton<EventBus>();
        services.AddSingleton<EventQueries>();
        services.AddSingleton<Committed>(provider =>
        {
            var bus = provider.GetRequiredService<EventBus>();
            return append => bus.Publish(append.Events);
        });
        return services;
    }
}
