using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Threading.RateLimiting;
using Microsoft.AspNetCore.RateLimiting;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>Two buckets for each request: its caller's and everybody's. Callers without a valid key have a small one for each address, and another for all of them, so that they take nothing from those with a key.</summary>
internal static class RateLimits
{
    public static void Add(IServiceCollection services)
    {
        services.AddRateLimiter(_ => { });
        services.AddSingleton<SignInLimit>();
        services.AddOptions<RateLimiterOptions>().Configure<IOptions<ApiOptions>>((limiter, api) =>
        {
            var limits = api.Value.RateLimit;
            limiter.GlobalLimiter = PartitionedRateLimiter.CreateChained(
                PartitionedRateLimiter.Create<HttpContext, string>(context => context.User.Identity is { IsAuthenticated: true, Name: { } name }
                    ? Bucket(name, limits.PerKey, limits.PerKeyBurst)
                    // The sign-in page is a handful of requests; guesses at keys are many.
                    : Bucket("address " + NetworkOf(context), limits.Anonymous, limits.Anonymous * 5)),
                PartitionedRateLimiter.Create<HttpContext, string>(context => context.User.Identity is { IsAuthenticated: true }
                    ? Bucket("everybody", limits.Global, limits.GlobalBurst)
                    : Bucket("strangers", limits.Global, limits.GlobalBurst)));
            limiter.OnRejected = static async (rejected, _) =>
            {
                var seconds = rejected.Lease.TryGetMetadata(MetadataName.RetryAfter, out var wait) ? Math.Max(1, (int)Math.Ceiling(wait.TotalSeconds)) : 1;
                rejected.HttpContext.Response.Headers.RetryAfter = seconds.ToString(CultureInfo.InvariantCulture);
                await Problems.WriteAsync(rejected.HttpContext, StatusCodes.Status429TooManyRequests, "too_many_requests", "More requests came than this key may send; try again later.");
            };
        });
    }

    /// <summary>The address of the request's caller, of IPv6 the network that one customer of a provider has (/64).</summary>
    internal static string NetworkOf(HttpContext context) => NetworkOf(context.Connection.RemoteIpAddress);

    internal static string NetworkOf(IPAddress? remote)
    {
        var address = CallerRight.Plain(remote);
        if (address is not { AddressFamily: AddressFamily.InterNetworkV6 })
        {
            return address?.ToString() ?? "unknown";
        }
        var bytes = address.GetAddressBytes();
        bytes.AsSpan(8).Clear();
        return $"{new IPAddress(bytes)}/64";
    }

    internal static RateLimitPartition<string> Bucket(string name, int perSecond, int burst) => RateLimitPartition.GetTokenBucketLimiter(name, _ => new TokenBucketRateLimiterOptions
    {
        TokenLimit = Math.Max(perSecond, burst),
        TokensPerPeriod = Math.Max(1, perSecond / 10),
        ReplenishmentPeriod = perSecond >= 10 ? TimeSpan.FromMilliseconds(100) : TimeSpan.FromSeconds(1.0 / perSecond),
        QueueLimit = 0,
        AutoReplenishment = true,
    });
}

/// <summary>Wrong keys at the sign-in, for each address. A right key is not counted, so nobody can keep others out.</summary>
internal sealed class SignInLimit(IOptions<ApiOptions> options) : IDisposable
{
    private const int Burst = 10;

    private readonly PartitionedRateLimiter<HttpContext> limiter = PartitionedRateLimiter.Create<HttpContext, string>(
        context => RateLimits.Bucket(RateLimits.NetworkOf(context), options.Value.RateLimit.SignIn, options.Value.RateLimit.SignIn * Burst));

    /// <returns>False when too many came from this address.</returns>
    public bool TakeWrongKey(HttpContext context)
    {
        using var lease = limiter.AttemptAcquire(context);
        return lease.IsAcquired;
    }

    public void Dispose() => limiter.Dispose();
}
