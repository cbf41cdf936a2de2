using System.Globalization;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Where a replay job stands; stable strings.</summary>
public static class ReplayJobState
{
    public const string Running = "running";
    public const string Paused = "paused";

    /// <summary>A canary that halted by itself because letters failed again; the rest was left untouched.</summary>
    public const string Stopped = "stopped";

    public const string Cancelled = "cancelled";
    public const string Done = "done";
}

/// <summary>How a job goes about its letters; stable strings.</summary>
public static class ReplayMode
{
    /// <summary>One letter, then five, then 5 % at a time; each step waits for the outcomes of the one before.</summary>
    public const string Canary = "canary";

    /// <summary>One after the other, whatever becomes of them.</summary>
    public const string All = "all";
}

/// <summary>What an operator asks for.</summary>
/// <param name="Selection">Which letters; fixed when the job is made.</param>
/// <param name="Mode">One of <see cref="ReplayMode"/>.</param>
/// <param name="Patch">What is changed in each letter before it goes out.</param>
/// <param name="RatePerSecond">At most so many letters a second; more than 0, at most <see cref="MostPerSecond"/>.</param>
public sealed record ReplayJobRequest(
    LetterSelection Selection, Caller Who, string Reason, string Mode = ReplayMode.Canary, double RatePerSecond = 10, LetterPatch? Patch = null)
{
    public const double MostPerSecond = 10_000;
}

/// <summary>A replay of many letters and how far it has come.</summary>
/// <param name="State">One of <see cref="ReplayJobState"/>.</param>
/// <param name="Total">How many letters it has.</param>
/// <param name="Sent">How many were sent, whatever became of them.</param>
/// <param name="Succeeded">Sent and settled: accepted, refused, deferred or known already.</param>
/// <param name="Failed">Sent and parked again.</param>
/// <param name="Skipped">Not sent because somebody else had been faster, or because they may not be sent.</param>
/// <param name="StateBy">Who brought it into its state.</param>
/// <param name="Waiting">What it waits for, in words; null when it does not.</param>
/// <param name="StopReason">Why a canary stopped, or why the service paused the job; null when a person paused it.</param>
/// <param name="CurrentRate">Letters a second over the last seconds; null unless it runs.</param>
/// <param name="Failures">Letters that failed again, at most 100; only with a single job.</param>
/// <param name="Skips">Letters that were not sent, and why, at most 100; only with a single job.</param>
/// <param name="Patch">What is changed in each letter; null when they go out as they came.</param>
public sealed record ReplayJob(
    long Id, string State, string Mode, double RatePerSecond, long? Limit, bool Confirmed, string Reason, string RequestedBy, DateTimeOffset RequestedAt, DateTimeOffset? StartedAt, DateTimeOffset? FinishedAt,
    long Total, long Sent, long Succeeded, long Failed, long Skipped, string StateBy, DateTimeOffset StateAt, string? Waiting, string? StopReason,
    double? CurrentRate = null, IReadOnlyList<ReplayFailure>? Failures = null, IReadOnlyList<ReplayFailure>? Skips = null,
    System.Text.Json.JsonElement? Patch = null)
{
    /// <summary>Letters that were not looked at yet.</summary>
    public long Untouched => Total - Sent - Skipped;

    /// <summary>Letters on their way.</summary>
    public long UnderWay => Sent - Succeeded - Failed;

    public bool IsOver => State is ReplayJobState.Stopped or ReplayJobState.Cancelled or ReplayJobState.Done;

    /// <summary>How long the rest will take; null when that can't be told.</summary>
    public double? EtaSeconds => CurrentRate is > 0 and var rate ? Math.Ceiling((Untouched + UnderWay) / rate) : null;

    /// <summary>The step of a canary, for people; null in the other mode.</summary>
    public string? Stage => Mode == ReplayMode.Canary ? string.Create(CultureInfo.InvariantCulture, $"canary {Math.Min(ReplayPlan.StepEnd(this), Total - Skipped)} of {Total}") : null;
}

/// <summary>A letter that failed again in a job, or was not sent.</summary>
public sealed record ReplayFailure(long LetterId, string? OrderId, string Reason, string Detail);

/// <summary>What became of a request about a job.</summary>
public abstract record ReplayJobAnswer
{
    private ReplayJobAnswer() { }

    public sealed record Done(ReplayJob Job) : ReplayJobAnswer;

    public sealed record NotFound : ReplayJobAnswer;

    /// <summary>The job's state does not allow it; says who was first and when.</summary>
    public sealed record Conflict(string Code, string Detail) : ReplayJobAnswer;
}

/// <summary>What a running job does next: pure, from its counts alone, so that it goes on after a restart as if there had been none.</summary>
public abstract record ReplayPlan
{
    private const int SecondStep = 5;
    private const double LaterSteps = 0.05;

    private ReplayPlan() { }

    /// <summary>Send up to so many letters.</summary>
    public sealed record Send(long Most) : ReplayPlan;

    /// <summary>Wait, and say for what.</summary>
    public sealed record Wait(string What) : ReplayPlan;

    /// <summary>Too many failed again; leave the rest untouched.</summary>
    public sealed record Stop(string Why) : ReplayPlan;

    /// <summary>Every letter has its outcome.</summary>
    public sealed record Finish : ReplayPlan;

    /// <param name="queueDepth">How many messages are ready in the queue; null when that is not known.</param>
    /// <param name="pauseAbove">Waits while the queue is deeper than this, or while more of the job's own letters are on their way.</param>
    /// <param name="tolerated">The share of failures that a canary goes on with.</param>
    /// <param name="intakePaused">Why the queues are not taken in; null while they are.</param>
    public static ReplayPlan Next(ReplayJob job, long? queueDepth, int pauseAbove, double tolerated, string? intakePaused = null)
    {
        if (job.Mode == ReplayMode.Canary && job.Failed > tolerated * job.Sent)
        {
            return new Stop(string.Create(CultureInfo.InvariantCulture, $"{job.Failed} of {job.Sent} letters failed again; at most {tolerated * 100:0.#} % may."));
        }
        if (job.Untouched == 0)
        {
            return job.UnderWay == 0 ? new Finish() : WaitForOutcomes(job);
        }
        var most = job.Untouched;
        if (job.Mode == ReplayMode.Canary)
        {
            var end = StepEnd(job);
            if (job.Sent == end)
            {
                // The step is out; StepEnd goes up once all of it has an outcome.
                return WaitForOutcomes(job);
            }
            most = Math.Min(most, end - job.Sent);
        }
        if (intakePaused is not null)
        {
            return new Wait($"{intakePaused.TrimEnd('.')}. It goes on when intake does.");
        }
        if (queueDepth > pauseAbove)
        {
            return new Wait(string.Create(CultureInfo.InvariantCulture, $"The queue orders is {queueDepth:N0} messages deep; it goes on below {pauseAbove + 1:N0}."));
        }
        return job.UnderWay >= pauseAbove ? WaitForOutcomes(job) : new Send(Math.Min(most, pauseAbove - job.UnderWay));
    }

    /// <summary>How many letters may have been sent by the end of the step that a canary is in.</summary>
    internal static long StepEnd(ReplayJob job)
    {
        var later = Math.Max(SecondStep, (long)Math.Ceiling(job.Total * LaterSteps));
        long end = 1;
        while (end < job.Sent || (end == job.Sent && job.UnderWay == 0))
        {
            end += end == 1 ? SecondStep : later;
        }
        return end;
    }

    private static Wait WaitForOutcomes(ReplayJob job) => new($"Waits for the outcome of {(job.UnderWay == 1 ? "one letter" : string.Create(CultureInfo.InvariantCulture, $"{job.UnderWay:N0} letters"))}.");
}
