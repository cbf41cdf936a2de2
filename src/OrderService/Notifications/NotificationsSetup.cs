using Microsoft.Extensions.Options;

namespace OrderService.Notifications;

/// <summary>Registers the channels that are switched on and what sends alerts through them; nothing runs by itself.</summary>
public static class NotificationsSetup
{
    public static IServiceCollection AddNotifications(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<AlertsOptions>().BindConfiguration(AlertsOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<AlertsOptions>, AlertsOptionsValidator>();
        services.AddSingleton<AlertQueries>();
        services.AddSingleton<Smtp>();
        services.AddOptions<OrderConfirmationOptions>().BindConfiguration(OrderConfirmationOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<OrderConfirmationOptions>, OrderConfirmationOptionsValidator>();
        // Every process that serves has the channels: a trouble of the store is told without it.
        if (On("Log", true))
        {
            services.AddSingleton<INotificationChannel, LogChannel>();
        }
        if (On("Email", false))
        {
            services.AddSingleton<INotificationChannel, EmailChannel>();
        }
        if (On("Webhook", false))
        {
            services.AddSingleton<INotificationChannel>(provider =>
            {
                var webhook = Options(provider).Webhook;
                return Channel(provider, "webhook", WebhookFormat.Standard, webhook.Url, webhook.AllowedHosts,
                    string.IsNullOrEmpty(webhook.PreviousSecret) ? [webhook.Secret] : [webhook.Secret, webhook.PreviousSecret]);
            });
        }
        if (On("Slack", false))
        {
            services.AddSingleton<INotificationChannel>(provider => Channel(provider, "slack", WebhookFormat.Slack, Options(provider).Slack.Url, Options(provider).Slack.AllowedHosts, []));
        }
        if (On("Teams", false))
        {
            services.AddSingleton<INotificationChannel>(provider => Channel(provider, "teams", WebhookFormat.Teams, Options(provider).Teams.Url, Options(provider).Teams.AllowedHosts, []));
        }
        services.AddSingleton<NotificationSender>();
        return services;

        // A value that is neither is reported with all other mistakes when the options are bound.
        bool On(string channel, bool unset) => configuration[$"Alerts:{channel}:Enabled"] is { Length: > 0 } text ? bool.TryParse(text, out var on) && on : unset;

        static AlertsOptions Options(IServiceProvider provider) => provider.GetRequiredService<IOptions<AlertsOptions>>().Value;

        static WebhookChannel Channel(IServiceProvider provider, string name, WebhookFormat format, string url, IList<string> allowedHosts, IReadOnlyList<string> secrets) =>
            new(name, format, new Uri(url), secrets, WebhookTarget.Handler([.. allowedHosts]), provider.GetRequiredService<TimeProvider>());
    }

    /// <summary>Tells of this process's own troubles.</summary>
    public static IServiceCollection AddTroubleAlerts(this IServiceCollection services) => services.AddHostedService<TroubleAlerts>();

    /// <summary>Sends the alerts that any process wrote.</summary>
    public static IServiceCollection AddNotificationSending(this IServiceCollection services) => services
        .AddHostedService(provider => provider.GetRequiredService<NotificationSender>())
        .AddHostedService<RefusedPaymentAlerts>()
        .AddHostedService<SealHeadAlerts>();

    /// <summary>Writes to customers in this process, when that is switched on.</summary>
    /// <param name="isMine">Whether this instance does it; one of several.</param>
    public static IServiceCollection AddOrderConfirmation(this IServiceCollection services, IConfiguration configuration, Func<IServiceProvider, Func<bool>> isMine)
    {
        if (configuration[$"{OrderConfirmationOptions.Section}:Enabled"] is { } text && bool.TryParse(text, out var on) && on)
        {
            services.AddHostedService(provider => ActivatorUtilities.CreateInstance<OrderConfirmation>(provider, isMine(provider)));
        }
        return services;
    }
}
