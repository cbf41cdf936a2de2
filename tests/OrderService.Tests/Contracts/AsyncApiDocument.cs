using System.Text.Json.Nodes;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.Tests.Contracts;

/// <summary>docs/asyncapi.yaml, from the code's own tables: names and arguments of the topology, routing keys, commands, events and their schemas.</summary>
internal static class AsyncApiDocument
{
    public static JsonObject Create(IReadOnlyDictionary<string, JsonObject> commands, IReadOnlyDictionary<string, JsonObject> events)
    {
        var topology = new Topology(Options.Create(new RabbitMqOptions()), NullLogger<Topology>.Instance);
        var channels = new JsonObject();
        foreach (var queue in topology.Queues.Where(queue => queue.Name is TopologyNames.Orders or TopologyNames.DeadLetters or TopologyNames.UnroutedEvents))
        {
            var carries = queue.Name == TopologyNames.UnroutedEvents ? events : commands;
            channels[queue.Name] = new JsonObject
            {
                ["address"] = queue.Name,
                ["description"] = queue.Name switch
                {
                    TopologyNames.Orders => "Commands in. Publish to the default exchange with this routing key; declare nothing.",
                    TopologyNames.DeadLetters => "What the broker dead-lettered, bytes untouched; the service parks it for an operator.",
                    _ => "Events that nobody subscribed to.",
                },
                ["messages"] = Messages(carries.Keys),
                ["bindings"] = new JsonObject
                {
                    ["amqp"] = new JsonObject { ["is"] = "queue", ["queue"] = new JsonObject { ["name"] = queue.Name, ["durable"] = true, ["exclusive"] = false, ["autoDelete"] = false, ["vhost"] = "/" }, ["bindingVersion"] = "0.3.0" },
                },
                ["x-arguments"] = Arguments(queue.Arguments),
            };
        }
        foreach (var exchange in topology.Exchanges.Where(exchange => exchange.Name is TopologyNames.OrdersIn or TopologyNames.OrderEvents))
        {
            channels[exchange.Name] = new JsonObject
            {
                ["address"] = exchange.Name,
                ["description"] = exchange.Name == TopologyNames.OrdersIn
                    ? "The same as the queue orders, for producers without rights on the default exchange."
                    : "Events out. Bind a queue of your own; order.* gets all. Each message's x-routing-key is its routing key.",
                ["messages"] = Messages(exchange.Name == TopologyNames.OrdersIn ? commands.Keys : events.Keys),
                ["bindings"] = new JsonObject
                {
                    ["amqp"] = new JsonObject { ["is"] = "routingKey", ["exchange"] = new JsonObject { ["name"] = exchange.Name, ["type"] = exchange.Type, ["durable"] = true, ["autoDelete"] = false, ["vhost"] = "/" }, ["bindingVersion"] = "0.3.0" },
                },
                ["x-arguments"] = Arguments(exchange.Arguments),
            };
        }
        var messages = new JsonObject();
        foreach (var (type, schema) in commands)
        {
            messages[type] = new JsonObject
            {
                ["name"] = type,
                ["title"] = $"The command {type}",
                ["contentType"] = "application/json",
                ["headers"] = Reference("schemas", "commandHeaders"),
                ["payload"] = Payload(schema),
                ["correlationId"] = new JsonObject { ["location"] = "$message.header#/correlation_id" },
                ["bindings"] = new JsonObject { ["amqp"] = new JsonObject { ["messageType"] = type, ["contentEncoding"] = "utf-8", ["bindingVersion"] = "0.3.0" } },
                ["examples"] = new JsonArray(new JsonObject { ["payload"] = schema["examples"]![0]!.DeepClone() }),
            };
        }
        foreach (var (type, schema) in events)
        {
            messages[type] = new JsonObject
            {
                ["name"] = type,
                ["title"] = $"The event {type}",
                ["contentType"] = CloudEventWriter.ContentType,
                ["headers"] = Reference("schemas", "eventHeaders"),
                ["payload"] = Payload(schema),
                ["x-routing-key"] = EventRoutingKey.Of(type),
            };
        }
        return new JsonObject
        {
            ["asyncapi"] = "3.0.0",
            ["info"] = new JsonObject
            {
                ["title"] = "Order service",
                ["version"] = "1.0.0",
                ["description"] = "Commands in and events out over RabbitMQ. In words: docs/messages.md. This file is written by ContractFileTests from the code's tables.",
                ["license"] = new JsonObject { ["name"] = "Apache-2.0", ["url"] = "https://www.apache.org/licenses/LICENSE-2.0" },
            },
            ["defaultContentType"] = "application/json",
            ["servers"] = new JsonObject
            {
                ["local"] = new JsonObject { ["host"] = "localhost:5672", ["protocol"] = "amqp", ["protocolVersion"] = "0.9.1", ["description"] = "As eng/up and Compose start it." },
            },
            ["channels"] = channels,
            ["operations"] = new JsonObject
            {
                ["takeCommands"] = Operation("receive", TopologyNames.Orders, commands.Keys, "Each command takes effect exactly once, is refused, waits for its order, or becomes a dead letter."),
                ["takeCommandsFromTheExchange"] = Operation("receive", TopologyNames.OrdersIn, commands.Keys, "The same."),
                ["publishEvents"] = Operation("send", TopologyNames.OrderEvents, events.Keys, "At least once; first occurrences in the order of each order's stream. Deduplicate by id."),
            },
            ["components"] = new JsonObject
            {
                ["messages"] = messages,
                ["schemas"] = new JsonObject
                {
                    ["commandHeaders"] = Headers(
                        ("message_id", "AMQP property: the idempotency key, 1 to 255 visible ASCII characters. Absent: a key is derived from type and body."),
                        ("correlation_id", "AMQP property: goes into every event and log line that follows."),
                        ("idempotency-key", "Header: the same as message_id, and wins over it."),
                        ("traceparent", "Header: W3C trace context."),
                        ("tracestate", "Header: W3C trace context.")),
                    ["eventHeaders"] = Headers(
                        ("message_id", "AMQP property: the event's id."),
                        ("x-relay-epoch", "Header, a number: how often the order's share of the streams had changed hands when this was published."),
                        ("traceparent", "Header: W3C trace context."),
                        ("tracestate", "Header: W3C trace context.")),
                },
            },
        };
    }

    private static JsonObject Operation(string action, string channel, IEnumerable<string> messages, string summary) => new()
    {
        ["action"] = action,
        ["channel"] = new JsonObject { ["$ref"] = $"#/channels/{channel}" },
        ["summary"] = summary,
        ["messages"] = new JsonArray([.. messages.Select(message => (JsonNode)new JsonObject { ["$ref"] = $"#/channels/{channel}/messages/{message}" })]),
    };

    private static JsonObject Messages(IEnumerable<string> names) => new(names.Select(name => KeyValuePair.Create(name, (JsonNode?)Reference("messages", name))));

    private static JsonObject Reference(string kind, string name) => new() { ["$ref"] = $"#/components/{kind}/{name}" };

    private static JsonObject Headers(params (string Name, string What)[] headers) => new()
    {
        ["type"] = "object",
        ["properties"] = new JsonObject(headers.Select(header => KeyValuePair.Create(
            header.Name, (JsonNode?)new JsonObject { ["type"] = header.Name == "x-relay-epoch" ? "integer" : "string", ["description"] = header.What }))),
    };

    private static JsonObject Arguments(IReadOnlyDictionary<string, object?> arguments) => new(arguments.Select(argument => KeyValuePair.Create(
        argument.Key, (JsonNode?)(argument.Value is string text ? JsonValue.Create(text) : JsonValue.Create(Convert.ToInt64(argument.Value, System.Globalization.CultureInfo.InvariantCulture))))));

    // What names the schema as a document of its own has no place inside another one.
    private static JsonObject Payload(JsonObject schema)
    {
        var payload = (JsonObject)schema.DeepClone();
        payload.Remove("$schema");
        payload.Remove("$id");
        payload.Remove("examples");
        return payload;
    }
}
