using System.Security.Cryptography;
using System.Text;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Who a caller is, in one namespace for each kind: <c>key:anna</c>, <c>token:https://login.example.com#4f2a</c>. The audit log, rate limits and answers to an
/// <c>Idempotency-Key</c> go by it, so that nobody's token can pass for somebody's key.
/// </summary>
internal static class CallerName
{
    /// <summary>What the audit log keeps of a name.</summary>
    private const int Longest = 128;
    private const int LongestShown = 64;

    public static string OfKey(string name) => Caller.KeyPrefix + name;

    /// <summary>Issuer and subject, which a token's holder can't choose. Longer ones end in a hash, so that no two are the same.</summary>
    public static string OfToken(string issuer, string subject)
    {
        var name = $"token:{issuer}#{subject}";
        if (name.Length <= Longest && name.All(IsPlain))
        {
            return name;
        }
        var hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(name)).AsSpan(0, 16));
        var plain = string.Concat(name.Where(IsPlain));
        return $"{plain[..Math.Min(plain.Length, Longest - hash.Length - 1)]}~{hash}";
    }

    /// <summary>A name that its holder chose, as far as it can be shown: letters, digits and a few signs. Null when nothing is left.</summary>
    public static string? Shown(string? name)
    {
        var shown = string.Concat((name ?? "").Where(character => char.IsAsciiLetterOrDigit(character) || character is '.' or '_' or '-' or '@' or '+').Take(LongestShown));
        return shown.Length == 0 ? null : shown;
    }

    /// <summary>What the page calls the request's caller.</summary>
    public static string Told(HttpContext context)
    {
        var caller = CallerRight.CallerOf(context);
        return CallerRight.Parse(caller.Right)?.Calls ?? caller.Shown;
    }

    private static bool IsPlain(char character) => character is > ' ' and <= '~';
}
