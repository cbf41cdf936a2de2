namespace OrderService.RabbitMq;

/// <summary>One connection, channel and consumer, built together and thrown away together. A delivery can be settled only while its generation lives.</summary>
public sealed class Generation(int number)
{
    private readonly TaskCompletionSource<string> _dead = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _isAlive = true;

    /// <summary>1 for the first; never reused.</summary>
    public int Number { get; } = number;

    /// <summary>False once nothing more can be settled: the broker has taken back, or will, what was unsettled.</summary>
    public bool IsAlive => _isAlive;

    /// <summary>Completes with the reason, in plain words, when the generation is dead.</summary>
    public Task<string> Dead => _dead.Task;

    /// <summary>The first reason stays.</summary>
    internal bool Kill(string reason)
    {
        _isAlive = false;
        return _dead.TrySetResult(reason);
    }

    public override string ToString() => $"generation {Number}";
}
