using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Samples;

/// <summary>
/// Whether a webhook is the order service's: exit code 0 or 1. Id, timestamp and signatures come from the headers <c>webhook-id</c>, <c>webhook-timestamp</c>
/// and <c>webhook-signature</c>, the body from standard input.
/// </summary>
internal static class Verify
{
    public static int Run(string secret, string id, string timestamp, string signatures)
    {
        using var body = new MemoryStream();
        Console.OpenStandardInput().CopyTo(body);
        var valid = IsValid(secret, id, timestamp, signatures, body.ToArray());
        Console.WriteLine(valid ? "valid" : "not valid");
        return valid ? 0 : 1;
    }

    private static bool IsValid(string secret, string id, string timestamp, string signatures, byte[] body)
    {
        // An old one may be a replay.
        if (!long.TryParse(timestamp, NumberStyles.None, CultureInfo.InvariantCulture, out var sentAt) || Math.Abs(TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() - sentAt) > 300)
        {
            return false;
        }
        var key = Convert.FromBase64String(secret.StartsWith("whsec_", StringComparison.Ordinal) ? secret["whsec_".Length..] : secret);
        // The bytes as they came, before anybody parses them.
        byte[] signed = [.. Encoding.UTF8.GetBytes($"{id}.{timestamp}."), .. body];
        var expected = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(HMACSHA256.HashData(key, signed)));
        // Two while a secret is exchanged.
        return signatures.Split(' ').Any(one => CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(one), expected));
    }
}
