using System.Diagnostics.Metrics;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

/// <summary>A hundred thousand dead letters: from the broken messages to the mails about them.</summary>
public sealed partial class LetterStormTests
{
    private const int Letters = 100_000;
    private const int Batch = 500;
    private static readonly TimeSpan BetweenBatches = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan MailUpAndDown = TimeSpan.FromMinutes(5);

    private static readonly (string Reason, string Field)[] Kinds =
        [(RejectionReason.UnknownField, "/speed"), (RejectionReason.AmountPrecision, "/lines/0/unitPrice"), (RejectionReason.QuantityOutOfRange, "/lines/0/quantity")];

    [Fact]
    public async Task A_hundred_thousand_letters_of_three_kinds_with_mail_down_half_of_the_time_are_told_of_in_few_mails_and_each_by_one_that_arrived()
    {
        await using var mail = new FakeSmtpServer();
        var alerts = new AlertsOptions
        {
            Email = new EmailOptions { Enabled = true, Host = "127.0.0.1", Port = mail.Port, Security = "None", From = "orders@example.org", To = ["ops@example.org"] },
            // Escalations are not of the storm.
            EscalateAfter = TimeSpan.FromDays(1),
        };
        await using var world = Over(await TestStore.OpenAsync(), alerts);
        await using var services = new ServiceCollection().AddMetrics().BuildServiceProvider();
        using var metrics = new OrderMetrics(services.GetRequiredService<IMeterFactory>());
        var email = new EmailChannel(Options.Create(alerts), new Smtp(world.Clock));
        using var sender = new NotificationSender(world.Store.Database, [email], Options.Create(alerts), metrics, new Troubles(world.Clock), new StoreTime(world.Clock), world.Clock, NullLogger<NotificationSender>.Instance);
        var began = world.Clock.GetUtcNow();
        var isUp = true;

        for (var first = 0; first < Letters; first += Batch)
        {
            var wanted = (int)((world.Clock.GetUtcNow() - began) / MailUpAndDown) % 2 == 0;
            if (wanted != isUp)
            {
                isUp = wanted;
                (isUp ? (Action)mail.ComeBack : mail.GoDown)();
            }
            await TakeInAsync(world, first);
            await TickAsync();
            world.Clock.Advance(BetweenBatches);
        }
        var stormed = world.Clock.GetUtcNow() - began;
        if (!isUp)
        {
            mail.ComeBack();
        }
        for (var minute = 0; minute < 30; minute++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(1));
            await TickAsync();
        }

        var most = Kinds.Length + (int)Math.Ceiling(stormed / alerts.DigestInterval) + 1;
        var arrived = mail.Mails.Select(text => AlertId().Match(text)).Select(match => long.Parse(match.Groups[1].ValueSpan, System.Globalization.CultureInfo.InvariantCulture)).ToList();
        Assert.InRange(arrived.Count, Kinds.Length + 2, most);
        Assert.Equal(arrived.Count, arrived.Distinct().Count());
        Assert.True(await world.Store.ScalarAsync<long>("SELECT max(attempts) FROM alert_deliveries") > 1, "The mail server was never down when a mail was to leave.");

        Assert.Equal(Letters, await world.Store.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        Assert.Equal(Letters, await world.Store.ScalarAsync<long>($"SELECT count(*) FROM dead_letters WHERE alert_id IN {SqlList.Of(arrived)}"));
        Assert.Equal(Letters, await world.Store.ScalarAsync<long>("SELECT sum(letters) FROM alerts"));
        Assert.Equal(arrived.Count, await world.Store.ScalarAsync<long>("SELECT count(*) FROM alert_deliveries WHERE channel = 'email' AND status = 'sent'"));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0"));
        var incidents = await world.Queries.IncidentsAsync(Stopping);
        Assert.Equal((Kinds.Length, Letters, Letters, Letters), (incidents.Count, incidents.Sum(incident => incident.Letters), incidents.Sum(incident => incident.Parked), incidents.Sum(incident => incident.Orders)));
        Assert.Equal(Letters, incidents.Sum(incident => incident.Hourly.Sum()));

        async Task TickAsync()
        {
            await world.Notifier.DigestAsync(Stopping);
            await world.Notifier.FollowUpAsync(Stopping);
            await sender.DispatchAsync(Stopping);
            await sender.SendDueAsync(email, Stopping);
        }
    }

    /// <summary>A batch is rejected by the order flow and taken in by the intake, each in one transaction.</summary>
    private static async Task TakeInAsync(LetterWorld world, int first)
    {
        var arrivals = Enumerable.Range(first, Batch).Select(number => Arrival(Order($"A-{number}", $"C-{number % 5_000}"), $"key-{number}")).ToArray();
        await world.Store.Database.WriteAsync(async transaction =>
        {
            for (var index = 0; index < arrivals.Length; index++)
            {
                var (key, fingerprint) = EnvelopeDecoder.Identify(arrivals[index].Properties, arrivals[index].Body);
                var (reason, field) = Kinds[(first + index) % Kinds.Length];
                await transaction.ExecuteAsync(
                    "INSERT INTO rejections (key, fingerprint, reason, detail, field, body, properties, rejected_at) VALUES (@key, @fingerprint, @reason, 'Why.', @field, @body, @properties, @now)",
                    new { key, fingerprint, reason, field, body = arrivals[index].Body.ToArray(), properties = MessagePropertiesJson.Write(arrivals[index].Properties), now = world.Clock.GetUtcNow().ToUnixTimeMilliseconds() });
            }
        }, Stopping);
        Assert.All(await world.TakeInAsync(arrivals), outcome => Assert.Equal(ParkOutcome.Parked, outcome));
    }

    [GeneratedRegex("^Message-Id: <alert-[0-9a-f]+-([0-9]+)@", RegexOptions.Multiline | RegexOptions.IgnoreCase)]
    private static partial Regex AlertId();
}
