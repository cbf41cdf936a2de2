using System.Net;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using OrderService.Admin;

namespace OrderService.Tests.Http;

public sealed class ConnectionLimitTests
{
    private const string Proxy = "10.0.0.7";

    private readonly List<string> closed = [];

    [Fact]
    public async Task An_address_has_so_many_of_IPv6_a_network_of_64_bits_and_one_more_takes_the_place_of_its_oldest()
    {
        var limit = Limit(most: 100, mostOfAddress: 3);
        List<Visitor> sameNetwork = [.. Enumerable.Range(1, 5).Select(number => Enter(limit, $"2001:db8:1:2:{number:x}::{number:x}"))];
        List<Visitor> mapped = [.. Enumerable.Range(1, 4).Select(number => Enter(limit, number % 2 == 0 ? "203.0.113.7" : "::ffff:203.0.113.7"))];
        List<Visitor> others = [.. Enumerable.Range(1, 5).Select(number => Enter(limit, $"2001:db8:1:1{number:x3}::1"))];

        Assert.Equal([true, true, false, false, false], sameNetwork.Select(visitor => visitor.IsAborted));
        Assert.Equal([true, false, false, false], mapped.Select(visitor => visitor.IsAborted));
        Assert.All(others, visitor => Assert.False(visitor.IsAborted));
        Assert.Equal(["2001:db8:1:2::/64", "2001:db8:1:2::/64", "203.0.113.7"], closed);
        await LeaveAsync([.. sameNetwork, .. mapped, .. others]);
    }

    [Fact]
    public async Task A_connection_that_brought_a_key_is_never_closed_for_another_and_a_trusted_proxy_is_not_one_caller()
    {
        var limit = Limit(most: 10, mostOfAddress: 3);
        List<Visitor> proxied = [.. Enumerable.Range(1, 5).Select(_ => Enter(limit, Proxy))];
        List<Visitor> known = [.. Enumerable.Range(1, 4).Select(_ => Know(Enter(limit, "203.0.113.7")))];
        List<Visitor> strangers = [.. Enumerable.Range(1, 20).Select(number => Enter(limit, $"198.51.100.{number}"))];

        Assert.All(proxied, visitor => Assert.False(visitor.IsAborted));
        Assert.All(known, visitor => Assert.False(visitor.IsAborted));
        // There was room for one.
        Assert.Equal(19, strangers.Count(visitor => visitor.IsAborted));
        Assert.False(strangers[^1].IsAborted);
        Assert.False(Enter(limit, "203.0.113.7").IsAborted, "the one that may bring a key");

        await LeaveAsync([.. proxied, .. known, .. strangers]);
        List<Visitor> after = [.. Enumerable.Range(1, 9).Select(number => Know(Enter(limit, $"198.51.100.{number}")))];
        Assert.All(after, visitor => Assert.False(visitor.IsAborted));
        // All places are taken by callers with a key.
        Know(Enter(limit, "203.0.113.8"));
        Assert.True(Enter(limit, "203.0.113.9").IsAborted);
    }

    private ConnectionLimit Limit(int most, int mostOfAddress) => new(most, mostOfAddress, address => address.ToString() == Proxy, closed.Add);

    private static Visitor Enter(ConnectionLimit limit, string address)
    {
        var visitor = new Visitor { RemoteEndPoint = new IPEndPoint(IPAddress.Parse(address), 4711) };
        visitor.Served = limit.Limit(_ => visitor.Ends.Task)(visitor);
        return visitor;
    }

    private static Visitor Know(Visitor visitor)
    {
        ConnectionLimit.Know(new DefaultHttpContext(visitor.Features));
        return visitor;
    }

    private static Task LeaveAsync(List<Visitor> visitors)
    {
        visitors.ForEach(visitor => visitor.Ends.TrySetResult());
        return Task.WhenAll(visitors.Select(visitor => visitor.Served));
    }

    private sealed class Visitor : DefaultConnectionContext
    {
        public TaskCompletionSource Ends { get; } = new();

        public Task Served { get; set; } = Task.CompletedTask;

        public bool IsAborted { get; private set; }

        public override void Abort(ConnectionAbortedException abortReason) => IsAborted = true;
    }
}
