using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Npgsql;
using OrderService.Database;
using OrderService.Notifications;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Notifications;

namespace OrderService.Tests;

/// <summary>A name with several addresses of which the first drops what is sent to it, the second is silent and the third dead: whoever connects by it comes through.</summary>
public sealed class EveryAddressTests(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_broker()
    {
        var given = new UriBuilder(await broker.AddVirtualHostAsync());
        await using var name = new SeveralAddresses(given.Port);
        (given.Host, given.Port) = ("localhost", name.Port);
        var connector = new BrokerConnector(Options.Create(new RabbitMqOptions { Uri = given.Uri.ToString() }), TimeProvider.System) { Resolve = name.ResolveAsync };

        var connection = await connector.OpenAsync("test", Stopping);

        Assert.True(connection.IsOpen);
        Assert.Equal("localhost", connection.Endpoint.HostName);
        Assert.True(name.SilentWasTried);
        await BrokerConnector.DisposeQuietlyAsync(connection);
    }

    [Fact]
    public async Task Postgresql()
    {
        var given = new NpgsqlConnectionStringBuilder(await postgres.AddDatabaseAsync());
        await using var name = new SeveralAddresses(given.Port);
        (given.Host, given.Port, given.Timeout) = ("several.example", name.Port, 4);
        await using var database = new PostgresDatabase(given.ToString(), NullLogger<PostgresDatabase>.Instance, name.ResolveAsync);

        Assert.Equal(1, await database.ReadAsync(connection => connection.ExecuteScalarAsync<int>("SELECT 1"), Stopping));
        Assert.True(name.SilentWasTried);
        await database.MigrateAsync(Stopping);

        // The search is paid for once, not by each connection.
        var start = TimeProvider.System.GetTimestamp();
        for (var count = 0; count < 3; count++)
        {
            await database.ReadAsync(connection => connection.ExecuteScalarAsync<int>("SELECT 1"), Stopping);
        }
        Assert.InRange(TimeProvider.System.GetElapsedTime(start), TimeSpan.Zero, TimeSpan.FromSeconds(2));
    }

    /// <remarks>The list is as people with a cluster write it. The first of its names leads to somebody who says nothing, the last is not known.</remarks>
    [Fact]
    public async Task The_primary_of_postgresql_wherever_it_is()
    {
        await using var pair = await PostgresPair.StartAsync();
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();
        await using var database = new PostgresDatabase(
            $"Host=silent.example:{((IPEndPoint)silent.LocalEndpoint).Port},one.example:{pair.Ports[0]},two.example:{pair.Ports[1]},gone.example;"
                + $"Target Session Attributes=primary;Load Balance Hosts=true;Timeout=4;{PostgresPair.Credentials}",
            NullLogger<PostgresDatabase>.Instance,
            (host, _) => host == "gone.example" ? throw new SocketException((int)SocketError.HostNotFound) : Task.FromResult<IPAddress[]>([IPAddress.Loopback]));
        await database.MigrateAsync(Stopping);
        Assert.Equal(0, await WrittenToAsync());

        // The first dies.
        await pair.FailOverAsync(from: 0);
        await Eventually.HoldsAsync(async () => Assert.Equal(1, await WrittenToAsync()));

        // It comes back as the replica of the second, and they change places while both answer.
        await pair.FollowAsync(0);
        Assert.Equal(1, await WrittenToAsync());
        await pair.FailOverAsync(from: 1);
        await pair.FollowAsync(1);
        await Eventually.HoldsAsync(async () => Assert.Equal(0, await WrittenToAsync()));
        Assert.True(silent.Pending());

        async Task<int> WrittenToAsync()
        {
            await database.WriteAsync(transaction => transaction.ExecuteAsync("UPDATE checkpoints SET position = position"), Stopping);
            return await database.ReadAsync(connection => connection.ExecuteScalarAsync<int>("SELECT inet_server_port()"), Stopping) - PostgresPair.FirstPort;
        }
    }

    [Fact]
    public async Task The_mail_server()
    {
        await using var server = new FakeSmtpServer();
        await using var name = new SeveralAddresses(server.Port, forward: false);
        var channel = new EmailChannel(
            Options.Create(new AlertsOptions { Email = new EmailOptions { Enabled = true, Host = "localhost", Port = server.Port, Security = "None", From = "orders@example.org", To = ["admin@example.org"] } }),
            new Smtp(TimeProvider.System) { Resolve = name.ResolveAsync });
        var content = NotificationWorld.Content();

        Assert.Equal(new ChannelAnswer.Sent(), await channel.SendAsync(new Alert(1, content.Kind, null, content.Subject, AlertText.Plain(content), content, 1, TimeProvider.System.GetUtcNow()), Stopping));

        Assert.True(name.SilentWasTried);
        Assert.Single(server.Mails);
    }

    /// <remarks>The first that takes the connection is taken: whether it ever answers is another matter, and the alert is tried again.</remarks>
    [Fact]
    public async Task A_webhook()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        await using var name = new SeveralAddresses(endpoint.Url.Port);
        using var channel = new WebhookChannel(
            "webhook", WebhookFormat.Standard, new Uri($"http://hook.example:{name.Port}/"), [NotificationWorld.Secret], WebhookTarget.Handler(["hook.example"], name.ResolveWithoutSilentAsync), TimeProvider.System);
        var content = NotificationWorld.Content();

        Assert.Equal(new ChannelAnswer.Sent(), await channel.SendAsync(new Alert(1, content.Kind, null, content.Subject, AlertText.Plain(content), content, 1, TimeProvider.System.GetUtcNow()), Stopping));
    }

    [Fact]
    public async Task The_management_API()
    {
        var given = await broker.AddVirtualHostAsync();
        await using var name = new SeveralAddresses(broker.ManagementUri.Port);
        var options = new RabbitMqOptions { Uri = given, ManagementUri = new UriBuilder(broker.ManagementUri) { Host = "management.example", Port = name.Port }.Uri.ToString() };
        using var api = ManagementApi.Open(new BrokerConnector(Options.Create(options), TimeProvider.System) { Resolve = name.ResolveWithoutSilentAsync })!;

        using var answer = await api.GetAsync("exchanges", "amq.topic", "", Stopping);

        Assert.Equal("amq.topic", answer.RootElement.GetProperty("name").GetString());
    }

    [Fact]
    public async Task Who_refuses_everywhere_is_heard()
    {
        await using var name = new SeveralAddresses(1, forward: false);
        var connector = new BrokerConnector(
            Options.Create(new RabbitMqOptions { Uri = "amqp://guest:guest@localhost:1/", ConnectTimeout = TimeSpan.FromSeconds(3) }), TimeProvider.System) { Resolve = name.ResolveAsync };

        await Assert.ThrowsAsync<TimeoutException>(() => connector.OpenAsync("test", Stopping));
    }
}
