using System.Globalization;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>Subscribers in the process: the customer's mail.</summary>
public sealed class SubscriberJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task A_mail_server_that_is_away_delays_the_customers_mail_and_nothing_else()
    {
        const string Customer = "ada.lovelace@customer.example";
        var address = await broker.AddVirtualHostAsync();
        await using var mail = new FakeSmtpServer();
        await using var service = await RunningService.StartAsync(address, new()
        {
            ["OrderConfirmation__Enabled"] = "true",
            ["OrderConfirmation__From"] = "shop@shop.example",
            ["OrderConfirmation__RetryDelay"] = "00:00:00.200",
            ["Alerts__Email__Host"] = "127.0.0.1",
            ["Alerts__Email__Port"] = mail.Port.ToString(CultureInfo.InvariantCulture),
            ["Alerts__Email__Security"] = "None",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        // The first start begins at the end of the log: wait until that is written down.
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM checkpoints WHERE reader = 'order-confirmation'") == 1);
        mail.GoDown();

        await shop.PublishAsync(TestMessage.Of("order.place", "k-1",
            $$"""{"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"{{Customer}}"}"""));
        await shop.PublishAsync(TestMessage.Place("A-2"));

        await Eventually.TrueAsync(() => shop.Heard.Count == 2);
        Assert.Empty(mail.Mails);
        mail.ComeBack();
        await Eventually.TrueAsync(() => mail.Mails.Count == 1);
        Assert.Contains("A-1", mail.Mails.Single(), StringComparison.Ordinal);
        Assert.Contains("99.80 EUR", mail.Mails.Single(), StringComparison.Ordinal);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT position FROM checkpoints WHERE reader = 'order-confirmation'") == 2);
        // Personal data stays where it belongs: not in the log, not in what is published.
        Assert.DoesNotContain(Customer, service.Output, StringComparison.Ordinal);
        Assert.All(shop.Heard, heard => Assert.DoesNotContain(Customer, heard.Body, StringComparison.Ordinal));
    }
}
