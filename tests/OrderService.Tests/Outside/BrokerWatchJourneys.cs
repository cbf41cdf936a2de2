using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.Outside;

/// <summary>What is done to the broker under the service is told, and what can't be known is never told as "all is well".</summary>
public sealed class BrokerWatchJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task A_management_api_that_tells_less_is_said_and_an_unsafe_policy_is_degraded_and_told()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var management = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["RabbitMq__ManagementUri"] = $"http://tests:tests-password@{management.Url.Authority}/",
            ["RabbitMq__QueuePollInterval"] = "00:00:00.300",
        });
        var name = Uri.UnescapeDataString(new Uri(address).AbsolutePath[1..]);
        await using var shop = await TestProducer.ConnectAsync(address);

        // Less than usual: the numbers by AMQP stay, and what is missing has a reason.
        (int Status, string Type, string Body, string Reason)[] answers =
        [
            (200, "application/json", """{"messages_ready":0,"message_stats":[],"effective_policy_definition":{}}""", ""),
            (200, "application/json", """{"name":"x","durable":true}""", "does not say which policies are in force"),
            (200, "text/html", "<html><body>Please sign in</body></html>", "did not answer with JSON"),
            (200, "application/json", "[]", "something that is no queue"),
            (200, "application/json", "null", "something that is no queue"),
            (302, "text/html", "", "302: it points elsewhere"),
            (401, "application/json", """{"error":"not_authorized"}""", "401: it does not accept"),
            (404, "application/json", """{"error":"Object Not Found"}""", "404: the user may have no rights on this virtual host"),
        ];
        foreach (var (status, type, body, reason) in answers)
        {
            management.Answer = context =>
            {
                context.Response.StatusCode = status;
                context.Response.ContentType = type;
                return context.Response.WriteAsync(body);
            };
            await Eventually.HoldsAsync(async () =>
            {
                var queues = await service.GetAsync("/api/queues");
                Assert.Equal(["order-events.unrouted", "orders", "orders.dlq", "orders.unreadable"], queues.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("name").GetString()).Order(StringComparer.Ordinal));
                Assert.All(queues.GetProperty("items").EnumerateArray(), item => Assert.Equal(JsonValueKind.Number, item.GetProperty("ready").ValueKind));
                var (code, health) = await service.HealthAsync();
                Assert.Equal(HttpStatusCode.OK, code);
                if (reason.Length == 0)
                {
                    Assert.Equal(0, queues.GetProperty("unsafePolicies").GetArrayLength());
                    Assert.Equal(JsonValueKind.Null, queues.GetProperty("managementError").ValueKind);
                    Assert.DoesNotContain("\"management\"", health, StringComparison.Ordinal);
                    return;
                }
                Assert.Equal(JsonValueKind.Null, queues.GetProperty("unsafePolicies").ValueKind);
                Assert.Contains(reason, queues.GetProperty("policiesUnknown").GetString(), StringComparison.Ordinal);
                Assert.Contains(reason, JsonDocument.Parse(health).RootElement.GetProperty("checks").GetProperty("management").GetProperty("detail").GetString(), StringComparison.Ordinal);
            });
        }
        await Eventually.HoldsAsync(() =>
        {
            // Once, not with each reading; again after an answer that was late on a busy machine.
            Assert.InRange(service.Output.Split('\n').Count(line => line.Contains("are not known", StringComparison.Ordinal) && line.Contains("401", StringComparison.Ordinal)), 1, 3);
            return Task.CompletedTask;
        });
        var unsure = await service.RunAsync("doctor");
        Assert.Equal(1, unsure.ExitCode);
        Assert.Contains("policies can't be known: the management API answered 404", unsure.Output, StringComparison.Ordinal);

        // As it is: a policy that loses messages in force.
        using var real = new HttpClient { BaseAddress = new UriBuilder(broker.ManagementUri) { UserName = "", Password = "" }.Uri };
        real.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes("tests:tests-password")));
        management.Answer = async context =>
        {
            using var answer = await real.GetAsync(new Uri(context.Request.Path.ToUriComponent(), UriKind.Relative));
            context.Response.StatusCode = (int)answer.StatusCode;
            context.Response.ContentType = "application/json";
            await context.Response.Body.WriteAsync(await answer.Content.ReadAsByteArrayAsync());
        };
        await Eventually.HoldsAsync(async () => Assert.Equal(0, (await service.GetAsync("/api/queues")).GetProperty("unsafePolicies").GetArrayLength()));
        await broker.ExecAsync("rabbitmqctl", "set_policy", "-p", name, "bad", "^orders.*", """{"max-length":100000,"overflow":"drop-head"}""", "--apply-to", "queues");
        await Eventually.HoldsAsync(async () =>
        {
            var check = JsonDocument.Parse((await service.HealthAsync()).Body).RootElement.GetProperty("checks").GetProperty("policies");
            Assert.True(check.GetProperty("degraded").GetBoolean());
            Assert.Contains("'orders'", check.GetProperty("detail").GetString(), StringComparison.Ordinal);
            Assert.Contains("'orders.dlq'", check.GetProperty("detail").GetString(), StringComparison.Ordinal);
        });
        var doctor = await service.RunAsync("doctor");
        Assert.Equal(1, doctor.ExitCode);
        Assert.Contains("The policy 'bad' sets overflow to drop-head on the queue 'orders'", doctor.Output, StringComparison.Ordinal);
        var topology = await service.RunAsync("topology", "--check");
        Assert.Equal(1, topology.ExitCode);
        Assert.Contains("The policy 'bad' sets overflow to drop-head on the queue 'orders.dlq'", topology.Output, StringComparison.Ordinal);
        await ToldAsync(service, "A policy on the broker can lose orders");

        // A queue deleted under its consumer, and a subscriber's binding taken away.
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(TestContext.Current.CancellationToken);
        await using var channel = await connection.CreateChannelAsync(cancellationToken: TestContext.Current.CancellationToken);
        var subscriber = (await channel.QueueDeclareAsync(cancellationToken: TestContext.Current.CancellationToken)).QueueName;
        await channel.QueueBindAsync(subscriber, "order-events", "#", cancellationToken: TestContext.Current.CancellationToken);
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => await channel.MessageCountAsync(subscriber) == 1);
        await channel.QueueDeleteAsync("orders", cancellationToken: TestContext.Current.CancellationToken);
        await channel.QueueUnbindAsync(subscriber, "order-events", "#", cancellationToken: TestContext.Current.CancellationToken);
        await Eventually.TrueAsync(async () => (await service.HealthAsync()).Status == HttpStatusCode.OK);
        await TestProducer.PublishUntilConfirmedAsync([address], [TestMessage.Place("A-2")]);
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-2") == "placed");
        await ToldAsync(service, "The broker took the consumer of orders away");
        await ToldAsync(service, "Events reach no subscriber");
    }

    private static Task ToldAsync(ReleaseService service, string subject) => Eventually.HoldsAsync(
        async () => Assert.Contains(subject, (await service.GetAsync("/api/alerts")).ToString(), StringComparison.Ordinal));
}
