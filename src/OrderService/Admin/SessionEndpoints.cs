using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Signs browsers in and out, and tells a page who it is.</summary>
internal static class SessionEndpoints
{
    public static void MapSession(this IEndpointRouteBuilder api)
    {
        // The limit on wrong keys is its own, see below; a right key always gets in.
        api.MapPost("/session", SignInAsync).AllowAnonymous().DisableRateLimiting().WithMetadata(new SmallBody()).WithTags("Session").WithName("session.sign-in")
            .WithSummary("Signs a browser in: sets the session's cookie and answers the token for the header X-CSRF-Token.")
            .Accepts<SignIn>("application/json").Produces<SessionAnswer>().ProducesProblem(400).ProducesProblem(401).ProducesProblem(403).ProducesProblem(415).ProducesProblem(429);
        api.MapGet("/session", (HttpContext context, BrowserSessions sessions) => TypedResults.Ok(Describe(context, sessions.Read(context)?.CsrfToken)))
            .RequireAuthorization().WithTags("Session").WithName("session.show").WithSummary("Who is asking, with which scopes.").Produces<SessionAnswer>();
        api.MapDelete("/session", async (HttpContext context, BrowserSessions sessions, EndedSessions ended) =>
        {
            if (sessions.Read(context) is { } session)
            {
                await ended.EndAsync(CallerRight.CallerOf(context), session.Id);
            }
            sessions.SignOut(context);
            return TypedResults.NoContent();
        }).RequireAuthorization().WithTags("Session").WithName("session.sign-out")
            .WithSummary("Ends the session: its cookie lets nobody in any more, its streams and exports end within seconds, and a replay job that it started is paused.").Produces(204);
    }

    private static async Task<IResult> SignInAsync(HttpContext context, ApiKeyRing keys, BrowserSessions sessions, EndedSessions ended, SignInLimit limit, AuditLog audit)
    {
        if (!BrowserSessions.IsSameOrigin(context))
        {
            return Problems.Result(StatusCodes.Status403Forbidden, "cross_site", BrowserSessions.OriginMismatch(context) ?? "The request came from another site.");
        }
        if (!context.Request.HasJsonContentType())
        {
            return Problems.Result(StatusCodes.Status415UnsupportedMediaType, "unsupported_media_type", "Bodies are application/json.");
        }
        SignIn? given;
        try
        {
            given = await context.Request.ReadFromJsonAsync<SignIn>(JsonSerializerOptions.Web, context.RequestAborted);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return Problems.Result(StatusCodes.Status400BadRequest, "malformed_json", "Send {\"key\":\"...\"}.");
        }
        if (given?.Key is not { Length: > 0 and <= 512 } presented || keys.Find(presented) is not { } key)
        {
            return limit.TakeWrongKey(context)
                ? Problems.Result(StatusCodes.Status401Unauthorized, "unauthorized", "The key is not valid.")
                : Problems.RetryLater(StatusCodes.Status429TooManyRequests, "too_many_requests", "Too many wrong keys came from this address; try again later.", 1);
        }
        if (sessions.Read(context) is { } before)
        {
            // Its cookie is replaced, so nobody could end it any more.
            await ended.EndAsync(new Caller(CallerName.OfKey(before.Key.Name), CallerRight.Of(before).ToString(), CallerRight.AddressOf(context)), before.Id);
        }
        var session = sessions.SignIn(context, key);
        ConnectionLimit.Know(context);
        await audit.TryWriteAsync(new Caller(CallerName.OfKey(key.Name), CallerRight.Of(session).ToString(), CallerRight.AddressOf(context)), "sign-in", EndedSessions.Subject(session.Id), "");
        return TypedResults.Ok(new SessionAnswer(key.Name, key.Scopes, session.CsrfToken));
    }

    private static SessionAnswer Describe(HttpContext context, string? csrf) =>
        new(CallerName.Told(context), [.. context.User.FindAll("scope").Select(claim => claim.Value)], csrf);

    internal sealed record SignIn(string? Key);

    /// <summary>Strangers may send this, so it is short.</summary>
    private sealed class SmallBody : IRequestSizeLimitMetadata
    {
        public long? MaxRequestBodySize => 4 * 1024;
    }

    /// <param name="CsrfToken">For the header <c>X-CSRF-Token</c>; null for callers with a key, who need none.</param>
    internal sealed record SessionAnswer(string Name, IReadOnlyList<string> Scopes, string? CsrfToken);
}
