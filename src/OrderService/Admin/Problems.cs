using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Diagnostics;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Errors as RFC 9457 problem documents: <c>{type,title,status,detail,code,traceId,errors?}</c>. <c>code</c> is stable and meant for programs;
/// <c>errors</c> names fields by JSON pointer. Never a stack trace, never a value that was sent.
/// </summary>
internal static class Problems
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull };

    public static IResult Result(int status, string code, string detail, params FieldError[] errors) => new ProblemResult(status, code, detail, errors, null);

    /// <summary>With <c>Retry-After</c> in seconds.</summary>
    public static IResult RetryLater(int status, string code, string detail, int seconds) => new ProblemResult(status, code, detail, [], seconds);

    /// <summary>A position that a restore took: <c>goOnAfter</c> is the last one that everybody still has.</summary>
    public static IResult Gone(string detail, long goOnAfter) => new ProblemResult(StatusCodes.Status410Gone, "position_gone", detail, [], null, goOnAfter);

    public static async Task WriteAsync(
        HttpContext context, int status, string code, string detail, IReadOnlyList<FieldError>? errors = null, long? goOnAfter = null)
    {
        if (context.Response.HasStarted)
        {
            return;
        }
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/problem+json";
        context.Response.Headers.CacheControl = "no-store";
        var problem = new Problem(
            $"urn:orderservice:problem:{code}", Title(status), status, detail, code, RequestId(context), errors is { Count: > 0 } ? errors : null, goOnAfter);
        await JsonSerializer.SerializeAsync(context.Response.Body, problem, Json, context.RequestAborted);
    }

    /// <summary>What an answer, the log's lines and the audit log call this request.</summary>
    internal static string RequestId(HttpContext context) => Activity.Current?.TraceId.ToString() ?? context.TraceIdentifier;

    private static string Title(int status) => Microsoft.AspNetCore.WebUtilities.ReasonPhrases.GetReasonPhrase(status) is { Length: > 0 } phrase ? phrase : "Error";

    /// <summary>The code for statuses that the framework itself answers with.</summary>
    public static (string Code, string Detail) ForStatus(int status) => status switch
    {
        400 => ("bad_request", "The request can't be understood."),
        404 => ("not_found", "There is nothing at this address."),
        405 => ("method_not_allowed", "This address does not take this method."),
        406 => ("not_acceptable", "Answers are JSON; the Accept header allows none."),
        413 => ("body_too_large", "The body is larger than 1 MiB."),
        415 => ("unsupported_media_type", "Bodies are application/json."),
        _ => ($"http_{status}", "The request was not served."),
    };

    internal sealed record Problem(string Type, string Title, int Status, string Detail, string Code, string TraceId, IReadOnlyList<FieldError>? Errors, long? GoOnAfter = null);

    private sealed class ProblemResult(int status, string code, string detail, FieldError[] errors, int? retryAfter, long? goOnAfter = null) : IResult
    {
        public Task ExecuteAsync(HttpContext httpContext)
        {
            if (retryAfter is { } seconds)
            {
                httpContext.Response.Headers.RetryAfter = seconds.ToString(System.Globalization.CultureInfo.InvariantCulture);
            }
            return WriteAsync(httpContext, status, code, detail, errors, goOnAfter);
        }
    }
}

/// <summary>What is wrong with one field.</summary>
/// <param name="Pointer">A JSON pointer into the body (<c>/lines/0/sku</c>), or the name of a query parameter or header after <c>#</c>.</param>
/// <param name="Code">A stable reason, the same as for a message on the queue.</param>
internal sealed record FieldError(string Pointer, string Code, string Detail);

/// <summary>Turns what escaped an endpoint into an answer that gives nothing away.</summary>
internal sealed partial class UnexpectedErrors(ILogger<UnexpectedErrors> logger) : IExceptionHandler
{
    public async ValueTask<bool> TryHandleAsync(HttpContext httpContext, Exception exception, CancellationToken cancellationToken)
    {
        switch (exception)
        {
            case OperationCanceledException when httpContext.RequestAborted.IsCancellationRequested:
                return true;
            case BadHttpRequestException bad:
                var (code, detail) = Problems.ForStatus(bad.StatusCode);
                await Problems.WriteAsync(httpContext, bad.StatusCode, code, detail);
                return true;
            case StoreUnavailableException:
                httpContext.Response.Headers.RetryAfter = "5";
                LogStoreUnavailable(exception.Message);
                await Problems.WriteAsync(httpContext, StatusCodes.Status503ServiceUnavailable, "store_unavailable", "The store is out of reach for now; the same request may succeed later.");
                return true;
            default:
                LogUnexpected(exception, httpContext.Request.Method, httpContext.GetEndpoint()?.DisplayName ?? "no endpoint");
                await Problems.WriteAsync(httpContext, StatusCodes.Status500InternalServerError, "internal_error", "Something went wrong; the log has more under this trace id.");
                return true;
        }
    }

    [LoggerMessage(LogLevel.Warning, "A request met a store that is out of reach: {Reason}")]
    private partial void LogStoreUnavailable(string reason);

    [LoggerMessage(LogLevel.Error, "A {Method} to {Endpoint} failed unexpectedly")]
    private partial void LogUnexpected(Exception exception, string method, string endpoint);
}
