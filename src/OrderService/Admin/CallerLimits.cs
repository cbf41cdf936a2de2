using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>What a caller with a key may have under way at once of that which costs much, and what all callers may: one key must not slow the orders, nor take what others need.</summary>
internal sealed class CallerLimits(IOptions<ApiOptions> options) : IDisposable
{
    private const int ScansOfCaller = 2;
    private const int Scans = 4;
    private const int ExportsOfCaller = 2;
    private const int Exports = 8;
    private const int ReadsOfCaller = 8;
    private const int AllReads = 16;
    private const int TestAlerts = 10;

    /// <summary>Looks through the letters; they wait for one another, because a page asks for several things at once.</summary>
    public PartitionedRateLimiter<HttpContext> Searches { get; } = AtOnce(ScansOfCaller, Scans, waiting: 50);

    /// <summary>Everything else that reads: SQLite has no bound of its own on how many read at once, and each takes time from the orders.</summary>
    public PartitionedRateLimiter<HttpContext> Reads { get; } = AtOnce(ReadsOfCaller, AllReads, waiting: 200);

    public PartitionedRateLimiter<HttpContext> Downloads { get; } = AtOnce(ExportsOfCaller, Exports, waiting: 0);

    /// <summary>How many there may be in all is <see cref="LiveStream"/>'s to say.</summary>
    public PartitionedRateLimiter<HttpContext> Streams { get; } = OfCaller(options.Value.MaxStreamsPerCaller, waiting: 0);

    /// <summary>Each is a mail or a message to people.</summary>
    public PartitionedRateLimiter<HttpContext> Tests { get; } = PartitionedRateLimiter.Create<HttpContext, string>(_ => RateLimitPartition.GetTokenBucketLimiter("all", _ => new TokenBucketRateLimiterOptions
    {
        TokenLimit = TestAlerts,
        TokensPerPeriod = 1,
        ReplenishmentPeriod = TimeSpan.FromMinutes(1) / TestAlerts,
        QueueLimit = 0,
    }));

    public void Dispose()
    {
        Reads.Dispose();
        Searches.Dispose();
        Downloads.Dispose();
        Streams.Dispose();
        Tests.Dispose();
    }

    private static PartitionedRateLimiter<HttpContext> AtOnce(int ofCaller, int ofAll, int waiting) => PartitionedRateLimiter.CreateChained(
        OfCaller(ofCaller, waiting),
        PartitionedRateLimiter.Create<HttpContext, string>(_ => Partition("all", ofAll, waiting * 4)));

    private static PartitionedRateLimiter<HttpContext> OfCaller(int most, int waiting) =>
        PartitionedRateLimiter.Create<HttpContext, string>(context => Partition(context.User.Identity?.Name ?? "", most, waiting));

    private static RateLimitPartition<string> Partition(string name, int most, int waiting) => RateLimitPartition.GetConcurrencyLimiter(name, _ => new ConcurrencyLimiterOptions
    {
        PermitLimit = most,
        QueueLimit = waiting,
        QueueProcessingOrder = QueueProcessingOrder.OldestFirst,
    });
}

internal static class CallerLimitsExtensions
{
    /// <summary>Refuses a request with 429 when its caller, or all of them, have enough of its kind under way.</summary>
    /// <param name="what">Such as <c>exports</c>.</param>
    public static RouteHandlerBuilder Within(this RouteHandlerBuilder endpoint, Func<CallerLimits, PartitionedRateLimiter<HttpContext>> limit, string what) =>
        endpoint.WithMetadata(new OwnLimit()).AddEndpointFilter((invocation, next) => LimitAsync(invocation, next, limit, what));

    /// <summary>What reads and has no limit of its own shares one.</summary>
    public static RouteGroupBuilder ReadsWithin(this RouteGroupBuilder group, Func<CallerLimits, PartitionedRateLimiter<HttpContext>> limit) => group.AddEndpointFilter((invocation, next) =>
        HttpMethods.IsGet(invocation.HttpContext.Request.Method) && invocation.HttpContext.GetEndpoint()?.Metadata.GetMetadata<OwnLimit>() is null
            ? LimitAsync(invocation, next, limit, "reads")
            : next(invocation));

    private static async ValueTask<object?> LimitAsync(
        EndpointFilterInvocationContext invocation, EndpointFilterDelegate next, Func<CallerLimits, PartitionedRateLimiter<HttpContext>> limit, string what)
    {
        var context = invocation.HttpContext;
        using var lease = await limit(context.RequestServices.GetRequiredService<CallerLimits>()).AcquireAsync(context, 1, context.RequestAborted);
        return lease.IsAcquired ? await next(invocation) : Problems.RetryLater(StatusCodes.Status429TooManyRequests, "too_many_requests", $"There are too many {what} at once; try again later.", 10);
    }

    private sealed class OwnLimit;
}
