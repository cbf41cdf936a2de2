namespace OrderService.Seals;

public static class SealsSetup
{
    /// <summary>Registers what verifies seals; <see cref="AddSealer"/> hosts what makes them.</summary>
    public static IServiceCollection AddSeals(this IServiceCollection services)
    {
        services.AddSingleton<SealVerification>();
        services.AddSingleton<Sealer>();
        return services;
    }

    /// <summary>Seals what is committed, in this process.</summary>
    public static IServiceCollection AddSealer(this IServiceCollection services) => services.AddHostedService(provider => provider.GetRequiredService<Sealer>());
}
