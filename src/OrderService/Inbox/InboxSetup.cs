using Microsoft.Extensions.Options;

namespace OrderService.Inbox;

public static class InboxSetup
{
    /// <summary>Registers the intake of orders.</summary>
    public static IServiceCollection AddInbox(this IServiceCollection services)
    {
        services.AddOptions<InboxOptions>().BindConfiguration(InboxOptions.Section).ValidateOnStart();
        services.AddOptions<OrdersOptions>().BindConfiguration(OrdersOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<InboxOptions>, InboxOptionsValidator>();
        services.AddSingleton<IValidateOptions<OrdersOptions>, OrdersOptionsValidator>();
        services.AddSingleton<InboxCommit>();
        services.AddSingleton<Intake>();
        services.AddSingleton<IntakeWatch>();
        return services;
    }

    /// <summary>Pauses and resumes this process's intake as the store says. Register it before whatever takes messages in.</summary>
    public static IServiceCollection AddIntakeWatch(this IServiceCollection services) => services.AddHostedService(provider => provider.GetRequiredService<IntakeWatch>());
}
