using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.RabbitMq;

public sealed class PropertyMappingTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Every_type_a_header_can_have_arrives_free_of_the_clients_types()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        var properties = new BasicProperties
        {
            MessageId = "m-1",
            CorrelationId = "c-1",
            Type = "order.place",
            ContentType = "application/json",
            ContentEncoding = "utf-8",
            AppId = "shop",
            UserId = "tests",
            ReplyTo = "nobody",
            Expiration = "60000",
            Timestamp = new AmqpTimestamp(1_700_000_000),
            Persistent = true,
            Priority = 4,
            Headers = new Dictionary<string, object?>
            {
                ["nothing"] = null,
                ["text"] = "grün",
                ["bytes"] = new byte[] { 0xff, 0xfe },
                ["true"] = true,
                ["byte"] = (byte)200,
                ["sbyte"] = (sbyte)-7,
                ["short"] = (short)-300,
                ["ushort"] = (ushort)60000,
                ["int"] = -70000,
                ["uint"] = 4_000_000_000u,
                ["long"] = 1L << 40,
                ["float"] = 1.5f,
                ["double"] = 2.25,
                ["decimal"] = 12.34m,
                ["time"] = new AmqpTimestamp(1_700_000_000),
                ["far"] = new AmqpTimestamp(long.MaxValue),
                ["binary"] = new BinaryTableValue([1, 2]),
                ["table"] = new Dictionary<string, object?> { ["inner"] = new List<object?> { "a", 1, new Dictionary<string, object?> { ["deep"] = "b" } } },
                ["x-delivery-count"] = 12,
            },
        };
        await using (var channel = await (await broker.ConnectionAsync()).CreateChannelAsync(new CreateChannelOptions(true, true), TestBroker.Stopping))
        {
            await channel.BasicPublishAsync("", TopologyNames.Orders, true, properties, "{}"u8.ToArray(), TestBroker.Stopping);
        }

        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var delivery = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);

        var read = delivery.Properties;
        Assert.Equal(("m-1", "c-1", "order.place", "application/json", "utf-8"), (read.MessageId, read.CorrelationId, read.Type, read.ContentType, read.ContentEncoding));
        Assert.Equal(("shop", "tests", "nobody", "60000", 1_700_000_000L), (read.AppId, read.UserId, read.ReplyTo, read.Expiration, read.Timestamp));
        Assert.Equal((2, 4), (read.DeliveryMode, read.Priority));
        var headers = read.Headers!;
        Assert.Null(headers["nothing"]);
        Assert.Equal("grün", headers["text"]);
        Assert.Equal(new byte[] { 0xff, 0xfe }, headers["bytes"]);
        Assert.Equal(true, headers["true"]);
        Assert.Equal((byte)200, headers["byte"]);
        Assert.Equal((sbyte)-7, headers["sbyte"]);
        Assert.Equal((short)-300, headers["short"]);
        Assert.Equal((ushort)60000, headers["ushort"]);
        Assert.Equal(-70000, headers["int"]);
        Assert.Equal(4_000_000_000u, headers["uint"]);
        Assert.Equal(1L << 40, headers["long"]);
        Assert.Equal(1.5f, headers["float"]);
        Assert.Equal(2.25, headers["double"]);
        Assert.Equal(12.34m, headers["decimal"]);
        Assert.Equal(DateTimeOffset.FromUnixTimeSeconds(1_700_000_000), headers["time"]);
        Assert.Equal(long.MaxValue, headers["far"]);
        Assert.Equal(new byte[] { 1, 2 }, headers["binary"]);
        var list = Assert.IsAssignableFrom<IReadOnlyList<object?>>(Assert.IsAssignableFrom<IReadOnlyDictionary<string, object?>>(headers["table"])["inner"]);
        Assert.Equal(["a", 1], list.Take(2));
        Assert.Equal("b", Assert.IsAssignableFrom<IReadOnlyDictionary<string, object?>>(list[2])["deep"]);

        // The producer wrote it; on a first delivery it means nothing.
        Assert.Equal(0, delivery.DeliveryCount);
        Assert.False(delivery.Redelivered);
    }

    [Fact]
    public void A_message_without_properties_has_none()
    {
        var read = PropertyMapping.Read(new BasicProperties());

        Assert.Null(read.MessageId);
        Assert.Null(read.Timestamp);
        Assert.Null(read.Headers);
        Assert.Equal(0, read.DeliveryMode);
    }

    [Fact]
    public void Nesting_without_end_is_cut_off_and_does_not_throw()
    {
        object? deep = "bottom";
        for (var level = 0; level < 500; level++)
        {
            deep = new Dictionary<string, object?> { ["in"] = deep };
        }

        var read = PropertyMapping.Read(new BasicProperties { Headers = new Dictionary<string, object?> { ["deep"] = deep } });

        var depth = 0;
        for (var at = read.Headers!["deep"]; at is IReadOnlyDictionary<string, object?> table; at = table["in"])
        {
            depth++;
        }

        Assert.Equal(32, depth);
    }

    [Theory]
    [InlineData(12L, true, 12)]
    [InlineData(12, true, 12)]
    [InlineData(12, false, 0)]
    [InlineData("12", true, 0)]
    [InlineData(-1, true, 0)]
    [InlineData(long.MaxValue, true, int.MaxValue)]
    public void The_delivery_count_is_read_from_whatever_integer_it_is(object value, bool redelivered, int count)
    {
        var properties = new MessageProperties { Headers = new Dictionary<string, object?> { ["x-delivery-count"] = value } };

        Assert.Equal(count, PropertyMapping.ReadDeliveryCount(properties, redelivered));
    }

    [Fact]
    public void What_was_read_can_be_written_again()
    {
        var headers = new Dictionary<string, object?> { ["text"] = "grün", ["raw"] = new byte[] { 0xff }, ["time"] = DateTimeOffset.FromUnixTimeSeconds(5), ["list"] = new List<object?> { 1, "x" }, ["large"] = 79228162514264337593543950335m };

        var written = PropertyMapping.Write(new OutgoingMessage { Exchange = "", RoutingKey = "q", MessageId = "1", Body = default, Headers = headers }, out var refusal);

        Assert.Null(refusal);
        var read = PropertyMapping.Read(written!);
        Assert.Equal("grün", read.Headers!["text"]);
        Assert.Equal(DateTimeOffset.FromUnixTimeSeconds(5), read.Headers["time"]);
        Assert.Equal("79228162514264337593543950335", read.Headers["large"]);
    }
}
