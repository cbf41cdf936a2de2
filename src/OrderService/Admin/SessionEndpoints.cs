using System.Text.Json;
using Microsoft.AspNetCore.Authorization;

namespace OrderService.Admin;

/// <summary>Signs browsers in and out, and tells a page who it is.</summary>
internal static class SessionEndpoints
{
    public static void MapSession(this IEndpointRouteBuilder api)
    {
        api.MapPost("/session", SignInAsync).AllowAnonymous().WithTags("Session").WithName("session.sign-in")
            .WithSummary("Signs a browser in: sets the session's cookie and answers the token for the header X-CSRF-Token.")
            .Accepts<SignIn>("application/json").Produces<SessionAnswer>().ProducesProblem(400).ProducesProblem(401).ProducesProblem(403).ProducesProblem(415);
        api.MapGet("/session", (HttpContext context, BrowserSessions sessions) => TypedResults.Ok(Describe(context, sessions.Read(context)?.CsrfToken)))
            .RequireAuthorization().WithTags("Session").WithName("session.show").WithSummary("Who is asking, with which scopes.").Produces<SessionAnswer>();
        api.MapDelete("/session", (HttpContext context, BrowserSessions sessions) =>
        {
            sessions.SignOut(context);
            return TypedResults.NoContent();
        }).RequireAuthorization().WithTags("Session").WithName("session.sign-out").WithSummary("Signs the browser out.").Produces(204);
    }

    private static async Task<IResult> SignInAsync(HttpContext context, ApiKeyRing keys, BrowserSessions sessions, AuditLog audit)
    {
        if (!BrowserSessions.IsSameOrigin(context))
        {
            return Problems.Result(StatusCodes.Status403Forbidden, "cross_site", "The request came from another site.");
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
            return Problems.Result(StatusCodes.Status401Unauthorized, "unauthorized", "The key is not valid.");
        }
        var csrf = sessions.SignIn(context, key);
        await audit.TryWriteAsync(key.Name, "sign-in", "browser session", "");
        return TypedResults.Ok(new SessionAnswer(key.Name, key.Scopes, csrf));
    }

    private static SessionAnswer Describe(HttpContext context, string? csrf) =>
        new(context.User.Identity?.Name ?? "", [.. context.User.FindAll("scope").Select(claim => claim.Value)], csrf);

    internal sealed record SignIn(string? Key);

    /// <param name="CsrfToken">For the header <c>X-CSRF-Token</c>; null for callers with a key, who need none.</param>
    internal sealed record SessionAnswer(string Name, IReadOnlyList<string> Scopes, string? CsrfToken);
}
