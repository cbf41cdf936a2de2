using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;

namespace OrderService.Admin;

/// <summary>What makes a signed token one for access. The signature, issuer, audience and times were looked at before.</summary>
internal static class AccessTokens
{
    /// <summary>RFC 9068 names the first; many providers write the second on every token.</summary>
    private static readonly string[] UsualTypes = ["at+jwt", "JWT"];

    /// <summary>Claims that stand in ID tokens alone (OpenID Connect Core 1.0, sections 2 and 3).</summary>
    private static readonly string[] IdTokenClaims = ["nonce", "at_hash", "c_hash"];

    /// <summary>The library itself is content with 1,024 bits.</summary>
    public static bool IsStrong(SecurityKey key, int rsaBits) => key switch
    {
        RsaSecurityKey or X509SecurityKey => key.KeySize >= rsaBits,
        JsonWebKey { Kty: JsonWebAlgorithmsKeyTypes.RSA } => key.KeySize >= rsaBits,
        _ => true,
    };

    /// <param name="types">The kinds that are let in; empty for the usual ones.</param>
    /// <returns>Why the token is not let in; null when it is.</returns>
    public static string? WhyNot(JsonWebToken token, ICollection<string> types)
    {
        // RFC 7515, section 4.1.11: who does not understand what is critical refuses the token. We understand no extension.
        if (token.TryGetHeaderValue<object>("crit", out _))
        {
            return "The token names a critical extension.";
        }
        var type = string.IsNullOrEmpty(token.Typ) ? "JWT" : token.Typ;
        const string MediaType = "application/";
        type = type.StartsWith(MediaType, StringComparison.OrdinalIgnoreCase) ? type[MediaType.Length..] : type;
        if (!(types.Count > 0 ? types : UsualTypes).Contains(type, StringComparer.OrdinalIgnoreCase))
        {
            return "The token is of another type than those for access.";
        }
        if (Array.Exists(IdTokenClaims, claim => token.TryGetClaim(claim, out _)))
        {
            return "The token is an ID token.";
        }
        return string.IsNullOrEmpty(token.Subject) ? "The token has no subject." : null;
    }
}
