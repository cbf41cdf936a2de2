using Microsoft.Extensions.Options;
using OrderService.EventStore;
using OrderService.Outbox;

namespace OrderService.Database;

public static class DatabaseSetup
{
    /// <summary>Registers the store that <c>Store:Provider</c> names: <see cref="IDatabase"/>, <see cref="IOrderEventStore"/> and <see cref="IRelayLease"/>.</summary>
    public static IServiceCollection AddStore(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<StoreOptions>().BindConfiguration(StoreOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<StoreOptions>, StoreOptionsValidator>();
        var store = configuration.GetSection(StoreOptions.Section).Get<StoreOptions>() ?? new StoreOptions();
        services.AddSingleton(provider => new SqliteDatabase(
            store.Path, provider.GetRequiredService<TimeProvider>(), provider.GetRequiredService<ILogger<SqliteDatabase>>()));
        services.AddSingleton<IDatabase>(provider => provider.GetRequiredService<SqliteDatabase>());
        services.AddSingleton<IOrderEventStore, SqliteOrderEventStore>();
        services.AddSingleton<IRelayLease>(_ => new SqliteRelayLease(store.Path));
        return services;
    }
}

[OptionsValidator]
internal sealed partial class StoreOptionsValidator : IValidateOptions<StoreOptions>;
