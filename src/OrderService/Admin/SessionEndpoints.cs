using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Signs browsers in and out, and tells a page who it is.</summary>
internal static class SessionEndpoints
{
    public const string SignInName = "session.sign-in";

    public static void MapSession(this IEndpointRouteBuilder api)
    {
        // The limit on wrong keys is its own, see below; a right key always gets in.
        api.MapPost("/session", SignInAsync).AllowAnonymous().DisableRateLimiting().WithMetadata(new SmallBody()).WithTags("Session").WithName(SignInName)
            .WithSummary("Signs a browser in: sets the session's cookie and answers the token for the header X-CSRF-Token.")
            .Accepts<SignIn>("application/json").Produces<SessionAnswer>().ProducesProblem(400).ProducesProblem(401).ProducesProblem(403).ProducesProblem(415).ProducesProblem(429);
        api.MapGet("/session", async (HttpContext context, BrowserSessions sessions) => TypedResults.Ok(Describe(context, (await sessions.ReadAsync(context))?.CsrfToken)))
            .RequireAuthorization().WithTags("Session").WithName("session.show").WithSummary("Who is asking, with which scopes.").Produces<SessionAnswer>();
        api.MapDelete("/session", async (HttpContext context, BrowserSessions sessions, LivingSessions living) =>
        {
            if (await sessions.ReadAsync(context) is { } session)
            {
                await living.EndAsync(CallerRight.CallerOf(context), session.Row, signedOut: true);
            }
            BrowserSessions.SignOut(context);
            return TypedResults.NoContent();
        }).RequireAuthorization().WithTags("Session").WithName("session.sign-out")
            .WithSummary("Ends the session: its cookie lets nobody in any more, its streams and exports end within seconds, and a replay job that it started is paused.")
            .Produces(204);
        api.MapGet("/sessions", (HttpContext context, LivingSessions living, ApiKeyRing keys) =>
        {
            var own = CallerRight.Of(context);
            return TypedResults.Ok(new SessionList([.. Visible(context, living).Select(row => Describe(row, keys, own))]));
        }).RequireAuthorization().WithTags("Session").WithName("session.list")
            .WithSummary("Browsers that are signed in, the newest first: with the scope operate all, else those of the caller's own key.").Produces<SessionList>();
        api.MapDelete("/sessions", async (HttpContext context, LivingSessions living, ApiKeyRing keys, string? key) =>
        {
            if (IsOld(context, living))
            {
                return SignInAgain();
            }
            var ended = Visible(context, living).Where(row => key is null || keys.FindById(row.KeyId)?.Name == key).ToList();
            foreach (var row in ended)
            {
                await living.EndAsync(CallerRight.CallerOf(context), row, signedOut: false);
            }
            return (IResult)TypedResults.Ok(new EndedAnswer(ended.Count));
        }).RequireAuthorization().WithTags("Session").WithName("session.end-all")
            .WithSummary("Ends every session of a key (?key=NAME), or all that the list shows, the caller's own included. A session that began more than five minutes ago is asked to sign in again first (403 sign_in_again).")
            .Produces<EndedAnswer>().ProducesProblem(403);
        api.MapDelete("/sessions/{id}", async (HttpContext context, LivingSessions living, string id) =>
        {
            if (CallerRight.Of(context)?.Session != id && IsOld(context, living))
            {
                return SignInAgain();
            }
            if (Visible(context, living).FirstOrDefault(row => row.Id == id) is not { } session)
            {
                return Problems.Result(StatusCodes.Status404NotFound, "session_not_found", "No such session is signed in.");
            }
            await living.EndAsync(CallerRight.CallerOf(context), session, signedOut: CallerRight.Of(context)?.Session == id);
            return TypedResults.NoContent();
        }).RequireAuthorization().WithTags("Session").WithName("session.end").WithSummary("Ends a session, as signing out in its browser would. For another's than its own, a session that began more than five minutes ago is asked to sign in again first (403 sign_in_again).")
            .Produces(204).ProducesProblem(403).ProducesProblem(404);
    }

    /// <summary>Whether the caller is a browser that signed in a while ago: whoever finds it open must not end the sessions of others. A key comes with each request.</summary>
    private static bool IsOld(HttpContext context, LivingSessions living) => CallerRight.Of(context)?.Session is { } own && !living.IsFresh(own);

    private static IResult SignInAgain() => Problems.Result(
        StatusCodes.Status403Forbidden, "sign_in_again", "This browser signed in a while ago. Sign in again with the key before you end other sessions.");

    /// <summary>Who may operate sees everybody's sessions, others those of their own key.</summary>
    private static IEnumerable<SessionRow> Visible(HttpContext context, LivingSessions living)
    {
        var right = CallerRight.Of(context);
        return context.User.HasClaim(ApiAuthentication.ScopeClaim, Scopes.Operate) ? living.List() : living.List().Where(row => row.KeyId == right?.Key);
    }

    private static SessionView Describe(SessionRow row, ApiKeyRing keys, CallerRight? caller) => new(
        row.Id, keys.FindById(row.KeyId)?.Name ?? "", row.Address, Time(row.StartedAt), Time(row.UsedAt), Time(row.EndsAt), caller?.Session == row.Id);

    private static DateTimeOffset Time(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);

    private static async Task<IResult> SignInAsync(
        HttpContext context, ApiKeyRing keys, BrowserSessions sessions, LivingSessions living, SignInLimit limit, AuditLog audit)
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
        if (await sessions.ReadAsync(context) is { } before)
        {
            // Its cookie is replaced, so nobody could end it any more.
            await living.EndAsync(CallerRight.CallerOf(context, before), before.Row, signedOut: true);
        }
        var session = await sessions.SignInAsync(context, key);
        ConnectionLimit.Know(context);
        await audit.TryWriteAsync(CallerRight.CallerOf(context, session), "sign-in", LivingSessions.Subject(session.Id), "");
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

    internal sealed record SessionList(IReadOnlyList<SessionView> Items);

    /// <param name="Key">The name of the key that signed it in.</param>
    /// <param name="Address">Where it signed in from.</param>
    /// <param name="UsedAt">When somebody last used it, to half a minute.</param>
    /// <param name="EndsAt">When it ends at the latest; earlier when nobody uses it.</param>
    /// <param name="Current">It is the caller's own.</param>
    internal sealed record SessionView(
        string Id, string Key, string Address, DateTimeOffset StartedAt, DateTimeOffset UsedAt, DateTimeOffset EndsAt, bool Current);

    /// <param name="Ended">How many sessions were ended.</param>
    internal sealed record EndedAnswer(int Ended);
}
