using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using OrderService.DeadLetters;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Bulk replays, what they would do, and what operators say about incidents.</summary>
internal static class ReplayEndpoints
{
    private const int LongestReason = 500;

    public static void MapReplays(this IEndpointRouteBuilder api)
    {
        var letters = api.MapGroup("/dead-letters").WithTags("Replays");
        letters.MapPost("/what-if", WhatIfAsync).Within(limits => limits.Searches, "searches").RequireAuthorization(Scopes.Read).WithName("replays.what-if")
            .WithSummary("What a replay would do, decided against the orders as they are; writes nothing.").Accepts<ReplaysBody>("application/json").Produces<ForecastView>().ProducesProblem(400);
        letters.MapPost("/replays", StartAsync).RequireAuthorization(Scopes.Operate).WithName("replays.start")
            .WithSummary("Replays many letters: a job with progress that can be paused and cancelled. A canary sends 1, then 5, then 5 percent, and stops by itself when letters fail again.")
            .Accepts<ReplaysBody>("application/json").Produces<ReplayJob>(202).ProducesProblem(400).ProducesProblem(409);

        var jobs = api.MapGroup("/replays").RequireAuthorization(Scopes.Read).WithTags("Replays");
        jobs.MapGet("", ListAsync).WithName("replays.list").WithSummary("Replay jobs, newest first.").Produces<Page<ReplayJob>>().ProducesProblem(400);
        jobs.MapGet("/{id}", ShowAsync).WithName("replays.show").WithSummary("A replay job with its progress and failures.").Produces<ReplayJob>().ProducesProblem(404);
        MapMove(jobs, "pause", "Sends nothing more until it is resumed.", (all, id, who, token) => all.PauseAsync(id, who, token));
        MapMove(jobs, "resume", "Goes on with a paused job.", (all, id, who, token) => all.ResumeAsync(id, who, token));
        MapMove(jobs, "cancel", "Ends a job; letters that were not sent stay parked.", (all, id, who, token) => all.CancelAsync(id, who, token));

        var incidents = api.MapGroup("/incidents/{fingerprint}").RequireAuthorization(Scopes.Operate).WithTags("Dead letters");
        incidents.MapPost("/acknowledge", (HttpContext context, string fingerprint, IncidentStates states, IncidentList all) =>
                ChangeAsync(context, fingerprint, all, (body, who) => states.AcknowledgeAsync(fingerprint, who, body?.Reason ?? "", context.RequestAborted)))
            .WithName("incidents.acknowledge").WithSummary("Somebody looks after it: no reminders.").Accepts<IncidentBody>(isOptional: true, "application/json").Produces<IncidentView>().ProducesProblem(404);
        incidents.MapPost("/resolve", (HttpContext context, string fingerprint, IncidentStates states, IncidentList all) =>
                ChangeAsync(context, fingerprint, all, (body, who) => states.ResolveAsync(fingerprint, who, body?.Reason ?? "", context.RequestAborted)))
            .WithName("incidents.resolve").WithSummary("Its cause is mended; a new letter of it counts as a regression.").Accepts<IncidentBody>(isOptional: true, "application/json").Produces<IncidentView>().ProducesProblem(404);
        incidents.MapPost("/mute", (HttpContext context, string fingerprint, IncidentStates states, IncidentList all) =>
                ChangeAsync(context, fingerprint, all, (body, who) => states.MuteAsync(fingerprint, body?.Until, who, body?.Reason ?? "", context.RequestAborted)))
            .WithName("incidents.mute").WithSummary("No alerts about it until then; null ends it.").Accepts<IncidentBody>(isOptional: true, "application/json").Produces<IncidentView>().ProducesProblem(404);
    }

    private static void MapMove(RouteGroupBuilder jobs, string verb, string summary, Func<ReplayJobs, long, Caller, CancellationToken, Task<ReplayJobAnswer>> move) =>
        jobs.MapPost($"/{{id}}/{verb}", async (HttpContext context, string id, ReplayJobs all) =>
            !long.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
                ? NoSuchJob()
                : await move(all, number, Who(context), context.RequestAborted) switch
                {
                    ReplayJobAnswer.Done => TypedResults.Ok(await all.GetAsync(number, context.RequestAborted)),
                    ReplayJobAnswer.Conflict conflict => Problems.Result(StatusCodes.Status409Conflict, conflict.Code, conflict.Detail),
                    _ => NoSuchJob(),
                })
            .RequireAuthorization(Scopes.Operate).WithName($"replays.{verb}").WithSummary(summary).Produces<ReplayJob>().ProducesProblem(404).ProducesProblem(409);

    private static async Task<IResult> WhatIfAsync(HttpContext context, ReplayForecast forecast)
    {
        var (body, mistake) = await DeadLetterEndpoints.ReadAsync<ReplaysBody>(context);
        if (mistake is not null || !TrySelect(body, out var selection, out mistake) || !TryReadPatch(body!, out var patch, out mistake))
        {
            return mistake!;
        }
        return TypedResults.Ok(ForecastView.Of(await forecast.OfAsync(selection, context.RequestAborted, patch)));
    }

    private static async Task<IResult> StartAsync(HttpContext context, ReplayJobs jobs)
    {
        var (body, mistake) = await DeadLetterEndpoints.ReadAsync<ReplaysBody>(context);
        if (mistake is not null || !TrySelect(body, out var selection, out mistake) || !TryReadPatch(body!, out var patch, out mistake))
        {
            return mistake!;
        }
        if (body!.Mode is not (null or "canary" or "all"))
        {
            return LetterChoice.Bad("/mode", "mode is canary or all.");
        }
        if (body.RatePerSecond is { } rate && !(rate is >= 0.1 and <= ReplayJobRequest.MostPerSecond))
        {
            return LetterChoice.Bad("/ratePerSecond", $"ratePerSecond is a number from 0.1 to {ReplayJobRequest.MostPerSecond}.");
        }
        if (body.Reason?.Length > LongestReason)
        {
            return LetterChoice.Bad("/reason", $"reason has at most {LongestReason} characters.");
        }
        var job = await jobs.CreateAsync(
            new ReplayJobRequest(selection, Who(context), body.Reason ?? "", body.Mode ?? ReplayMode.Canary, body.RatePerSecond ?? 10, patch),
            context.RequestAborted);
        return job is null
            ? Problems.Result(StatusCodes.Status409Conflict, "nothing_to_replay", "No parked letter is chosen; somebody may have been faster.")
            : TypedResults.Accepted($"{context.Request.PathBase}/api/replays/{job.Id}", job);
    }

    private static async Task<IResult> ListAsync(HttpContext context, ReplayJobs jobs, string? after, string? limit)
    {
        if (Paging.Read(context, "replays", out var problem) is not { } page)
        {
            return problem;
        }
        var found = await jobs.ListAsync(page.After, page.Limit + 1, context.RequestAborted);
        return TypedResults.Ok(new Page<ReplayJob>([.. found.Take(page.Limit)], found.Count > page.Limit ? Paging.Encode("replays", found[page.Limit - 1].Id) : null));
    }

    private static async Task<IResult> ShowAsync(HttpContext context, string id, ReplayJobs jobs) =>
        long.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && await jobs.GetAsync(number, context.RequestAborted) is { } job ? TypedResults.Ok(job) : NoSuchJob();

    private static async Task<IResult> ChangeAsync(HttpContext context, string fingerprint, IncidentList incidents, Func<IncidentBody?, Caller, Task<bool>> change)
    {
        var (body, mistake) = await DeadLetterEndpoints.ReadAsync<IncidentBody>(context);
        if (mistake is not null)
        {
            return mistake;
        }
        if (body?.Reason?.Length > LongestReason)
        {
            return LetterChoice.Bad("/reason", $"reason has at most {LongestReason} characters.");
        }
        return await change(body, Who(context)) && await incidents.FindAsync(fingerprint, context.RequestAborted) is { } incident
            ? TypedResults.Ok(IncidentView.Of(incident))
            : Problems.Result(StatusCodes.Status404NotFound, "incident_not_found", "There is no such incident.");
    }

    private static bool TrySelect(ReplaysBody? body, out LetterSelection selection, out IResult? mistake) =>
        LetterChoice.TryRead(body?.Ids, body?.Filter, body?.UpTo, body?.Limit, body?.Confirmed ?? false, out selection, out mistake);

    private static bool TryReadPatch(ReplaysBody body, out LetterPatch? patch, out IResult? mistake)
    {
        (patch, mistake) = (null, null);
        if (body.Patch is { ValueKind: not (JsonValueKind.Null or JsonValueKind.Undefined) } given)
        {
            patch = LetterPatch.Read(JsonNode.Parse(given.GetRawText()), forMany: true, out var pointer, out var why);
            mistake = why is null ? null : LetterChoice.Bad("/patch" + pointer, why);
        }
        return mistake is null;
    }

    private static IResult NoSuchJob() => Problems.Result(StatusCodes.Status404NotFound, "replay_not_found", "There is no such replay job.");

    private static Caller Who(HttpContext context) => CallerRight.CallerOf(context);
}

/// <summary>Which parked letters (by number or by filter), and how to send them.</summary>
/// <param name="Mode"><c>canary</c> (the default) or <c>all</c>.</param>
/// <param name="UpTo">Only letters up to this number: what a forecast answered.</param>
/// <param name="Confirmed">Letters that another program put among the dead letters are meant too.</param>
/// <param name="Patch">What is changed in each letter: <c>body</c> (a merge patch or a JSON Patch), <c>type</c>, <c>contentType</c>, <c>key</c>.</param>
internal sealed record ReplaysBody(
    IReadOnlyList<long>? Ids = null, ChosenLetters? Filter = null, string? Mode = null, double? RatePerSecond = null, long? Limit = null, string? Reason = null,
    long? UpTo = null, bool? Confirmed = null,
    JsonElement? Patch = null);

/// <param name="Until">For mute.</param>
internal sealed record IncidentBody(string? Reason = null, DateTimeOffset? Until = null);

internal sealed record ForecastView(long Count, long Checked, long UpTo, ForecastCounts Outcomes, IReadOnlyList<ForecastRow> Items)
{
    public static ForecastView Of(Forecast forecast)
    {
        long Count(string outcome) => forecast.Outcomes.GetValueOrDefault(outcome);
        return new ForecastView(
            forecast.Count, forecast.Checked, forecast.UpTo,
            new(Count(ForecastOutcome.Succeeds), Count(ForecastOutcome.AlreadyApplied), Count(ForecastOutcome.StillFails), Count(ForecastOutcome.Conflicts), Count(ForecastOutcome.Waits), Count(ForecastOutcome.Refused)),
            [.. forecast.Items.Select(item => new ForecastRow(item.LetterId, item.OrderId, item.Outcome, item.Reason, item.Detail))]);
    }
}

internal sealed record ForecastCounts(
    long Succeeds,
    [property: System.Text.Json.Serialization.JsonPropertyName("already_applied")] long AlreadyApplied,
    [property: System.Text.Json.Serialization.JsonPropertyName("still_fails")] long StillFails,
    long Conflicts,
    long Waits,
    long Refused);

internal sealed record ForecastRow(long Id, string? OrderId, string Outcome, string? Reason, string Detail);
