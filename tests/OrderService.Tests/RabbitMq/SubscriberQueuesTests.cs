using System.Text.Json;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

/// <summary>What the management API says of a subscriber's queue, read as a person would.</summary>
public sealed class SubscriberQueuesTests
{
    [Theory]
    [InlineData("#", "order.placed", true)]
    [InlineData("order.*", "order.placed", true)]
    [InlineData("order.placed", "order.placed", true)]
    [InlineData("#.placed", "order.placed", true)]
    [InlineData("order.#", "order", true)]
    [InlineData("*.*.#", "order.placed", true)]
    [InlineData("*", "order.placed", false)]
    [InlineData("order.paid", "order.placed", false)]
    [InlineData("order.*.now", "order.placed", false)]
    [InlineData("", "order.placed", false)]
    public void A_binding_wants_what_its_pattern_says(string pattern, string routingKey, bool wants) => Assert.Equal(wants, SubscriberQueues.Matches(pattern, routingKey));

    [Theory]
    [InlineData("""{"state":"running","arguments":{"x-max-length":1,"x-overflow":"reject-publish"},"messages_ready":1,"consumers":0}""", "The queue q is full: 1 of at most 1 messages, and nobody consumes.")]
    [InlineData("""{"effective_policy_definition":{"max-length":5,"overflow":"reject-publish"},"arguments":{},"messages_ready":7,"consumers":2}""", "The queue q is full: 7 of at most 5 messages, and 2 consumers.")]
    [InlineData("""{"arguments":{"x-max-length-bytes":1000,"x-overflow":"reject-publish-dlx"},"message_bytes_ready":990}""", "The queue q is full: 990 of at most 1000 bytes.")]
    [InlineData("""{"state":"down"}""", "The queue q is down.")]
    [InlineData("""{"type":"quorum","leader":"","members":["a","b","c"],"online":["a"]}""", "The queue q has no leader: 1 of its 3 members are online.")]
    [InlineData("""{"state":"running","arguments":{"x-max-length":5,"x-overflow":"drop-head"},"messages_ready":7}""", null)]
    [InlineData("""{"state":"running","arguments":{"x-max-length":5,"x-overflow":"reject-publish"},"messages_ready":4}""", null)]
    [InlineData("""{"arguments":[],"effective_policy_definition":[],"messages_ready":"many","message_stats":[]}""", null)]
    [InlineData("{}", null)]
    public void A_queue_that_takes_nothing_is_explained(string json, string? sentence) => Assert.Equal(sentence, SubscriberQueues.Explain("q", JsonDocument.Parse(json).RootElement));
}
