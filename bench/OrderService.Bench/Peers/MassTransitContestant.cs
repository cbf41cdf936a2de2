using MassTransit;
using OrderService.Bench.Contestants;
using OrderService.RabbitMq;

namespace OrderService.Bench.Peers;

/// <summary>MassTransit 8.5 without an outbox: consume, publish with its own confirms, ack. It stores nothing, so a copy is handled again.</summary>
internal static class MassTransitContestant
{
    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var builder = Host.CreateApplicationBuilder();
        builder.Logging.ClearProviders().AddSimpleConsole().SetMinimumLevel(LogLevel.Warning);
        builder.Services.AddMassTransit(bus =>
        {
            bus.DisableUsageTelemetry();
            bus.AddConsumer<PlaceOrderConsumer>();
            bus.UsingRabbitMq((context, rabbit) => Configure(context, rabbit, new Uri(settings.Broker)));
        });
        using var host = builder.Build();
        await host.StartAsync(stopping);
        await Stop.WhenAskedAsync(stopping);
        await host.StopAsync(CancellationToken.None);
    }

    private static void Configure(IBusRegistrationContext context, IRabbitMqBusFactoryConfigurator rabbit, Uri broker)
    {
        var user = Uri.UnescapeDataString(broker.UserInfo).Split(':');
        rabbit.Host(broker.Host, (ushort)broker.Port, broker.AbsolutePath.TrimStart('/'), host =>
        {
            host.Username(user[0]);
            host.Password(user[1]);
        });
        rabbit.UseRawJsonSerializer();
        rabbit.Message<OrderPlaced>(message => message.SetEntityName(TopologyNames.OrderEvents));
        rabbit.Publish<OrderPlaced>(publish =>
        {
            publish.ExchangeType = "topic";
            publish.SetExchangeArgument("alternate-exchange", TopologyNames.UnroutedEvents);
        });
        rabbit.Send<OrderPlaced>(send => send.UseRoutingKeyFormatter(_ => "order.placed"));
        rabbit.ReceiveEndpoint(TopologyNames.Orders, endpoint =>
        {
            // The queue is there already, as the service declares it; its exchange of the same name is MassTransit's own.
            endpoint.ConfigureConsumeTopology = false;
            endpoint.PrefetchCount = 500;
            foreach (var (name, value) in ServiceTopology.OrdersArguments)
            {
                endpoint.SetQueueArgument(name, value);
            }
            endpoint.UseRawJsonDeserializer(RawSerializerOptions.AnyMessageType, isDefault: true);
            endpoint.ConfigureConsumer<PlaceOrderConsumer>(context);
        });
    }

    private sealed class PlaceOrderConsumer : IConsumer<PlaceOrder>
    {
        public Task Consume(ConsumeContext<PlaceOrder> context)
        {
            var order = context.Message;
            return context.Publish(new OrderPlaced(order.OrderId, order.CustomerId, order.Currency, order.PlacedAt, order.Lines));
        }
    }
}
