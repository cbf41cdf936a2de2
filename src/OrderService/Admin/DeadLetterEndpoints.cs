using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using OrderService.DeadLetters;
using OrderService.Inbox;

namespace OrderService.Admin;

/// <summary>Dead letters and incidents: look, replay, discard.</summary>
internal static class DeadLetterEndpoints
{
    private const int LongestReason = 500;

    public static void MapDeadLetters(this IEndpointRouteBuilder api)
    {
        var letters = api.MapGroup("/dead-letters").RequireAuthorization(Scopes.Read).WithTags("Dead letters");
        letters.MapGet("", ListAsync).Within(limits => limits.Searches, "searches").WithName("dead-letters.list").WithSummary("Dead letters, newest first.").Produces<LetterPage>().ProducesProblem(400);
        letters.MapGet("/groups", GroupsAsync).Within(limits => limits.Searches, "searches").WithName("dead-letters.groups").WithSummary("Dead letters by fingerprint: the incidents.").Produces<Page<IncidentView>>();
        letters.MapGet("/{id}", ShowAsync).WithName("dead-letters.show").WithSummary("One dead letter with headers, history and replays.").Produces<LetterDetail>().ProducesProblem(404);
        letters.MapGet("/{id}/body", BodyAsync).WithName("dead-letters.body").WithSummary("The exact bytes, as a download.").Produces(200, contentType: "application/octet-stream").ProducesProblem(404);

        letters.MapPost("/{id}/check", CheckAsync).WithName("dead-letters.check").WithSummary("Whether an edited body would pass; writes nothing.").Accepts<EditedBody>("application/json").Produces<CheckAnswer>().ProducesProblem(404);
        letters.MapPost("/{id}/replay", ReplayAsync).RequireAuthorization(Scopes.Operate).WithName("dead-letters.replay")
            .WithSummary("Sends the letter through the queue again, with its original bytes or an edited body.").Accepts<ReplayBody>(isOptional: true, "application/json").Produces<LetterDetail>(202).ProducesProblem(404).ProducesProblem(409).ProducesProblem(422);
        letters.MapPost("/{id}/discard", DiscardAsync).RequireAuthorization(Scopes.Operate).WithName("dead-letters.discard")
            .WithSummary("Gives the letter up; the reason is kept.").Accepts<ReasonBody>("application/json").Produces<LetterDetail>(202).ProducesProblem(400).ProducesProblem(404).ProducesProblem(409);
        letters.MapPost("/{id}/restore", RestoreAsync).RequireAuthorization(Scopes.Operate).WithName("dead-letters.restore")
            .WithSummary("Parks a discarded letter again.").Accepts<ReasonBody>(isOptional: true, "application/json").Produces<LetterDetail>(202).ProducesProblem(404).ProducesProblem(409);

        letters.MapGet("/{id}/attempts/{attempt}/body", AttemptBodyAsync).WithName("dead-letters.attempt-body")
            .WithSummary("The exact bytes that an edited replay sent, as a download.").Produces(200, contentType: "application/octet-stream").ProducesProblem(404);
        letters.MapPost("/discards", DiscardManyAsync).RequireAuthorization(Scopes.Operate).WithName("dead-letters.discards")
            .WithSummary("Gives many parked letters up; the reason is kept. With dryRun it only counts them.").Accepts<DiscardsBody>("application/json").Produces<DiscardsAnswer>().ProducesProblem(400);

        var incidents = api.MapGroup("/incidents").RequireAuthorization(Scopes.Read).WithTags("Dead letters");
        incidents.MapGet("", IncidentsAsync).WithName("incidents.list").WithSummary("Incidents: dead letters of one cause, last seen first.").Produces<Page<IncidentView>>().ProducesProblem(400);
        incidents.MapGet("/{fingerprint}", IncidentAsync).WithName("incidents.show").WithSummary("One incident.").Produces<IncidentView>().ProducesProblem(404);

        api.MapGet("/export/dead-letters", ExportAsync).Within(limits => limits.Downloads, "exports").RequireAuthorization(Scopes.Read).WithTags("Dead letters").WithName("dead-letters.export")
            .WithSummary("All letters of a filter as NDJSON, or as CSV that a spreadsheet takes for text.").Produces(200, contentType: "application/x-ndjson", additionalContentTypes: "text/csv").ProducesProblem(400);
    }

    private static async Task<IResult> ListAsync(
        HttpContext context, DeadLetterQueries letters, string? status, string? reason, string? fingerprint, string? orderId, string? q, string? after, string? limit)
    {
        if (!TryReadFilter(context, out var filter, out var name, out var problem) || Paging.Read(context, "letters|" + name, out problem) is not { } page)
        {
            return problem;
        }
        var found = await letters.ListAsync(filter, page.After, Math.Min(page.Limit + 1, DeadLetterQueries.MostRows), context.RequestAborted);
        var items = found.Take(page.Limit).Select(LetterView.Of).ToList();
        var more = found.Count > page.Limit || (page.Limit >= DeadLetterQueries.MostRows && found.Count == page.Limit);
        return TypedResults.Ok(new LetterPage(
            items, more ? Paging.Encode("letters|" + name, items[^1].Id) : null, page.After is null ? await letters.CountAsync(filter, context.RequestAborted) : null));
    }

    private static async Task<IResult> GroupsAsync(HttpContext context, IncidentList incidents) =>
        TypedResults.Ok(new Page<IncidentView>([.. (await incidents.ReadAsync(null, context.RequestAborted)).Select(IncidentView.Of)], null));

    private static async Task<IResult> ShowAsync(HttpContext context, string id, DeadLetterQueries letters, AuditLog audit) =>
        TryReadId(id, out var number, out var problem) ? await DetailAsync(letters, number, StatusCodes.Status200OK, context, audit) : problem;

    private static async Task<IResult> BodyAsync(HttpContext context, string id, DeadLetterQueries letters, AuditLog audit)
    {
        if (!TryReadId(id, out var number, out var problem))
        {
            return problem;
        }
        if (PersonalSight.Refuse(context) is { } refusal)
        {
            return refusal;
        }
        if (await letters.BodyAsync(number, context.RequestAborted) is not { } body)
        {
            return NoSuchLetter();
        }
        if (body.IsForgotten)
        {
            return PersonalSight.Forgotten();
        }
        await audit.TryWriteAsync(Who(context), "dead-letter.body", $"dead letter {number}", "");
        // A download and never a page: what is in it came from anybody.
        return TypedResults.File(body.Bytes, "application/octet-stream", $"dead-letter-{number}.bin");
    }

    private static async Task<IResult> AttemptBodyAsync(HttpContext context, string id, string attempt, DeadLetterQueries letters, AuditLog audit)
    {
        if (!TryReadId(id, out var number, out var problem) || !TryReadId(attempt, out var replay, out problem))
        {
            return problem;
        }
        if (PersonalSight.Refuse(context) is { } refusal)
        {
            return refusal;
        }
        if (await letters.ReplayBodyAsync(number, replay, context.RequestAborted) is not { } body)
        {
            return Problems.Result(StatusCodes.Status404NotFound, "attempt_not_found", "There is no such replay of this dead letter, or its original bytes went out.");
        }
        if (body.IsForgotten)
        {
            return PersonalSight.Forgotten();
        }
        await audit.TryWriteAsync(Who(context), "dead-letter.body", $"dead letter {number}", $"of attempt {replay}");
        return TypedResults.File(body.Bytes, "application/octet-stream", $"dead-letter-{number}-attempt-{replay}.bin");
    }

    private static async Task<IResult> CheckAsync(HttpContext context, string id, ReplayForecast forecast)
    {
        if (!TryReadId(id, out var number, out var problem))
        {
            return problem;
        }
        var (edited, mistake) = await ReadAsync<EditedBody>(context);
        var body = BytesOf(edited?.Body);
        if (edited is null || LetterPatch.Edit(body, edited.Type, edited.ContentType, edited.Key) is not { } edit)
        {
            return mistake ?? Problems.Result(
                400, "missing_field", "Say what is edited: body, type, contentType or key.", new FieldError("/body", "missing_field", "body is missing."));
        }
        if (PersonalSight.Refuse(context) is { } refusal)
        {
            return refusal;
        }
        if (await forecast.OfEditedAsync(number, edit, context.RequestAborted) is not var (item, letter))
        {
            return NoSuchLetter();
        }
        var patch = LetterPatch.Between(letter, body, edited.Type, edited.ContentType)?.ToElement();
        return TypedResults.Ok(item.Outcome == ForecastOutcome.StillFails
            ? new CheckAnswer(false, [new FieldError(item.Field ?? "", item.Reason ?? "", item.Detail)], item.Outcome, item.Detail, patch)
            : new CheckAnswer(true, [], item.Outcome, item.Detail, patch));
    }

    private static async Task<IResult> ReplayAsync(HttpContext context, string id, DeadLetterReplay replay, DeadLetterQueries letters)
    {
        if (!TryReadId(id, out var number, out var problem))
        {
            return problem;
        }
        var (given, mistake) = await ReadAsync<ReplayBody>(context);
        if (mistake is not null || !IsReason(given?.Reason, required: false, out mistake))
        {
            return mistake!;
        }
        var answer = await replay.ReplayAsync(
            new ReplayRequest(
                number, Who(context), given?.Reason, LetterPatch.Edit(BytesOf(given?.Body), given?.Type, given?.ContentType, given?.Key), given?.Confirmed ?? false),
            context.RequestAborted);
        return await AnswerAsync(answer, letters, context);
    }

    private static async Task<IResult> DiscardAsync(HttpContext context, string id, DeadLetterReplay replay, DeadLetterQueries letters)
    {
        if (!TryReadId(id, out var number, out var problem))
        {
            return problem;
        }
        var (given, mistake) = await ReadAsync<ReasonBody>(context);
        if (mistake is not null || !IsReason(given?.Reason, required: true, out mistake))
        {
            return mistake!;
        }
        return await AnswerAsync(await replay.DiscardAsync(number, Who(context), given!.Reason!, context.RequestAborted), letters, context);
    }

    private static async Task<IResult> DiscardManyAsync(HttpContext context, DeadLetterDiscards discards)
    {
        var (given, mistake) = await ReadAsync<DiscardsBody>(context);
        if (mistake is not null || !LetterChoice.TryRead(given?.Ids, given?.Filter, given?.UpTo, given?.Limit, confirmed: false, out var selection, out mistake)
            || !IsReason(given!.Reason, required: given.DryRun is not true, out mistake))
        {
            return mistake!;
        }
        var (count, upTo) = await discards.CountAsync(selection, context.RequestAborted);
        return TypedResults.Ok(new DiscardsAnswer(
            count, upTo, given.DryRun is true ? 0 : await discards.DiscardAsync(selection with { UpTo = upTo }, Who(context), given.Reason!, context.RequestAborted)));
    }

    private static async Task<IResult> RestoreAsync(HttpContext context, string id, DeadLetterReplay replay, DeadLetterQueries letters)
    {
        if (!TryReadId(id, out var number, out var problem))
        {
            return problem;
        }
        var (given, mistake) = await ReadAsync<ReasonBody>(context);
        if (mistake is not null || !IsReason(given?.Reason, required: false, out mistake))
        {
            return mistake!;
        }
        return await AnswerAsync(await replay.RestoreAsync(number, Who(context), given?.Reason ?? "", context.RequestAborted), letters, context);
    }

    private static async Task<IResult> IncidentsAsync(HttpContext context, IncidentList incidents, TimeProvider clock, string? state, string? q)
    {
        if (!Paging.TryReadOne(context, "state", out state, out var problem) || !Paging.TryReadOne(context, "q", out q, out problem))
        {
            return problem;
        }
        var now = clock.GetUtcNow();
        bool IsMuted(IncidentRecord incident) => incident.MutedUntil > now;
        Func<IncidentRecord, bool>? wanted = state switch
        {
            null or "open" => incident => incident.State != "resolved" && !IsMuted(incident),
            "all" => _ => true,
            "muted" => IsMuted,
            "new" or "acknowledged" or "resolved" or "regressed" => incident => incident.State == state && !IsMuted(incident),
            _ => null,
        };
        if (wanted is null)
        {
            return Paging.BadParameter("state", "state is one of open, new, acknowledged, muted, resolved, regressed, all.");
        }
        var found = (await incidents.ReadAsync(null, context.RequestAborted))
            .Where(wanted)
            .Where(incident => q is null || incident.Title.Contains(q, StringComparison.OrdinalIgnoreCase) || incident.Reason.Contains(q, StringComparison.OrdinalIgnoreCase) || incident.Fingerprint == q)
            .OrderByDescending(incident => incident.LastSeen);
        return TypedResults.Ok(new Page<IncidentView>([.. found.Select(IncidentView.Of)], null));
    }

    private static async Task<IResult> IncidentAsync(HttpContext context, string fingerprint, IncidentList incidents) =>
        await incidents.FindAsync(fingerprint, context.RequestAborted) is { } incident
            ? TypedResults.Ok(IncidentView.Of(incident))
            : Problems.Result(StatusCodes.Status404NotFound, "incident_not_found", "There is no such incident.");

    private static async Task<IResult> ExportAsync(
        HttpContext context, DeadLetterQueries letters, AuditLog audit, string? format, string? status, string? reason, string? fingerprint, string? orderId, string? q)
    {
        if (!TryReadFilter(context, out var filter, out _, out var problem) || !Paging.TryReadOne(context, "format", out format, out problem))
        {
            return problem;
        }
        if (format is not (null or "ndjson" or "csv"))
        {
            return Paging.BadParameter("format", "format is ndjson or csv.");
        }
        var csv = format == "csv";
        if (!csv && PersonalSight.Refuse(context) is { } refusal)
        {
            return refusal;
        }
        // Before it begins, so that one that is cut off is there too. What somebody searched for may be personal, so the filters are named without their values.
        (string Name, string? Value)[] filters = [("status", status), ("reason", reason), ("fingerprint", fingerprint), ("orderId", orderId), ("q", q)];
        var used = filters.Where(one => one.Value is not null).Select(one => one.Name).ToList();
        await audit.TryWriteAsync(
            Who(context), "dead-letters.export", "dead letters", $"{format ?? "ndjson"}{(used.Count == 0 ? "" : $", filtered by {string.Join(", ", used)}")}");
        context.Response.ContentType = csv ? "text/csv; charset=utf-8" : "application/x-ndjson";
        context.Response.Headers.ContentDisposition = $"attachment; filename=\"dead-letters.{(csv ? "csv" : "ndjson")}\"";
        await using var writer = new StreamWriter(context.Response.Body, new UTF8Encoding(false), leaveOpen: true);
        await LetterExport.WriteAsync(letters, filter, csv, writer, context.RequestAborted);
        return Results.Empty;
    }

    private static async Task<IResult> AnswerAsync(LetterAnswer answer, DeadLetterQueries letters, HttpContext context) => answer switch
    {
        LetterAnswer.Done done => await DetailAsync(letters, done.LetterId, StatusCodes.Status202Accepted, context),
        LetterAnswer.Conflict conflict => Problems.Result(StatusCodes.Status409Conflict, conflict.Code, conflict.Detail),
        LetterAnswer.Invalid invalid => Problems.Result(
            StatusCodes.Status422UnprocessableEntity, invalid.Rejection.Reason, invalid.Rejection.Detail, new FieldError(invalid.Rejection.Field ?? "", invalid.Rejection.Reason, invalid.Rejection.Detail)),
        _ => NoSuchLetter(),
    };

    /// <param name="audit">Null where the answer is to an act that the audit log has.</param>
    private static async Task<IResult> DetailAsync(DeadLetterQueries letters, long id, int status, HttpContext context, AuditLog? audit = null)
    {
        if (await letters.GetAsync(id, context.RequestAborted) is not { } letter)
        {
            return NoSuchLetter();
        }
        var seesPersonal = PersonalSight.Has(context);
        if (audit is not null && seesPersonal && letter.Replays.Count(replay => replay.Body is not null) is > 0 and var bodies)
        {
            await audit.TryWriteAsync(Who(context), "dead-letter.body", $"dead letter {id}", $"of {bodies} edited {(bodies == 1 ? "replay" : "replays")}, with the letter");
        }
        return TypedResults.Json(LetterDetail.Of(letter, seesPersonal), statusCode: status);
    }

    private static bool TryReadFilter(HttpContext context, out LetterFilter filter, out string name, out IResult problem)
    {
        filter = new LetterFilter();
        name = "";
        if (!Paging.TryReadOne(context, "status", out var status, out problem) || !Paging.TryReadOne(context, "reason", out var reason, out problem)
            || !Paging.TryReadOne(context, "fingerprint", out var fingerprint, out problem) || !Paging.TryReadOne(context, "orderId", out var orderId, out problem)
            || !Paging.TryReadOne(context, "q", out var text, out problem))
        {
            return false;
        }
        status = status == "all" ? null : status;
        if (status is not null && !LetterStatus.All.Contains(status))
        {
            problem = Paging.BadParameter("status", $"status is one of {string.Join(", ", LetterStatus.All)}, all.");
            return false;
        }
        if (reason is not null && !RejectionReason.All.Contains(reason))
        {
            problem = Paging.BadParameter("reason", "reason is none of the stable reasons.");
            return false;
        }
        filter = new LetterFilter(status, reason, fingerprint, orderId, text);
        name = $"{status}|{reason}|{fingerprint}|{orderId}|{text}";
        return true;
    }

    private static bool TryReadId(string id, out long number, out IResult problem)
    {
        problem = Results.Empty;
        if (long.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out number))
        {
            return true;
        }
        problem = NoSuchLetter();
        return false;
    }

    internal static bool IsReason(string? reason, bool required, out IResult? mistake)
    {
        mistake = (required && string.IsNullOrWhiteSpace(reason)) || reason?.Length > LongestReason
            ? Problems.Result(StatusCodes.Status400BadRequest, "reason_missing", $"Say why, in 1 to {LongestReason} characters.", new FieldError("/reason", "reason_missing", "Say why."))
            : null;
        return mistake is null;
    }

    /// <summary>The JSON body; an absent one is as good as an empty object.</summary>
    internal static async Task<(T? Value, IResult? Mistake)> ReadAsync<T>(HttpContext context) where T : class
    {
        if (context.Request.ContentLength is 0 || (context.Request.ContentLength is null && !context.Request.Headers.ContainsKey("Transfer-Encoding")))
        {
            return (null, null);
        }
        if (!context.Request.HasJsonContentType())
        {
            return (null, Problems.Result(StatusCodes.Status415UnsupportedMediaType, "unsupported_media_type", "The body must be application/json in UTF-8."));
        }
        try
        {
            return (await context.Request.ReadFromJsonAsync<T>(Strict, context.RequestAborted), null);
        }
        catch (InvalidOperationException)
        {
            return (null, Problems.Result(StatusCodes.Status415UnsupportedMediaType, "unsupported_media_type", "The body must be application/json in UTF-8: nobody knows the charset of its content type."));
        }
        catch (JsonException exception)
        {
            var pointer = exception.Path is { Length: > 1 } path ? "/" + path[2..].Replace('.', '/') : "";
            return (null, Problems.Result(StatusCodes.Status400BadRequest, "malformed_json", "The body is not the JSON object that is expected here.", new FieldError(pointer, "malformed_json", "Not what is expected here.")));
        }
    }

    private static readonly JsonSerializerOptions Strict = new(JsonSerializerDefaults.Web)
    {
        NumberHandling = JsonNumberHandling.Strict,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        AllowDuplicateProperties = false,
        PropertyNameCaseInsensitive = false,
        MaxDepth = 32,
        Converters = { new TextWithoutZeros() },
    };

    /// <summary>PostgreSQL takes U+0000 in no text.</summary>
    private sealed class TextWithoutZeros : JsonConverter<string>
    {
        public override string? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            var text = reader.GetString();
            return text?.Contains('\0', StringComparison.Ordinal) == true ? throw new JsonException() : text;
        }

        public override void Write(Utf8JsonWriter writer, string value, JsonSerializerOptions options) => writer.WriteStringValue(value);
    }

    private static Store.Caller Who(HttpContext context) => CallerRight.CallerOf(context);

    private static byte[]? BytesOf(string? text) => text is null ? null : Encoding.UTF8.GetBytes(text);

    private static IResult NoSuchLetter() => Problems.Result(StatusCodes.Status404NotFound, "dead_letter_not_found", "There is no such dead letter.");
}

/// <summary>An edit of a letter as it would be sent; at least one member, and what is absent stays the letter's own.</summary>
/// <param name="ContentType"><c>application/json</c> when absent.</param>
/// <param name="Key">Another idempotency key; <c>derived</c> for the one of the content.</param>
internal sealed record EditedBody(string? Body = null, string? Type = null, string? ContentType = null, string? Key = null);

/// <param name="Reason">Needed to discard.</param>
internal sealed record ReasonBody(string? Reason = null);

/// <summary>Which parked letters (by number or by filter) to give up, and why.</summary>
/// <param name="UpTo">Only letters up to this number: what a dry run answered.</param>
/// <param name="DryRun">Only counts; needs no reason.</param>
internal sealed record DiscardsBody(IReadOnlyList<long>? Ids = null, ChosenLetters? Filter = null, long? Limit = null, long? UpTo = null, string? Reason = null, bool? DryRun = null);

/// <param name="Count">How many parked letters were meant.</param>
/// <param name="UpTo">The highest number among them.</param>
/// <param name="Discarded">How many were given up; less than <paramref name="Count"/> when somebody else settled some of them first, 0 in a dry run.</param>
internal sealed record DiscardsAnswer(long Count, long UpTo, long Discarded);

/// <param name="Body">The edited text; the original bytes go out when it is absent.</param>
/// <param name="Type">The command of the edited text; the letter's own when absent.</param>
/// <param name="Confirmed">Needed for letters that another program put among the dead letters.</param>
/// <param name="ContentType">Of what is edited; <c>application/json</c> when absent.</param>
/// <param name="Key">Another idempotency key; <c>derived</c> for the one of the content.</param>
internal sealed record ReplayBody(
    string? Reason = null, string? Body = null, string? Type = null, bool? Confirmed = null, string? ContentType = null, string? Key = null);

/// <param name="Outcome">What a replay of it would do.</param>
/// <param name="Patch">The same change for other letters with the same mistake, for <c>POST /api/dead-letters/replays</c>; null when it can't be told.</param>
internal sealed record CheckAnswer(bool Valid, IReadOnlyList<FieldError> Errors, string Outcome, string Detail, JsonElement? Patch = null);

/// <param name="Total">How many match, on the first page.</param>
internal sealed record LetterPage(IReadOnlyList<LetterView> Items, string? Next, long? Total);

/// <summary>All about a letter but its bytes.</summary>
internal sealed record LetterDetail(
    long Id, string Status, string Reason, string Detail, string? Field, string Fingerprint, string? Type, string? OrderId, string? CustomerId, Amount? Value, string Key,
    DateTimeOffset ParkedAt, DateTimeOffset OpenedAt, long Copies, long Replays, long Size, DateTimeOffset? ReplayedAt, DateTimeOffset? SettledAt, string? SettledBy, string? SettleReason,
    string? MessageId, string? CorrelationId, string? ContentType, string? Exception, string ContentHash, JsonElement Properties, JsonElement? Deaths,
    IReadOnlyList<ReplayRecord> Attempts, IReadOnlyList<LetterHistory> History, IReadOnlyList<LetterAlert> Alerts, long? AlertId, long? PreviousId, long? NextId)
{
    /// <param name="seesPersonal">The bodies of replays are shown.</param>
    public static LetterDetail Of(LetterRecord record, bool seesPersonal)
    {
        IReadOnlyList<ReplayRecord> attempts = seesPersonal ? record.Replays : [.. record.Replays.Select(replay => replay.Body is null ? replay : replay with { Body = Store.PersonalJson.Masked })];
        var letter = LetterView.Of(record.Letter);
        return new LetterDetail(
            letter.Id, letter.Status, letter.Reason, letter.Detail, letter.Field, letter.Fingerprint, letter.Type, letter.OrderId, letter.CustomerId, letter.Value, letter.Key,
            letter.ParkedAt, letter.OpenedAt, letter.Copies, letter.Replays, letter.Size, letter.ReplayedAt, letter.SettledAt, letter.SettledBy, letter.SettleReason,
            letter.MessageId, letter.CorrelationId, record.ContentType, record.Exception, record.Fingerprint, record.Properties, record.Deaths, attempts, record.History, record.Alerts,
            record.Letter.AlertId, record.PreviousId, record.NextId);
    }
}

/// <summary>An incident. <c>held</c> is the money of its parked letters' orders, <c>hourly</c> how many letters came in each of the last 24 hours.</summary>
internal sealed record IncidentView(
    string Fingerprint, string Title, string Reason, string? Field, string? Exception, string State, DateTimeOffset? MutedUntil, long Letters, long Parked, long Replayed, long Orders, long Customers,
    IReadOnlyList<Amount> Held, DateTimeOffset FirstSeen, DateTimeOffset LastSeen, DateTimeOffset? OldestParked, string FirstBuild, string LastBuild, string? RegressedBuild,
    string? StateBy, DateTimeOffset? StateAt, DateTimeOffset? LastAlertAt, IReadOnlyList<long> Hourly)
{
    public static IncidentView Of(IncidentRecord incident) => new(
        incident.Fingerprint, incident.Title, incident.Reason, incident.Field, incident.Exception, incident.State, incident.MutedUntil, incident.Letters, incident.Parked, incident.Replayed,
        incident.Orders, incident.Customers, [.. incident.Value.Select(value => new Amount(value.Currency, value.Amount))], incident.FirstSeen, incident.LastSeen, incident.OldestParked,
        incident.FirstBuild, incident.LastBuild, incident.RegressedBuild, incident.StateBy, incident.StateAt, incident.LastAlertAt, incident.Hourly);
}
