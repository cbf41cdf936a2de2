using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Notifications;

/// <summary>Signatures as in the Standard Webhooks specification: HMAC-SHA256 over <c>id.timestamp.body</c>.</summary>
public static class WebhookSignature
{
    private const string Prefix = "whsec_";

    /// <summary>The value of <c>webhook-signature</c>: one <c>v1,</c> signature for each secret.</summary>
    /// <param name="timestamp">Of this attempt.</param>
    /// <param name="secrets">Each <c>whsec_</c> and base64.</param>
    public static string Sign(string id, DateTimeOffset timestamp, ReadOnlySpan<byte> body, params IEnumerable<string> secrets)
    {
        var head = Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{id}.{timestamp.ToUnixTimeSeconds()}."));
        byte[] signed = [.. head, .. body];
        return string.Join(' ', secrets.Select(secret => "v1," + Convert.ToBase64String(HMACSHA256.HashData(Key(secret), signed))));
    }

    /// <summary>What is wrong with a secret, as the end of a sentence that begins with its key; null when nothing is.</summary>
    internal static string? SecretProblem(string secret)
    {
        if (!secret.StartsWith(Prefix, StringComparison.Ordinal))
        {
            return "is missing or does not begin with whsec_ (make one: echo whsec_$(openssl rand -base64 32)).";
        }
        var bytes = new byte[secret.Length];
        return !Convert.TryFromBase64String(secret[Prefix.Length..], bytes, out var length) ? "is not base64 after whsec_."
            : length is < 24 or > 64 ? "holds fewer than 24 or more than 64 bytes."
            : null;
    }

    private static byte[] Key(string secret) => Convert.FromBase64String(secret[Prefix.Length..]);
}
