using Polly;
using Polly.CircuitBreaker;
using Polly.Retry;

namespace OrderService.RabbitMq;

/// <summary>How often the broker is tried: pauses that grow to a ceiling, with jitter, and a circuit breaker in front of the connecting itself.</summary>
internal sealed class Reconnection
{
    private readonly CircuitBreakerStateProvider state = new();
    private readonly ResiliencePipeline retry;
    private readonly ResiliencePipeline breaker;

    public Reconnection(RabbitMqOptions options, TimeProvider clock, Action<Exception, TimeSpan> onFailure)
    {
        retry = new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddRetry(new RetryStrategyOptions
            {
                // The client's own time-outs are cancellations too; only ours mean that we stop.
                ShouldHandle = static arguments => ValueTask.FromResult(arguments.Outcome.Exception is not null && !arguments.Context.CancellationToken.IsCancellationRequested),
                MaxRetryAttempts = int.MaxValue,
                // A message that ends connections has to be met again and again until the broker takes it away; there is nothing to wait for.
                DelayGenerator = arguments => ValueTask.FromResult<TimeSpan?>(Pause(arguments.Outcome.Exception is UnreadableMessageException ? 0 : arguments.AttemptNumber, options.MaxReconnectDelay)),
                OnRetry = arguments =>
                {
                    if (arguments.Outcome.Exception is not BrokenCircuitException)
                    {
                        // An attempt that was not made has nothing to tell; the last real reason stays.
                        onFailure(arguments.Outcome.Exception!, arguments.RetryDelay);
                    }

                    return default;
                },
            })
            .Build();
        breaker = new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddCircuitBreaker(new CircuitBreakerStrategyOptions
            {
                ShouldHandle = static arguments => ValueTask.FromResult(arguments.Outcome.Exception is not null && !arguments.Context.CancellationToken.IsCancellationRequested),
                FailureRatio = 0.9,
                MinimumThroughput = 5,
                SamplingDuration = TimeSpan.FromSeconds(30),
                BreakDuration = options.MaxReconnectDelay < TimeSpan.FromSeconds(0.5) ? TimeSpan.FromSeconds(0.5) : options.MaxReconnectDelay,
                StateProvider = state,
            })
            .Build();
    }

    /// <summary>True while attempts are not even made.</summary>
    public bool CircuitOpen => state.CircuitState is CircuitState.Open or CircuitState.Isolated;

    /// <summary>Runs until it ends without an exception, or the token is cancelled.</summary>
    public ValueTask RunAsync(Func<CancellationToken, ValueTask> attempt, CancellationToken stopping) => retry.ExecuteAsync(attempt, stopping);

    public ValueTask<T> ConnectAsync<T>(Func<CancellationToken, ValueTask<T>> connect, CancellationToken stopping) => breaker.ExecuteAsync(connect, stopping);

    // Half of every pause is chance, at the ceiling too: several instances must not come back in step.
    private static TimeSpan Pause(int attempt, TimeSpan ceiling)
    {
        TimeSpan grown = TimeSpan.FromSeconds(0.2 * Math.Pow(2, Math.Min(attempt, 10)));
        var capped = grown < ceiling ? grown : ceiling;
        return capped * (0.5 + (0.5 * Random.Shared.NextDouble()));
    }
}
