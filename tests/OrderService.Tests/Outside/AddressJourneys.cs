using System.Globalization;
using System.Net;
using Npgsql;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Kafka;

namespace OrderService.Tests.Outside;

/// <summary>Everything is reached by one name with four addresses, of which the first drops what is sent to it, the second is silent and the third dead.</summary>
public sealed class AddressJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    // The settings let nobody speak in the clear to another machine.
    private const string Name = "localhost";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task By_a_name_of_which_one_address_lives_orders_are_taken_and_told_of_at_the_start_and_after_it_moved_and_doctor_is_content()
    {
        var virtualHost = await broker.AddVirtualHostAsync();
        var given = new UriBuilder(virtualHost);
        var store = new NpgsqlConnectionStringBuilder(await postgres.AddDatabaseAsync());
        using var cluster = new MockKafka(brokers: 1).WithTopic("order-events");
        await using var mail = new FakeSmtpServer();
        await using var collector = await FakeCollector.StartAsync();
        await using var toBroker = new SeveralAddresses(given.Port);
        await using var toStore = new SeveralAddresses(store.Port);
        await using var toMail = new SeveralAddresses(mail.Port);
        await using var toKafka = new SeveralAddresses(int.Parse(cluster.BootstrapServers.Split(':')[1], CultureInfo.InvariantCulture));
        await using var toCollector = new SeveralAddresses(new Uri(collector.Url).Port);
        SeveralAddresses[] names = [toBroker, toStore, toMail, toKafka];
        (given.Host, given.Port, store.Host, store.Port) = (Name, toBroker.Port, Name, toStore.Port);
        await using var service = await ReleaseService.StartAsync(given.Uri.ToString(), hosts: SeveralAddresses.Hosts(Name) + SeveralAddresses.Hosts("collector.test", silent: false), settings: new()
        {
            ["Store__ConnectionString"] = store.ToString(),
            ["Kafka__Enabled"] = "true",
            ["Kafka__BootstrapServers"] = $"{Name}:{toKafka.Port}",
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = $"http://collector.test:{toCollector.Port}",
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_BSP_SCHEDULE_DELAY"] = "200",
            ["Alerts__Email__Enabled"] = "true",
            ["Alerts__Email__Host"] = Name,
            ["Alerts__Email__Port"] = toMail.Port.ToString(CultureInfo.InvariantCulture),
            ["Alerts__Email__Security"] = "None",
            ["Alerts__Email__From"] = "orders@shop.example",
            ["Alerts__Email__To__0"] = "admin@shop.example",
            ["Alerts__PollInterval"] = "00:00:00.200",
        });
        await using var shop = await TestProducer.ConnectAsync(virtualHost);

        await WorksAsync("A-1", "{", "malformed_json");
        foreach (var name in names)
        {
            await name.MoveAsync();
        }
        await WorksAsync("A-2", "", "body_empty");
        await Eventually.TrueAsync(() => KafkaWorld.ReadAll(cluster, "order-events").Count == 2);
        await Eventually.TrueAsync(() => collector.Spans.Count > 0);
        var (exit, output, error) = await service.RunAsync("doctor");
        Assert.True(exit == 0, output + error);
        Assert.Contains("All is well.", output, StringComparison.Ordinal);

        // librdkafka shuffles the addresses, so it may not have come past the silent one.
        Assert.All(names.Except([toKafka]), name => Assert.True(name.SilentWasTried));
        Assert.Equal(0, await service.StopAsync());

        async Task WorksAsync(string order, string broken, string reason)
        {
            await shop.PublishAsync(TestMessage.Place(order), TestMessage.Of("order.place", $"broken-{order}", broken));
            await Eventually.TrueAsync(async () => await TriesAsync(() => service.OrderStatusAsync(order)) == "placed");
            await Eventually.TrueAsync(() => mail.Mails.Any(text => text.Contains(reason, StringComparison.Ordinal)));
            await service.WaitUntilReadyAsync();
        }

        // While the store moves, the API says that it is away.
        static async Task<string?> TriesAsync(Func<Task<string?>> ask)
        {
            try
            {
                return await ask();
            }
            catch (HttpRequestException)
            {
                return null;
            }
        }
    }

    /// <summary>For HTTP a connection that is open is enough, so the address at which somebody opens it and says nothing is left out.</summary>
    [Fact]
    public async Task Who_signs_tokens_and_who_collects_traces_by_grpc_may_have_addresses_that_are_dead()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var provider = await TokenProvider.StartAsync();
        await using var collector = await FakeCollector.StartAsync();
        await using var toProvider = new SeveralAddresses(new Uri(provider.Issuer).Port);
        await using var toCollector = new SeveralAddresses(new Uri(collector.GrpcUrl).Port);
        // Its keys are looked up by the same name.
        provider.Issuer = $"http://{Name}:{toProvider.Port}";
        var hosts = SeveralAddresses.Hosts(Name, silent: false) + SeveralAddresses.Hosts("collector.test", silent: false);
        await using var service = await ReleaseService.StartAsync(address, hosts: hosts, settings: new()
        {
            ["Api__Jwt__Authority"] = provider.Issuer,
            ["Api__Jwt__Audience"] = "orders",
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = $"http://collector.test:{toCollector.Port}",
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc",
            ["OTEL_BSP_SCHEDULE_DELAY"] = "200",
        });
        using var client = new HttpClient { BaseAddress = new Uri(service.Url) };
        client.DefaultRequestHeaders.Authorization = new("Bearer", provider.Sign(new()
        {
            ["iss"] = provider.Issuer, ["aud"] = "orders", ["sub"] = "u-1", ["scope"] = "read", ["exp"] = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() + 300,
        }));

        using var answer = await client.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        await Eventually.TrueAsync(() => collector.Spans.Any(span => span.Name.StartsWith("GET /api/orders", StringComparison.Ordinal)));
        Assert.Equal(0, await service.StopAsync());
    }
}
