using Microsoft.Extensions.Options;

namespace OrderService.Inbox;

public static class InboxSetup
{
    /// <summary>Registers the intake of orders.</summary>
    public static IServiceCollection AddInbox(this IServiceCollection services, IConfiguration configuration)
    {
        // Every command of the command line decodes as the service does, so this does not wait for a station to be made.
        var file = configuration[$"{InboxOptions.Section}:{nameof(InboxOptions.MappingFile)}"];
        EnvelopeDecoder.Mapping = string.IsNullOrEmpty(file) ? CommandMapping.None : MappingFile.Read(file, out _);
        services.AddSingleton<IValidateOptions<InboxOptions>, MappingFileValidator>();
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
