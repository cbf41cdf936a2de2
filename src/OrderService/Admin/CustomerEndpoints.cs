using OrderService.Customers;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>What is held about a customer: given out, kept, forgotten.</summary>
internal static class CustomerEndpoints
{
    private const int LongestReason = 500;

    public static void MapCustomers(this IEndpointRouteBuilder api)
    {
        var customers = api.MapGroup("/customers/{id}").WithTags("Customers");
        customers.MapGet("", ShowAsync).RequireAuthorization(Scopes.Read).WithName("customers.show")
            .WithSummary("How many orders and dead letters there are of a customer, whether a hold keeps him from being forgotten, and when he was forgotten.")
            .Produces<CustomerView>().ProducesProblem(400);
        customers.MapGet("/export", ExportAsync).Within(limits => limits.Downloads, "exports").RequireAuthorization(Scopes.Read).WithName("customers.export")
            .WithSummary("Everything that is held about a customer, as readable JSON: orders with their events and history, refused payments, dead letters with their bodies.")
            .Produces<CustomerExportView>().ProducesProblem(400).ProducesProblem(403);
        customers.MapPost("/forget", ForgetAsync).RequireAuthorization(Scopes.Operate).WithName("customers.forget")
            .WithSummary("Destroys the customer's key: what is personal in his orders and dead letters can't be read any more, by anybody. It can't be undone.")
            .Accepts<CustomerBody>("application/json").Produces<ForgottenView>().ProducesProblem(400).ProducesProblem(409);
        customers.MapPost("/hold", HoldAsync).RequireAuthorization(Scopes.Operate).WithName("customers.hold")
            .WithSummary("A legal hold: the customer is not forgotten while it stands.").Accepts<CustomerBody>("application/json").Produces<CustomerView>().ProducesProblem(400);
        customers.MapPost("/unhold", UnholdAsync).RequireAuthorization(Scopes.Operate).WithName("customers.unhold")
            .WithSummary("Ends a legal hold.").Accepts<CustomerBody>("application/json").Produces<CustomerView>().ProducesProblem(400).ProducesProblem(404);
    }

    private static async Task<IResult> ShowAsync(HttpContext context, string id, CustomerExport export) => TextRules.IsId(id) ? await ViewAsync(context, id, export) : BadId();

    private static async Task<IResult> ExportAsync(HttpContext context, string id, CustomerExport export, AuditLog audit)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        if (PersonalSight.Refuse(context) is { } refusal)
        {
            return refusal;
        }
        // Before it begins, so that one that is cut off is there too.
        await audit.TryWriteAsync(CallerRight.CallerOf(context), "customer.export", $"customer {id}", "");
        context.Response.ContentType = "application/json; charset=utf-8";
        context.Response.Headers.ContentDisposition = "attachment; filename=\"customer.json\"";
        await export.WriteAsync(id, context.Response.Body, context.RequestAborted);
        return Results.Empty;
    }

    private static async Task<IResult> ForgetAsync(HttpContext context, string id, CustomerForgetting forgetting)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var (reason, mistake) = await ReasonAsync(context);
        if (reason is null)
        {
            return mistake!;
        }
        return await forgetting.ForgetAsync(id, CallerRight.CallerOf(context), reason, context.RequestAborted) switch
        {
            ForgetAnswer.Forgotten done => TypedResults.Ok(new ForgottenView(id, done.Orders, done.Events, done.Letters)),
            ForgetAnswer.Held held => Problems.Result(StatusCodes.Status409Conflict, "customer_held", Sentence(held.Hold)),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }

    private static async Task<IResult> HoldAsync(HttpContext context, string id, CustomerHolds holds, CustomerExport export)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var (reason, mistake) = await ReasonAsync(context);
        if (reason is null)
        {
            return mistake!;
        }
        await holds.HoldAsync(id, CallerRight.CallerOf(context), reason, context.RequestAborted);
        return await ViewAsync(context, id, export);
    }

    private static async Task<IResult> UnholdAsync(HttpContext context, string id, CustomerHolds holds, CustomerExport export)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var (reason, mistake) = await ReasonAsync(context);
        if (reason is null)
        {
            return mistake!;
        }
        return await holds.UnholdAsync(id, CallerRight.CallerOf(context), reason, context.RequestAborted)
            ? await ViewAsync(context, id, export)
            : Problems.Result(StatusCodes.Status404NotFound, "no_hold", "There is no hold on this customer.");
    }

    internal static string Sentence(CustomerHold hold) =>
        $"A legal hold of {hold.HeldBy} since {DateTimeOffset.FromUnixTimeMilliseconds(hold.HeldAt):yyyy-MM-dd HH:mm:ss'Z'} keeps the customer from being forgotten: {hold.Reason}";

    private static async Task<IResult> ViewAsync(HttpContext context, string id, CustomerExport export)
    {
        var summary = await export.SummaryAsync(id, context.RequestAborted);
        return TypedResults.Ok(new CustomerView(
            id, summary.Orders, summary.Letters,
            summary.Hold is { } hold ? new HoldView(hold.Reason, hold.HeldBy, DateTimeOffset.FromUnixTimeMilliseconds(hold.HeldAt)) : null,
            [.. summary.ForgottenAt.Select(DateTimeOffset.FromUnixTimeMilliseconds)]));
    }

    private static async Task<(string? Reason, IResult? Mistake)> ReasonAsync(HttpContext context)
    {
        var (body, mistake) = await DeadLetterEndpoints.ReadAsync<CustomerBody>(context);
        if (mistake is not null)
        {
            return (null, mistake);
        }
        if (string.IsNullOrWhiteSpace(body?.Reason))
        {
            return (null, LetterChoice.Bad("/reason", "Say why: reason is missing."));
        }
        return body.Reason.Length > LongestReason ? (null, LetterChoice.Bad("/reason", $"reason has at most {LongestReason} characters.")) : (body.Reason, null);
    }

    private static IResult BadId() => Problems.Result(StatusCodes.Status400BadRequest, RejectionReason.IdInvalid, $"A customer id is {TextRules.IdRule}.");
}

/// <param name="Reason">For the audit log, and for a hold: for whoever it refuses. Nothing personal.</param>
internal sealed record CustomerBody(string Reason);

/// <param name="ForgottenAt">Each time, oldest first.</param>
internal sealed record CustomerView(string CustomerId, long Orders, long Letters, HoldView? Hold, IReadOnlyList<DateTimeOffset> ForgottenAt);

internal sealed record HoldView(string Reason, string By, DateTimeOffset Since);

/// <param name="Orders">Whose personal data nobody reads any more.</param>
/// <param name="Events">Those of them out of which an e-mail address was taken that an earlier version had stored as it was.</param>
/// <param name="Letters">Dead letters whose bodies are gone.</param>
internal sealed record ForgottenView(string CustomerId, long Orders, long Events, long Letters);

/// <summary>For the document alone: it is written piece by piece.</summary>
/// <param name="Hold">Absent where there is none.</param>
internal sealed record CustomerExportView(
    string CustomerId, DateTimeOffset ExportedAt, IReadOnlyList<DateTimeOffset> Forgotten, IReadOnlyList<System.Text.Json.JsonElement> Orders,
    IReadOnlyList<System.Text.Json.JsonElement> DeadLetters, HoldView? Hold = null);
