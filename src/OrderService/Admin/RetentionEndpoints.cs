using OrderService.Retention;

namespace OrderService.Admin;

/// <summary>What is old enough to go, and what went.</summary>
internal static class RetentionEndpoints
{
    public static void MapRetention(this IEndpointRouteBuilder api) =>
        api.MapGet("/retention", async (RetentionView view, CancellationToken cancellationToken) => TypedResults.Ok(await view.ReadAsync(cancellationToken)))
            .RequireAuthorization(Scopes.Read).WithTags("Operations").WithName("retention")
            .WithSummary("What the next round of retention would take out, by kind, and what the last one did.").Produces<RetentionAnswer>();
}

/// <summary>Counting looks at every old row, so the answer is kept for a while.</summary>
internal sealed class RetentionView(RetentionRound round, TimeProvider clock) : IDisposable
{
    private readonly Kept<RetentionAnswer> kept = new(
        async token => new RetentionAnswer([.. (await round.CountAsync(token)).Select(count => new RetentionKindView(count.Kind, count.Days, count.Rows))], await LastAsync(round, token)), clock);

    public Task<RetentionAnswer> ReadAsync(CancellationToken cancellationToken) => kept.ReadAsync(cancellationToken);

    public void Dispose() => kept.Dispose();

    private static async Task<RetentionRunView?> LastAsync(RetentionRound round, CancellationToken cancellationToken) =>
        await round.LastAsync(cancellationToken) is { BeganAt: { } began } last ? new RetentionRunView(began, last.EndedAt, last.Done) : null;
}

/// <param name="Last">The last round, or the one under way; null before the first.</param>
internal sealed record RetentionAnswer(IReadOnlyList<RetentionKindView> Items, RetentionRunView? Last);

/// <param name="Kind">As the settings under <c>Retention</c> call it.</param>
/// <param name="Days">How long it is kept; null for ever.</param>
/// <param name="Rows">How many are older and may go now.</param>
internal sealed record RetentionKindView(string Kind, int? Days, long Rows);

/// <param name="EndedAt">Null while it is under way.</param>
/// <param name="Removed">How many rows went, by kind.</param>
internal sealed record RetentionRunView(DateTimeOffset BeganAt, DateTimeOffset? EndedAt, IReadOnlyDictionary<string, long> Removed);
