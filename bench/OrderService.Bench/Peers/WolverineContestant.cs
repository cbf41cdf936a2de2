using JasperFx;
using OrderService.Bench.Contestants;
using OrderService.RabbitMq;
using Wolverine;
using Wolverine.Postgresql;
using Wolverine.RabbitMQ;

namespace OrderService.Bench.Peers;

/// <summary>Wolverine with its durable inbox (which knows copies by their message id) and its durable outbox, both in PostgreSQL. It stores no events of its own.</summary>
internal static class WolverineContestant
{
    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var builder = Host.CreateApplicationBuilder();
        builder.Logging.ClearProviders().AddSimpleConsole().SetMinimumLevel(LogLevel.Warning);
        builder.UseWolverine(options =>
        {
            options.Durability.Mode = DurabilityMode.Solo;
            options.AutoBuildMessageStorageOnStartup = AutoCreate.CreateOrUpdate;
            options.PersistMessagesWithPostgresql(settings.PostgresConnection, "wolverine");
            options.UseRabbitMq(new Uri(settings.Broker));
            options.ListenToRabbitQueue(TopologyNames.Orders, queue =>
            {
                foreach (var (name, value) in ServiceTopology.OrdersArguments)
                {
                    queue.Arguments[name] = value!;
                }
            }).PreFetchCount(500).DefaultIncomingMessage<PlaceOrder>().UseDurableInbox();
            options.PublishMessage<OrderPlaced>().ToRabbitRoutingKey(TopologyNames.OrderEvents, "order.placed").UseDurableOutbox();
            options.Discovery.DisableConventionalDiscovery().IncludeType(typeof(PlaceOrderHandler));
        });
        using var host = builder.Build();
        await host.StartAsync(stopping);
        await Stop.WhenAskedAsync(stopping);
        await host.StopAsync(CancellationToken.None);
    }
}

/// <summary>Found by name; what it returns is published.</summary>
public static class PlaceOrderHandler
{
    public static OrderPlaced Handle(PlaceOrder order) => new(order.OrderId, order.CustomerId, order.Currency, order.PlacedAt, order.Lines);
}
