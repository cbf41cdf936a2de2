namespace OrderService.Projections;

public static class ProjectionsSetup
{
    /// <summary>Registers the reads of the read model, an order's story, and the check of the store.</summary>
    public static IServiceCollection AddProjections(this IServiceCollection services)
    {
        services.AddSingleton<OrderQueries>();
        services.AddSingleton<StoreVerification>();
        services.AddSingleton<OrderStory>();
        return services;
    }
}
