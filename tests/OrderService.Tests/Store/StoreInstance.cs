using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Tests.Store;

/// <summary>One instance of the service as the store sees it: its connections and its log, with the real decider in front.</summary>
public sealed record StoreInstance(IDatabase Database, IOrderEventStore Log) : IAsyncDisposable
{
    private readonly BatchDecider decider = new(OrderRules.Default, TimeSpan.FromMinutes(15));

    public const long Now = 1_800_000_000_000;

    public static CancellationToken Token => TestContext.Current.CancellationToken;

    public EventQueries Events => new(Database);

    /// <summary>Decides and appends as the inbox does.</summary>
    /// <param name="reading">Called with the number of the attempt after the store was read and before the answer is written.</param>
    public Task<Append> AppendAsync(IReadOnlyList<Incoming> batch, Action<int>? reading = null)
    {
        var attempt = 0;
        return Log.AppendAsync(
            InboxCommit.Query(batch),
            state =>
            {
                var append = decider.Decide(batch, state, Now, keyOf: Log.Keys.OfCustomer);
                reading?.Invoke(++attempt);
                return append;
            },
            Token);
    }

    /// <summary>Decides as many of the commands that waited for an order as one transaction takes.</summary>
    public Task<Append> DecideBacklogAsync(string orderId) => Log.AppendAsync(InboxCommit.BacklogQuery(orderId), state => decider.DecideBacklog(state, Now), Token);

    public Task<Append> AppendAsync(params Incoming[] batch) => AppendAsync(batch, null);

    public ValueTask DisposeAsync() => Database.DisposeAsync();
}
