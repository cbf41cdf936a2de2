using Microsoft.Extensions.Options;

namespace OrderService.Retention;

public static class RetentionSetup
{
    /// <summary>Registers what takes old rows out; <see cref="AddRetentionWorker"/> hosts it.</summary>
    public static IServiceCollection AddRetention(this IServiceCollection services)
    {
        services.AddOptions<RetentionOptions>().BindConfiguration(RetentionOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<RetentionOptions>, RetentionOptionsValidator>();
        services.AddSingleton<IValidateOptions<RetentionOptions>, RetentionRules>();
        services.AddSingleton<RetentionKinds>();
        services.AddSingleton<RetentionRound>();
        return services;
    }

    /// <summary>Takes old rows out in this process; of several instances one works at a time.</summary>
    public static IServiceCollection AddRetentionWorker(this IServiceCollection services) => services.AddHostedService<RetentionWorker>();
}
