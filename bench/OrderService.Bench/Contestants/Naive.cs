using System.Collections.Concurrent;
using System.Data.Common;
using System.Diagnostics;
using System.Text.Json;
using Dapper;
using Microsoft.Data.Sqlite;
using Npgsql;
using OrderService.Bench.Measurement;
using OrderService.RabbitMq;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Bench.Contestants;

/// <summary>
/// What is written first: for each message a transaction (inbox and event), then a publish whose confirm the client awaits, then an ack; 16 at once.
/// It loses the event of an order when it dies between commit and publish, decodes without checking, and has no hash chain and no read model.
/// </summary>
internal sealed class Naive(ContestantSettings settings, CommitTimes commits, IChannel orders, IChannel events) : IDisposable
{
    private const int Concurrency = 16;
    private readonly ConcurrentBag<DbConnection> connections = [];

    // SQLite's own way to wait for the writer before is to sleep and look again; a lock in the process is kinder to the contestant.
    private readonly SemaphoreSlim writer = new(1);

    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var factory = new ConnectionFactory { Uri = new Uri(settings.Broker), AutomaticRecoveryEnabled = false, TopologyRecoveryEnabled = false };
        await using var connection = await factory.CreateConnectionAsync("bench naive", stopping);
        await using var events = await connection.CreateChannelAsync(new CreateChannelOptions(true, true, null, null), stopping);
        await using var orders = await connection.CreateChannelAsync(new CreateChannelOptions(false, false, null, Concurrency), stopping);
        using var naive = new Naive(settings, commits, orders, events);
        await naive.MigrateAsync();
        await orders.BasicQosAsync(0, Concurrency * 4, false, stopping);
        var consumer = new AsyncEventingBasicConsumer(orders);
        consumer.ReceivedAsync += (_, delivery) => naive.HandleAsync(delivery);
        var tag = await orders.BasicConsumeAsync(TopologyNames.Orders, autoAck: false, consumer, stopping);
        await Stop.WhenAskedAsync(stopping);
        await orders.BasicCancelAsync(tag, cancellationToken: CancellationToken.None);
    }

    private async Task HandleAsync(BasicDeliverEventArgs delivery)
    {
        var key = delivery.BasicProperties.MessageId!;
        var body = delivery.Body.ToArray();
        var order = JsonSerializer.Deserialize<PlaceOrder>(body, JsonSerializerOptions.Web)!;
        if (await CommitAsync(key, order.OrderId, body))
        {
            commits.Add([Workload.NumberOf(order.OrderId, [])], Stopwatch.GetTimestamp());
            await events.BasicPublishAsync(
                TopologyNames.OrderEvents, "order.placed", true,
                new BasicProperties { MessageId = order.OrderId + ".1", ContentType = "application/json", Type = "ORDER_PLACED", DeliveryMode = DeliveryModes.Persistent }, body);
        }
        await orders.BasicAckAsync(delivery.DeliveryTag, multiple: false);
    }

    private async Task<bool> CommitAsync(string key, string orderId, byte[] body)
    {
        if (settings.Store == StoreKind.Sqlite)
        {
            await writer.WaitAsync();
        }
        try
        {
            if (!connections.TryTake(out var connection))
            {
                connection = await OpenAsync();
            }
            await using (var transaction = await connection.BeginTransactionAsync())
            {
                var isNew = await connection.ExecuteAsync("INSERT INTO naive_inbox (key) VALUES (@key) ON CONFLICT DO NOTHING", new { key }, transaction) == 1;
                if (isNew)
                {
                    await connection.ExecuteAsync("INSERT INTO naive_events (order_id, version, data) VALUES (@orderId, 1, @body)", new { orderId, body }, transaction);
                }
                await transaction.CommitAsync();
                connections.Add(connection);
                return isNew;
            }
        }
        finally
        {
            if (settings.Store == StoreKind.Sqlite)
            {
                writer.Release();
            }
        }
    }

    private async Task MigrateAsync()
    {
        var connection = await OpenAsync();
        var bytes = settings.Store == StoreKind.Sqlite ? "BLOB" : "bytea";
        await connection.ExecuteAsync($"""
            CREATE TABLE naive_inbox (key TEXT NOT NULL PRIMARY KEY);
            CREATE TABLE naive_events (order_id TEXT NOT NULL, version INTEGER NOT NULL, data {bytes} NOT NULL, PRIMARY KEY (order_id, version));
            """);
        connections.Add(connection);
    }

    private async Task<DbConnection> OpenAsync()
    {
        DbConnection connection = settings.Store == StoreKind.Sqlite
            ? new SqliteConnection($"Data Source={settings.SqlitePath};Pooling=False")
            : new NpgsqlConnection(settings.PostgresConnection);
        await connection.OpenAsync();
        if (settings.Store == StoreKind.Sqlite)
        {
            await connection.ExecuteAsync("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 30000;");
        }
        return connection;
    }

    public void Dispose()
    {
        foreach (var connection in connections)
        {
            connection.Dispose();
        }
        writer.Dispose();
    }
}

/// <summary>An order as contestants read it that have no decoder of their own.</summary>
public sealed record PlaceOrder(string OrderId, string CustomerId, string Currency, DateTimeOffset PlacedAt, IReadOnlyList<PlaceOrderLine> Lines);

/// <summary>One line of it.</summary>
public sealed record PlaceOrderLine(string Sku, int Quantity, decimal UnitPrice);

/// <summary>The event such contestants publish.</summary>
public sealed record OrderPlaced(string OrderId, string CustomerId, string Currency, DateTimeOffset PlacedAt, IReadOnlyList<PlaceOrderLine> Lines);
