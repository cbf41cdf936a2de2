using OrderService.Store;
using Polly;
using Polly.Retry;

namespace OrderService.Notifications;

/// <summary>For writes that must not be dropped while the store is out of reach.</summary>
internal static class StoreRetry
{
    /// <summary>Tries again until the caller's token is cancelled.</summary>
    public static ResiliencePipeline Pipeline { get; } = new ResiliencePipelineBuilder()
        .AddRetry(new RetryStrategyOptions
        {
            ShouldHandle = new PredicateBuilder().Handle<StoreUnavailableException>(),
            MaxRetryAttempts = int.MaxValue,
            BackoffType = DelayBackoffType.Exponential,
            UseJitter = true,
            Delay = TimeSpan.FromMilliseconds(200),
            MaxDelay = TimeSpan.FromSeconds(15),
        })
        .Build();
}
