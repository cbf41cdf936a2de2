using Microsoft.Extensions.Options;

namespace OrderService.Inbox;

public static class InboxSetup
{
    /// <summary>Registers the intake of orders; <see cref="AddInboxProcessing"/> hosts it.</summary>
    public static IServiceCollection AddInbox(this IServiceCollection services)
    {
        services.AddOptions<InboxOptions>().BindConfiguration(InboxOptions.Section).ValidateOnStart();
        services.AddOptions<OrdersOptions>().BindConfiguration(OrdersOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<InboxOptions>, InboxOptionsValidator>();
        services.AddSingleton<IValidateOptions<OrdersOptions>, OrdersOptionsValidator>();
        services.AddSingleton<InboxCommit>();
        services.AddSingleton<InboxProcessor>();
        return services;
    }

    /// <summary>Consumes <c>orders</c>, and its partitions, in this process. Register it last: what is registered last stops first.</summary>
    public static IServiceCollection AddInboxProcessing(this IServiceCollection services) =>
        services.AddHostedService<Backlogs>().AddHostedService(provider => provider.GetRequiredService<InboxProcessor>());
}
