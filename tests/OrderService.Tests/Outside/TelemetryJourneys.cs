using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.RegularExpressions;
using OrderService.Inbox;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Tests.Outside;

/// <summary>What an operator's own tools see: series that are there before anything happens, and one trace for one order.</summary>
public sealed class TelemetryJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string State = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

    [Fact]
    public async Task Without_a_collector_every_series_is_there_from_the_start_and_a_trace_context_passes_unchanged()
    {
        var address = await broker.AddVirtualHostAsync();
        // The other journey here is on SQLite.
        await using var service = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres);
        var metrics = "";
        await Eventually.HoldsAsync(async () =>
        {
            metrics = await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken);
            foreach (var reason in RejectionReason.All)
            {
                Zero(metrics, "orders_dead_lettered_total", $"reason=\"{reason}\"");
                Zero(metrics, "orders_dlq_parked_total", $"reason=\"{reason}\"");
            }
            foreach (var outcome in new[] { "accepted", "refused", "deferred" })
            {
                Zero(metrics, "orders_processed_total", $"outcome=\"{outcome}\"");
            }
            foreach (var outcome in new[] { "resolved", "failed" })
            {
                Zero(metrics, "orders_replays_total", $"outcome=\"{outcome}\"");
            }
            foreach (var name in new[] { "orders_received_total", "orders_duplicates_total", "orders_relayed_total", "orders_relay_failures_total", "orders_log_dropped_total" })
            {
                Zero(metrics, name, "");
            }
            foreach (var channel in new[] { "log", "email", "webhook", "slack", "teams" })
            {
                foreach (var outcome in new[] { "sent", "retried", "failed" })
                {
                    Zero(metrics, "orders_alerts_sent_total", $"channel=\"{channel}\",outcome=\"{outcome}\"");
                }
            }
        });

        await using var subscriber = await Subscriber.ListenAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        var queued = Parent("a1", "01");
        await shop.PublishAsync(TestMessage.Place("A-1") with
        {
            More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = queued, ["tracestate"] = State },
        });
        var posted = Parent("a2", "01");
        await PostAsync(service, "A-2", posted);
        // A command that waits for its order, and one that is refused: other ways to the same header.
        var early = Parent("a3", "01");
        var late = Parent("a4", "00");
        await shop.PublishAsync(TestMessage.Ship("A-3") with { More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = early, ["tracestate"] = State } });
        await shop.PublishAsync(TestMessage.Place("A-3"));
        await Eventually.TrueAsync(() => subscriber.Heard.ContainsKey("A-3.2"));
        await shop.PublishAsync(TestMessage.Of("order.cancel", "cancel-A-3", """{"orderId":"A-3","reason":"too late"}""") with
        {
            More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = late, ["tracestate"] = State },
        });

        await Eventually.TrueAsync(() => subscriber.Heard.Count == 5);
        Assert.Equal((queued, State), subscriber.Heard["A-1.1"]);
        Assert.Equal((posted, State), subscriber.Heard["A-2.1"]);
        Assert.Equal((early, State), subscriber.Heard["A-3.2"]);
        Assert.Equal((late, State), subscriber.Heard.Single(heard => heard.Key.StartsWith("A-3.refused", StringComparison.Ordinal)).Value);
        // The API and the CloudEvent have the trace parent alone; the chain of hashes is sound with both.
        Assert.Equal(queued, (await service.GetAsync("/api/orders/A-1/events")).GetProperty("items")[0].GetProperty("traceparent").GetString());
        var verified = await service.RunAsync("verify");
        Assert.True(verified.ExitCode == 0, verified.ToString());
    }

    [Fact]
    public async Task With_a_collector_one_order_is_one_trace_from_the_request_to_the_consumer()
    {
        await using var collector = await FakeCollector.StartAsync();
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Url,
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_BSP_SCHEDULE_DELAY"] = "200",
        });
        await using var subscriber = await Subscriber.ListenAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);

        var posted = Parent("b1", "01");
        await PostAsync(service, "B-1", posted);
        var queued = Parent("b2", "01");
        await shop.PublishAsync(TestMessage.Place("B-2") with { More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = queued, ["tracestate"] = State } });
        var unsampled = Parent("b3", "00");
        await shop.PublishAsync(TestMessage.Place("B-3") with { More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = unsampled } });

        await Eventually.TrueAsync(() => subscriber.Heard.Count == 3);
        foreach (var (order, parent) in new[] { ("B-1.1", posted), ("B-2.1", queued), ("B-3.1", unsampled) })
        {
            Assert.Equal(parent[..36], subscriber.Heard[order].Parent![..36]);
            Assert.Equal(parent[^2..], subscriber.Heard[order].Parent![^2..]);
        }
        Assert.Equal(State, subscriber.Heard["B-2.1"].State);
        await Eventually.HoldsAsync(() =>
        {
            Complete(collector.Spans, posted, subscriber.Heard["B-1.1"].Parent!, "POST /api/orders", "send orders.in", "process orders", "send order-events");
            Complete(collector.Spans, queued, subscriber.Heard["B-2.1"].Parent!, "process orders", "send order-events");
            return Task.CompletedTask;
        });
        // Nothing of these orders begins a trace of its own, and what is not sampled is not sent.
        Assert.Equal([posted[3..35], queued[3..35]], collector.Spans.Select(span => span.TraceId).Distinct().Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("http/protobuf")]
    [InlineData("grpc")]
    public async Task With_a_collector_log_lines_go_there_with_their_trace_and_say_who_sent_them(string protocol)
    {
        await using var collector = await FakeCollector.StartAsync();
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = protocol == "grpc" ? collector.GrpcUrl : collector.Url,
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol,
            ["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer%20t1",
            ["OTEL_RESOURCE_ATTRIBUTES"] = "deployment.environment=test",
            ["OTEL_BSP_SCHEDULE_DELAY"] = "200",
        });
        await using var shop = await TestProducer.ConnectAsync(address);

        // One waits for its order, and one can't be read.
        var (early, broken) = (Parent("c1", "01"), Parent("c2", "01"));
        await shop.PublishAsync(TestMessage.Ship("C-1") with { More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = early } });
        await shop.PublishAsync(TestMessage.Of("order.place", "broken-1", "{ 1") with { More = properties => properties.Headers = new Dictionary<string, object?> { ["traceparent"] = broken } });

        CollectedLine Of(string begins) => Assert.Single(collector.Lines, line => line.Text.StartsWith(begins, StringComparison.Ordinal));
        await Eventually.HoldsAsync(() =>
        {
            Assert.Contains(collector.Spans, span => span.Name == "process orders");
            Of("A command came before order");
            Of("A message was dead-lettered");
            return Task.CompletedTask;
        });
        Assert.Equal(0, await service.StopAsync());

        var (waits, dead) = (Of("A command came before order"), Of("A message was dead-lettered"));
        var span = collector.Spans.Single(span => span.Name == "process orders" && span.TraceId == early[3..35]);
        Assert.Equal(("Information", span.TraceId, span.SpanId, "C-1"), (waits.Severity, waits.TraceId, waits.SpanId, waits.Attributes["OrderId"]));
        // What can't be read has no span of its own here; the producer's is the nearest.
        Assert.Equal(("Warning", broken[3..35], broken[36..52]), (dead.Severity, dead.TraceId, dead.SpanId));
        Assert.Equal("OrderService.RabbitMq.OrderConsumer", waits.Category);
        // The same line of the console has them too.
        Assert.Contains($"\"@tr\":\"{waits.TraceId}\",\"@sp\":\"{waits.SpanId}\"", service.Output, StringComparison.Ordinal);
        // The last line of a stop is not lost.
        Of("Stopped: what was in hand");
        Assert.Equal("Bearer t1", collector.Authorization);
        Assert.Equal("order-service", waits.Resource["service.name"]);
        Assert.Equal("test", waits.Resource["deployment.environment"]);
        Assert.NotEqual("", waits.Resource["service.version"]);
        Assert.NotEqual("", waits.Resource["service.instance.id"]);
        Assert.Equal(span.Resource.OrderBy(pair => pair.Key, StringComparer.Ordinal), waits.Resource.OrderBy(pair => pair.Key, StringComparer.Ordinal));
        Assert.All(collector.Lines, line => Assert.Equal(waits.Resource.OrderBy(pair => pair.Key, StringComparer.Ordinal), line.Resource.OrderBy(pair => pair.Key, StringComparer.Ordinal)));
    }

    [Theory]
    [InlineData("http/protobuf", false)]
    [InlineData("http/protobuf", true)]
    [InlineData("grpc", false)]
    [InlineData("grpc", true)]
    public async Task A_collector_that_is_away_or_hangs_holds_up_neither_orders_nor_the_stop(string protocol, bool hangs)
    {
        await using var collector = await FakeCollector.StartAsync();
        collector.Hangs = true;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = !hangs ? "http://127.0.0.1:1" : protocol == "grpc" ? collector.GrpcUrl : $"{collector.Url}/v1/logs",
            ["OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"] = protocol,
        });
        await using var shop = await TestProducer.ConnectAsync(address);

        await shop.PublishAsync(Enumerable.Range(0, 300).Select(number => TestMessage.Of("order.place", $"broken-{number}", $"{{ {number}")));
        await shop.PublishAsync(Enumerable.Range(0, 50).Select(number => TestMessage.Place($"D-{number}")));

        await Eventually.HoldsAsync(async () => Assert.Equal(50, (await service.AllAsync("/api/orders")).Count));
        await Eventually.TrueAsync(() => !hangs || collector.LogRequests > 0);
        var stop = Stopwatch.StartNew();
        Assert.Equal(0, await service.StopAsync());
        // The flush has 2 s, and the rest of a stop that has nothing in hand is short.
        Assert.True(stop.Elapsed < TimeSpan.FromSeconds(15), $"The stop took {stop.Elapsed}.");
        Assert.Empty(collector.Lines);
    }

    [Fact]
    public async Task Without_an_exporter_of_logs_a_collector_gets_spans_alone()
    {
        await using var collector = await FakeCollector.StartAsync();
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Url,
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_LOGS_EXPORTER"] = "none",
        });
        await PostAsync(service, "E-1", Parent("e1", "01"));

        await Eventually.TrueAsync(() => collector.Spans.Count > 0);
        Assert.Equal(0, await service.StopAsync());

        Assert.Contains("Stopped: what was in hand", service.Output, StringComparison.Ordinal);
        Assert.Equal(0, collector.LogRequests);
    }

    private static void Complete(IReadOnlyList<CollectedSpan> all, string parent, string heard, params string[] names)
    {
        var spans = all.Where(span => span.TraceId == parent[3..35]).ToList();
        foreach (var name in names)
        {
            Assert.Contains(name, spans.Select(span => span.Name));
        }
        var known = spans.Select(span => span.SpanId).Append(parent[36..52]).ToHashSet();
        Assert.All(spans, span => Assert.Contains(span.ParentId, known));
        // What the consumer gets is the last publish's span.
        Assert.Contains(heard[36..52], spans.Select(span => span.SpanId));
    }

    private static string Parent(string number, string flags) => $"00-4bf92f3577b34da6a3ce929d0e0e47{number}-00f067aa0ba902{number}-{flags}";

    private static async Task PostAsync(ReleaseService service, string orderId, string parent)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri("/api/orders", UriKind.Relative)) { Content = new ByteArrayContent(TestMessage.Place(orderId).Body) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        request.Headers.Add("traceparent", parent);
        request.Headers.Add("tracestate", State);
        using var response = await service.Http.SendAsync(request, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Accepted, response.StatusCode);
    }

    private static void Zero(string metrics, string name, string labels) =>
        Assert.True(Regex.IsMatch(metrics, string.Create(CultureInfo.InvariantCulture, $@"(?m)^{name}(\{{[^}}]*{Regex.Escape(labels)}[^}}]*\}})? 0$")), $"{name} {{{labels}}} is not 0 from the start:\n{metrics}");

    /// <summary>A program that listens to events and keeps the trace context of each.</summary>
    private sealed class Subscriber(IConnection connection) : IAsyncDisposable
    {
        public ConcurrentDictionary<string, (string? Parent, string? State)> Heard { get; } = new();

        public static async Task<Subscriber> ListenAsync(string broker)
        {
            var connection = await new ConnectionFactory { Uri = new Uri(broker) }.CreateConnectionAsync();
            var subscriber = new Subscriber(connection);
            var channel = await connection.CreateChannelAsync();
            var queue = await channel.QueueDeclareAsync();
            await channel.QueueBindAsync(queue.QueueName, "order-events", "#");
            var consumer = new AsyncEventingBasicConsumer(channel);
            consumer.ReceivedAsync += (_, delivery) =>
            {
                subscriber.Heard[delivery.BasicProperties.MessageId!] = (Text(delivery, "traceparent"), Text(delivery, "tracestate"));
                return Task.CompletedTask;
            };
            await channel.BasicConsumeAsync(queue.QueueName, autoAck: true, consumer);
            return subscriber;
        }

        public ValueTask DisposeAsync() => connection.DisposeAsync();

        private static string? Text(BasicDeliverEventArgs delivery, string name) =>
            delivery.BasicProperties.Headers?.TryGetValue(name, out var value) == true && value is byte[] bytes ? Encoding.ASCII.GetString(bytes) : null;
    }
}
