using Microsoft.Extensions.Options;

namespace OrderService.Admin;

/// <summary>Whether a caller sees what is personal: everybody who reads, or with <c>Api:RequirePersonalScope</c> only those with the scope.</summary>
internal static class PersonalSight
{
    public static bool Has(HttpContext context) =>
        !context.RequestServices.GetRequiredService<IOptions<ApiOptions>>().Value.RequirePersonalScope
        || context.User.HasClaim(ApiAuthentication.ScopeClaim, Scopes.Personal);

    /// <summary>The answer where there is nothing to see without it; null where the caller may.</summary>
    public static IResult? Refuse(HttpContext context) => Has(context)
        ? null
        : Problems.Result(
            StatusCodes.Status403Forbidden, "personal_scope_missing", $"The key lacks the scope '{Scopes.Personal}', which what is personal needs here (Api:RequirePersonalScope).");

    /// <summary>The answer where nobody sees it any more.</summary>
    public static IResult Forgotten() => Problems.Result(
        StatusCodes.Status410Gone, "forgotten", "The customer is forgotten: the key of these bytes is destroyed, and nobody can read them any more.");
}
