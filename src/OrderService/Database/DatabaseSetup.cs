using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Database;

public static class DatabaseSetup
{
    /// <summary>Registers the store that <c>Store:Provider</c> names: <see cref="IDatabase"/>, <see cref="IOrderEventStore"/> and <see cref="IRelayLease"/>.</summary>
    public static IServiceCollection AddStore(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<StoreOptions>().BindConfiguration(StoreOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<StoreOptions>, StoreOptionsValidator>();
        services.AddSingleton<IValidateOptions<StoreOptions>, PostgresOptionsValidator>();
        services.AddSingleton<StoreTime>();
        services.AddOptions<KeysOptions>().BindConfiguration(KeysOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<KeysOptions>, KeysOptionsValidator>();
        services.AddOptions<SealsOptions>().BindConfiguration(SealsOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<SealsOptions>, SealsOptionsValidator>();
        services.AddSingleton<IValidateOptions<SealsOptions>, SealKeyRules>();
        services.AddSingleton(provider => provider.GetRequiredService<IDatabase>().Keys);
        var store = configuration.GetSection(StoreOptions.Section).Get<StoreOptions>() ?? new StoreOptions();
        if (store.UsesPostgres)
        {
            services.AddSingleton(provider => new PostgresDatabase(
                store.ConnectionString ?? "", provider.GetRequiredService<ILogger<PostgresDatabase>>(), keys: provider.GetRequiredService<IOptions<KeysOptions>>().Value,
                clock: provider.GetRequiredService<TimeProvider>(), seals: provider.GetRequiredService<IOptions<SealsOptions>>().Value));
            services.AddSingleton<IDatabase>(provider => provider.GetRequiredService<PostgresDatabase>());
            services.AddSingleton<IOrderEventStore, PostgresOrderEventStore>();
            services.AddSingleton<IRelayLease, PostgresRelayLease>();
            return services;
        }
        services.AddSingleton(provider => new SqliteDatabase(
            store.Path, provider.GetRequiredService<TimeProvider>(), provider.GetRequiredService<ILogger<SqliteDatabase>>(),
            provider.GetRequiredService<IOptions<KeysOptions>>().Value, provider.GetRequiredService<IOptions<SealsOptions>>().Value));
        services.AddSingleton<IDatabase>(provider => provider.GetRequiredService<SqliteDatabase>());
        services.AddSingleton<IOrderEventStore, SqliteOrderEventStore>();
        services.AddSingleton<IRelayLease>(_ => new SqliteRelayLease(store.Path));
        return services;
    }

    /// <summary>Backups by the process that serves the store, where they are wanted.</summary>
    public static IServiceCollection AddStoreBackups(this IServiceCollection services, IConfiguration configuration)
    {
        var store = configuration.GetSection(StoreOptions.Section).Get<StoreOptions>() ?? new StoreOptions();
        if (!store.UsesPostgres && !string.IsNullOrWhiteSpace(store.Backup.Folder))
        {
            services.AddHostedService<BackupSchedule>();
        }
        return services;
    }
}

/// <summary>What the attributes of <see cref="StoreOptions"/> can't say: PostgreSQL needs a connection string that can be read.</summary>
internal sealed class PostgresOptionsValidator : IValidateOptions<StoreOptions>
{
    public ValidateOptionsResult Validate(string? name, StoreOptions options) =>
        options.UsesPostgres && PostgresDatabase.Problem(options.ConnectionString, options.AllowPlaintext) is { } problem ? ValidateOptionsResult.Fail(problem) : ValidateOptionsResult.Success;
}

[OptionsValidator]
internal sealed partial class StoreOptionsValidator : IValidateOptions<StoreOptions>;
