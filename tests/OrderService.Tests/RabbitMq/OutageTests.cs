using Microsoft.Extensions.Time.Testing;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

public sealed class OutageTests
{
    private readonly FakeTimeProvider clock = new();

    [Fact]
    public void The_cause_stays_behind_what_the_retries_meet()
    {
        var outage = new Outage(clock);
        const string Drained = "connection closed by the broker: 320 CONNECTION_FORCED - Node was put into maintenance mode";

        Assert.Equal(Drained, outage.Meet(Drained, out var first));
        Assert.True(first);
        Assert.Equal($"{Drained}; at the last attempt: not reachable: ConnectionReset", outage.Meet("not reachable: ConnectionReset", out _));

        // The echo may come first.
        var other = new Outage(clock);
        other.Meet("the other side closed the connection without a word", out _);
        Assert.Equal(Drained, other.Meet(Drained, out _));
        Assert.StartsWith(Drained, other.Meet("not reachable: ConnectionReset", out _), StringComparison.Ordinal);
    }

    [Fact]
    public void Reasons_that_alternate_are_one_line_each_and_one_in_ten_seconds()
    {
        var outage = new Outage(clock);
        var lines = 0;
        for (var second = 0; second < 120; second++)
        {
            foreach (var reason in new[] { "without a word", "ConnectionReset", "connection.start was never received" })
            {
                outage.Meet(reason, out var news);
                lines += news ? 1 : 0;
            }
            clock.Advance(TimeSpan.FromSeconds(1));
        }
        Assert.Equal(3, lines);

        outage.End();
        clock.Advance(TimeSpan.FromSeconds(10));
        outage.Meet("ConnectionReset", out var again);
        Assert.True(again);
    }

    [Fact]
    public void What_was_closed_while_it_was_in_use_is_told_in_words() =>
        Assert.Equal("the connection was closed", BrokerErrors.Describe(new ObjectDisposedException("System.Net.Sockets.Socket")));
}
