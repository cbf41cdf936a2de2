using System.Collections.Concurrent;
using System.Text;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

public sealed class ConfirmedPublisherTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task What_a_queue_took_is_confirmed_and_persistent()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        var message = Message(TopologyNames.Orders, headers: new() { ["traceparent"] = "00-1", ["attempt"] = 3 });

        Assert.Equal(PublishOutcome.Confirmed.Instance, await publisher.PublishAsync(message, TestBroker.Stopping));

        await using var channel = await broker.ChannelAsync();
        var stored = (await channel.BasicGetAsync(TopologyNames.Orders, autoAck: true, TestBroker.Stopping))!;
        Assert.Equal(message.MessageId, stored.BasicProperties.MessageId);
        Assert.True(stored.BasicProperties.Persistent);
        Assert.Equal("application/json", stored.BasicProperties.ContentType);
        Assert.Equal("00-1", Encoding.UTF8.GetString((byte[])stored.BasicProperties.Headers!["traceparent"]!));
        Assert.Equal(3, stored.BasicProperties.Headers["attempt"]);
        Assert.DoesNotContain("x-dotnet-pub-seq-no", stored.BasicProperties.Headers.Keys);
        Assert.Null(message.Headers!.GetValueOrDefault("x-dotnet-pub-seq-no"));
    }

    [Fact]
    public async Task Thousands_share_the_window_and_each_has_one_outcome_in_order()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.MaxUnconfirmed = 100);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        var outcomes = new ConcurrentDictionary<string, PublishOutcome>();

        for (var number = 0; number < 5000; number++)
        {
            await publisher.PublishAsync(Message(TopologyNames.Orders), (message, outcome) => Assert.True(outcomes.TryAdd(message.MessageId, outcome)), TestBroker.Stopping);
            Assert.InRange(publisher.State.Unconfirmed, 0, 100);
        }

        await publisher.DrainAsync(TestBroker.Stopping);
        Assert.Equal(5000, outcomes.Count);
        Assert.All(outcomes.Values, outcome => Assert.IsType<PublishOutcome.Confirmed>(outcome));
        Assert.Equal(5000, publisher.State.Confirmed);
        Assert.Equal(0, publisher.State.Unconfirmed);
        Assert.Equal(5000u, await broker.ReadyAsync(TopologyNames.Orders));
    }

    [Fact]
    public async Task What_no_queue_wants_comes_back_as_returned_and_its_neighbours_are_confirmed()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();

        var publishes = new List<Task<PublishOutcome>>();
        for (var number = 0; number < 60; number++)
        {
            publishes.Add(publisher.PublishAsync(Message(number % 3 == 0 ? "nowhere" : TopologyNames.Orders), TestBroker.Stopping));
        }

        var outcomes = await Task.WhenAll(publishes);
        for (var number = 0; number < 60; number++)
        {
            if (number % 3 == 0)
            {
                Assert.Equal(312, Assert.IsType<PublishOutcome.Returned>(outcomes[number]).Code);
            }
            else
            {
                Assert.IsType<PublishOutcome.Confirmed>(outcomes[number]);
            }
        }

        Assert.Equal(20, publisher.State.Returned);
    }

    [Fact]
    public async Task What_a_full_queue_refuses_is_nacked()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.QueueDeclareAsync("small", true, false, false, new Dictionary<string, object?> { ["x-max-length"] = 1, ["x-overflow"] = "reject-publish" }, cancellationToken: TestBroker.Stopping);
        }

        await using var publisher = broker.Publisher();
        await publisher.PublishAsync(Message("small"), TestBroker.Stopping);

        Assert.IsType<PublishOutcome.Nacked>(await publisher.PublishAsync(Message("small"), TestBroker.Stopping));
    }

    [Fact]
    public async Task An_event_without_a_subscriber_is_kept_where_an_operator_can_see_it()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();

        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message("order.placed", TopologyNames.OrderEvents), TestBroker.Stopping));

        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.UnroutedEvents));
    }

    public static TheoryData<string, OutgoingMessage> Unsendable => new()
    {
        { "the headers need", Message(TopologyNames.Orders, headers: new() { ["stack"] = new string('x', 200_000) }, id: "1") },
        { "the routing key is longer", Message(new string('r', 300), id: "2") },
        { "the message id is longer", Message(TopologyNames.Orders, id: new string('é', 200)) },
        { "the message id is empty", Message(TopologyNames.Orders, id: "") },
        { "the name of a header is longer", Message(TopologyNames.Orders, headers: new() { [new string('k', 300)] = 1 }, id: "3") },
        { "which AMQP does not know", Message(TopologyNames.Orders, headers: new() { ["odd"] = new Uri("http://localhost") }, id: "4") },
        { "the body has", new OutgoingMessage { Exchange = "", RoutingKey = TopologyNames.Orders, MessageId = "5", Body = new byte[17 * 1024 * 1024] } },
    };

    [Theory]
    [MemberData(nameof(Unsendable))]
    public async Task What_would_harm_the_connection_is_refused_and_the_next_publish_is_confirmed(string reason, OutgoingMessage message)
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping));
        var connectedSince = publisher.State.Since;

        var outcome = await publisher.PublishAsync(message, TestBroker.Stopping);

        Assert.Contains(reason, Assert.IsType<PublishOutcome.Refused>(outcome).Reason, StringComparison.Ordinal);
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping));
        Assert.Equal(connectedSince, publisher.State.Since);
    }

    [Fact]
    public async Task Headers_that_just_fit_the_budget_are_sent()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();

        var message = Message(TopologyNames.Orders, headers: new() { ["big"] = new string('x', 16_000), ["nested"] = new Dictionary<string, object?> { ["list"] = new List<object?> { 1, "two", 3.0m, null } } });

        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(message, TestBroker.Stopping));
    }

    [Fact]
    public async Task A_deleted_exchange_is_declared_again_and_nothing_stays_without_an_outcome()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await using var publisher = broker.Publisher(broker.Topology.DeclareAsync);
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message("order.placed", TopologyNames.OrderEvents), TestBroker.Stopping));
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.ExchangeDeleteAsync(TopologyNames.OrderEvents, cancellationToken: TestBroker.Stopping);
        }

        var lost = await publisher.PublishAsync(Message("order.paid", TopologyNames.OrderEvents), TestBroker.Stopping);
        var again = await publisher.PublishAsync(Message("order.paid", TopologyNames.OrderEvents), TestBroker.Stopping);

        Assert.Contains("404", Assert.IsType<PublishOutcome.Unknown>(lost).Reason, StringComparison.Ordinal);
        Assert.IsType<PublishOutcome.Confirmed>(again);
    }

    [Fact]
    public async Task A_connection_lost_between_publish_and_confirm_leaves_the_outcome_unknown_and_the_next_one_works()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping);
        var outcomes = new ConcurrentBag<PublishOutcome>();
        using var enough = new CancellationTokenSource();

        Task flood = Task.Run(async () =>
        {
            while (!enough.IsCancellationRequested)
            {
                await publisher.PublishAsync(Message(TopologyNames.Orders), (_, outcome) => outcomes.Add(outcome), TestBroker.Stopping);
            }
        }, TestBroker.Stopping);
        await Eventually.TrueAsync(() => outcomes.Count > 100);
        await Eventually.TrueAsync(async () =>
        {
            if (outcomes.Any(outcome => outcome is PublishOutcome.Unknown))
            {
                return true;
            }
            // The flood may just have had nothing under way.
            await broker.ControlAsync("close_all_connections", "-p", broker.VirtualHost, "test");
            return false;
        });
        var confirmed = publisher.State.Confirmed;
        await Eventually.TrueAsync(() => publisher.State.Confirmed > confirmed + 100);
        await enough.CancelAsync();
        await flood;
        await publisher.DrainAsync(TestBroker.Stopping);

        Assert.Equal(0, publisher.State.Unconfirmed);
        Assert.Equal(outcomes.Count + 1, publisher.State.Confirmed + publisher.State.Unknown);
        Assert.InRange(publisher.State.Unknown, 1, broker.Options.MaxUnconfirmed * 2);
    }

    [Fact]
    public async Task Without_a_broker_a_publish_ends_in_time_with_the_reason()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options =>
        {
            options.Uri = "amqp://guest:guest@localhost:1/";
            options.ConfirmTimeout = TimeSpan.FromSeconds(1);
        });
        await using var publisher = broker.Publisher();

        var outcome = await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping);

        Assert.Contains("not connected (not reachable: ConnectionRefused)", Assert.IsType<PublishOutcome.Unknown>(outcome).Reason, StringComparison.Ordinal);
        Assert.False(publisher.State.Connected);
    }

    [Fact]
    public async Task Closing_gives_every_publish_its_outcome()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Uri = "amqp://guest:guest@localhost:1/");
        var publisher = broker.Publisher();
        var waiting = publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping);

        await publisher.DisposeAsync();

        Assert.IsType<PublishOutcome.Unknown>(await waiting);
        Assert.IsType<PublishOutcome.Unknown>(await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping));
    }

    [Fact]
    public async Task A_queue_that_gives_no_answer_costs_its_own_publishes_their_time_and_nobody_else()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.ConfirmTimeout = TimeSpan.FromSeconds(1));
        await broker.DeclareAsync();
        await using var channel = await broker.ChannelAsync();
        await channel.QueueDeclareAsync("hung", durable: true, exclusive: false, autoDelete: false, cancellationToken: TestBroker.Stopping);
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message("hung"), TestBroker.Stopping));
        var since = publisher.State.Since;
        await broker.HangAsync("hung");

        // Enough of them for two channels; the others get their confirms all the while.
        for (var round = 0; round < 3; round++)
        {
            var hung = Enumerable.Range(0, 8).Select(_ => publisher.PublishAsync(Message("hung"), TestBroker.Stopping)).ToList();
            for (var number = 0; number < 20; number++)
            {
                Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping));
            }
            Assert.All(await Task.WhenAll(hung), outcome => Assert.True(Assert.IsType<PublishOutcome.Unknown>(outcome).IsUnanswered, $"{outcome}"));
        }
        // Nothing else was sent: the broker is asked whether it still listens.
        Assert.True(Assert.IsType<PublishOutcome.Unknown>(await publisher.PublishAsync(Message("hung"), TestBroker.Stopping)).IsUnanswered);

        Assert.Equal((since, true), (publisher.State.Since, publisher.State.Connected));
        await broker.ResumeAsync("hung");
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message("hung"), TestBroker.Stopping));
    }

    [Fact]
    public async Task Of_several_messages_the_one_over_which_the_broker_closes_the_channel_is_found_and_the_others_get_through()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(TopologyNames.Orders), TestBroker.Stopping));
        // The broker wants a list there.
        var culprit = Message(TopologyNames.Orders, headers: new() { ["CC"] = "no list" }, id: "culprit");
        var messages = Enumerable.Range(0, 10).Select(number => Message(TopologyNames.Orders, id: $"m-{number}")).Append(culprit).Reverse().ToList();

        var outcomes = new Dictionary<string, PublishOutcome>();
        for (var round = 0; round < 3; round++)
        {
            var open = messages.Where(message => outcomes.GetValueOrDefault(message.MessageId) is null or PublishOutcome.Unknown).ToList();
            var sent = open.ConvertAll(message => publisher.PublishAsync(message, TestBroker.Stopping));
            foreach (var (message, outcome) in open.Zip(await Task.WhenAll(sent)))
            {
                outcomes[message.MessageId] = outcome;
            }
        }

        Assert.Contains("the broker refuses it", Assert.IsType<PublishOutcome.Refused>(outcomes["culprit"]).Reason, StringComparison.Ordinal);
        Assert.All(outcomes.Where(one => one.Key != "culprit"), one => Assert.IsType<PublishOutcome.Confirmed>(one.Value));
    }

    [Fact]
    public async Task Who_finds_no_place_in_time_is_told_so_and_nothing_is_sent()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options =>
        {
            options.MaxUnconfirmed = 1;
            options.ConfirmTimeout = TimeSpan.FromSeconds(1);
        });
        await broker.DeclareAsync();
        await using var channel = await broker.ChannelAsync();
        await channel.QueueDeclareAsync("hung", durable: true, exclusive: false, autoDelete: false, cancellationToken: TestBroker.Stopping);
        await using var publisher = broker.Publisher();
        await broker.HangAsync("hung");
        var first = publisher.PublishAsync(Message("hung"), TestBroker.Stopping);

        Assert.Null(await publisher.TryPublishAsync(Message(TopologyNames.Orders), TimeSpan.FromMilliseconds(50)));

        Assert.IsType<PublishOutcome.Unknown>(await first);
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.TryPublishAsync(Message(TopologyNames.Orders), TimeSpan.FromSeconds(10)));
        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.Orders));
        await broker.ResumeAsync("hung");
    }

    private static OutgoingMessage Message(string routingKey, string exchange = "", Dictionary<string, object?>? headers = null, string? id = null) =>
        new() { Exchange = exchange, RoutingKey = routingKey, MessageId = id ?? $"{Guid.NewGuid()}", Body = "{}"u8.ToArray(), Headers = headers };
}
