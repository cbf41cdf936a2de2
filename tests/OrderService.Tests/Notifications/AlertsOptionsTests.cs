using System.Globalization;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using OrderService.Notifications;

namespace OrderService.Tests.Notifications;

public sealed class AlertsOptionsTests
{
    private static ServiceProvider Services(params (string Key, string Value)[] settings)
    {
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(settings.ToDictionary(setting => setting.Key, setting => (string?)setting.Value)).Build();
        var services = new ServiceCollection();
        services.AddSingleton<IConfiguration>(configuration);
        services.AddSingleton(TimeProvider.System);
        services.AddLogging();
        services.AddNotifications(configuration);
        return services.BuildServiceProvider();
    }

    private static IEnumerable<string> Problems(params (string Key, string Value)[] settings)
    {
        using var services = Services(settings);
        try
        {
            _ = services.GetRequiredService<IOptions<AlertsOptions>>().Value;
            return [];
        }
        catch (OptionsValidationException exception)
        {
            return [.. exception.Failures];
        }
    }

    [Fact]
    public void Without_settings_alerts_go_to_the_log_alone()
    {
        using var services = Services();

        Assert.Equal(["log"], services.GetServices<INotificationChannel>().Select(channel => channel.Name));
        Assert.Empty(Problems());
    }

    [Fact]
    public void Every_channel_that_is_switched_on_is_there()
    {
        using var services = Services(
            ("Alerts:Log:Enabled", "false"), ("Alerts:Email:Enabled", "true"), ("Alerts:Email:Host", "mail.example.org"), ("Alerts:Email:From", "orders@example.org"), ("Alerts:Email:To:0", "a@example.org"),
            ("Alerts:Webhook:Enabled", "true"), ("Alerts:Webhook:Url", "https://example.org/"), ("Alerts:Webhook:Secret", NotificationWorld.Secret),
            ("Alerts:Slack:Enabled", "true"), ("Alerts:Slack:Url", "https://hooks.slack.com/x"), ("Alerts:Teams:Enabled", "true"), ("Alerts:Teams:Url", "https://example.org/teams"));

        Assert.Equal(["email", "webhook", "slack", "teams"], services.GetServices<INotificationChannel>().Select(channel => channel.Name));
    }

    [Fact]
    public void All_mistakes_are_reported_at_once_and_each_names_its_key()
    {
        var problems = Problems(
            ("Alerts:DigestInterval", "00:00:01"), ("Alerts:MaxFirstPerInterval", "0"),
            ("Alerts:Email:Enabled", "true"), ("Alerts:Email:Host", "mail server"), ("Alerts:Email:Port", "0"), ("Alerts:Email:Security", "Sometimes"), ("Alerts:Email:Username", "x"), ("Alerts:Email:To:0", "a@b\r\nBcc: c@d"),
            ("Alerts:Webhook:Enabled", "true"), ("Alerts:Webhook:Url", "http://10.0.0.1/"), ("Alerts:Webhook:Secret", "whsec_c2hvcnQ="), ("Alerts:Webhook:PreviousSecret", "plain")).ToList();

        string[] keys =
        [
            "Alerts:DigestInterval", "Alerts:MaxFirstPerInterval", "Alerts:Email:Host", "Alerts:Email:Port", "Alerts:Email:Security", "Alerts:Email:Username", "Alerts:Email:From",
            "Alerts:Email:To:0", "Alerts:Webhook:Url", "Alerts:Webhook:Secret", "Alerts:Webhook:PreviousSecret",
        ];
        Assert.Equal(keys, problems.Select(problem => problem.Split(' ')[0]));
    }

    [Fact]
    public void Mail_without_encryption_is_for_this_machine_alone()
    {
        (string, string)[] mail = [("Alerts:Email:Enabled", "true"), ("Alerts:Email:From", "o@example.org"), ("Alerts:Email:To:0", "a@example.org"), ("Alerts:Email:Security", "None")];

        Assert.Empty(Problems([.. mail, ("Alerts:Email:Host", "localhost")]));
        Assert.Empty(Problems([.. mail, ("Alerts:Email:Host", "127.0.0.1")]));
        Assert.StartsWith("Alerts:Email:Security", Assert.Single(Problems([.. mail, ("Alerts:Email:Host", "mail.example.org")])), StringComparison.Ordinal);
    }

    [Fact]
    public void Five_hundred_recipients_are_too_many() => Assert.StartsWith("Alerts:Email:To", Assert.Single(Problems([
        ("Alerts:Email:Enabled", "true"), ("Alerts:Email:Host", "mail.example.org"), ("Alerts:Email:From", "o@example.org"),
        .. Enumerable.Range(0, 500).Select(number => ($"Alerts:Email:To:{number}", $"a{number}@example.org"))])), StringComparison.Ordinal);

    [Fact]
    public void A_fallback_is_a_channel_that_is_on_beside_another_one()
    {
        (string, string)[] webhook = [("Alerts:Webhook:Enabled", "true"), ("Alerts:Webhook:Url", "https://example.org/"), ("Alerts:Webhook:Secret", NotificationWorld.Secret)];

        Assert.StartsWith("Alerts:Fallback", Assert.Single(Problems(("Alerts:Fallback", "email"))), StringComparison.Ordinal);
        Assert.StartsWith("Alerts:Fallback", Assert.Single(Problems([.. webhook, ("Alerts:Fallback", "webhook")])), StringComparison.Ordinal);
        Assert.Empty(Problems([.. webhook, ("Alerts:Fallback", "webhook"), ("Alerts:Slack:Enabled", "true"), ("Alerts:Slack:Url", "https://hooks.slack.com/x")]));
    }

    [Theory]
    [InlineData("22:00", "07:00", "UTC", "21:59:59", false)]
    [InlineData("22:00", "07:00", "UTC", "22:00:00", true)]
    [InlineData("22:00", "07:00", "UTC", "06:59:59", true)]
    [InlineData("22:00", "07:00", "UTC", "07:00:00", false)]
    [InlineData("12:00", "13:00", "UTC", "12:30:00", true)]
    [InlineData("12:00", "13:00", "UTC", "13:00:00", false)]
    [InlineData("00:00", "06:00", "America/New_York", "10:59:00", true)]
    [InlineData("00:00", "06:00", "America/New_York", "11:00:00", false)]
    public void Quiet_hours_follow_the_clock_of_their_time_zone(string from, string to, string zone, string utc, bool quiet) => Assert.Equal(quiet, new QuietHoursOptions
    {
        From = TimeOnly.Parse(from, CultureInfo.InvariantCulture),
        To = TimeOnly.Parse(to, CultureInfo.InvariantCulture),
        TimeZone = zone,
    }.Include(new DateTimeOffset(new DateOnly(2026, 1, 15), TimeOnly.Parse(utc, CultureInfo.InvariantCulture), TimeSpan.Zero)));

    [Fact]
    public void Quiet_hours_keep_to_the_clock_through_summer_time_and_there_are_none_by_default()
    {
        var night = new QuietHoursOptions { From = new TimeOnly(22, 0), To = new TimeOnly(7, 0), TimeZone = "Europe/Berlin" };

        Assert.True(night.Include(new DateTimeOffset(2026, 3, 28, 5, 30, 0, TimeSpan.Zero)));
        Assert.False(night.Include(new DateTimeOffset(2026, 3, 29, 5, 30, 0, TimeSpan.Zero)));
        Assert.False(new QuietHoursOptions().Include(new DateTimeOffset(2026, 3, 28, 5, 30, 0, TimeSpan.Zero)));
        Assert.Equal(["Alerts:QuietHours:From", "Alerts:QuietHours:TimeZone"], Problems(("Alerts:QuietHours:From", "22:00"), ("Alerts:QuietHours:TimeZone", "Berlin")).Select(problem => problem.Split(' ')[0]));
        Assert.StartsWith("Alerts:QuietHours:To", Assert.Single(Problems(("Alerts:QuietHours:From", "22:00"), ("Alerts:QuietHours:To", "22:00"))), StringComparison.Ordinal);
        Assert.Empty(Problems(("Alerts:QuietHours:From", "22:00"), ("Alerts:QuietHours:To", "07:00"), ("Alerts:QuietHours:TimeZone", "Europe/Berlin")));
    }
}
