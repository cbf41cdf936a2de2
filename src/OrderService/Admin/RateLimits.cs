using System.Globalization;
using System.Threading.RateLimiting;
using Microsoft.AspNetCore.RateLimiting;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>Two buckets for each request: its caller's and everybody's. Callers without a valid key share one small bucket.</summary>
internal static class RateLimits
{
    public static void Add(IServiceCollection services)
    {
        services.AddRateLimiter(_ => { });
        services.AddOptions<RateLimiterOptions>().Configure<IOptions<ApiOptions>>((limiter, api) =>
        {
            var limits = api.Value.RateLimit;
            limiter.GlobalLimiter = PartitionedRateLimiter.CreateChained(
                PartitionedRateLimiter.Create<HttpContext, string>(context => context.User.Identity is { IsAuthenticated: true, Name: { } name }
                    ? Bucket("key " + name, limits.PerKey, limits.PerKeyBurst)
                    // The sign-in page and its files are a handful of requests; guesses at keys are many.
                    : Bucket("anonymous", limits.Anonymous, limits.Anonymous * 5)),
                PartitionedRateLimiter.Create<HttpContext, string>(_ => Bucket("everybody", limits.Global, limits.GlobalBurst)));
            limiter.OnRejected = static async (rejected, _) =>
            {
                var seconds = rejected.Lease.TryGetMetadata(MetadataName.RetryAfter, out var wait) ? Math.Max(1, (int)Math.Ceiling(wait.TotalSeconds)) : 1;
                rejected.HttpContext.Response.Headers.RetryAfter = seconds.ToString(CultureInfo.InvariantCulture);
                await Problems.WriteAsync(rejected.HttpContext, StatusCodes.Status429TooManyRequests, "too_many_requests", "More requests came than this key may send; try again later.");
            };
        });
    }

    private static RateLimitPartition<string> Bucket(string name, int perSecond, int burst) => RateLimitPartition.GetTokenBucketLimiter(name, _ => new TokenBucketRateLimiterOptions
    {
        TokenLimit = Math.Max(perSecond, burst),
        TokensPerPeriod = Math.Max(1, perSecond / 10),
        ReplenishmentPeriod = perSecond >= 10 ? TimeSpan.FromMilliseconds(100) : TimeSpan.FromSeconds(1.0 / perSecond),
        QueueLimit = 0,
        AutoReplenishment = true,
    });
}
