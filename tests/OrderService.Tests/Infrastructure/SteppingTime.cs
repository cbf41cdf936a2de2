using Microsoft.Extensions.Time.Testing;

namespace OrderService.Tests.Infrastructure;

/// <summary>A clock that can be set: its monotonic time does not notice.</summary>
public sealed class SteppingTime(DateTimeOffset start) : FakeTimeProvider(start)
{
    private TimeSpan offset;

    public void Step(TimeSpan by) => offset += by;

    public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + offset;

    // The base takes it from the time that is set here.
    public override long GetTimestamp() => base.GetUtcNow().Ticks;
}
