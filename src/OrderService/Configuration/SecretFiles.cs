namespace OrderService.Configuration;

/// <summary>
/// Secrets from files: <c>RabbitMq__UriFile=/run/secrets/broker</c> stands for <c>RabbitMq__Uri=(the file's text)</c>.
/// One trailing line break is cut off, because editors and <c>echo</c> add one; anything else belongs to the secret.
/// </summary>
internal static class SecretFiles
{
    private const int LargestSecret = 64 * 1024;

    /// <summary>The settings that may come from a file. <c>*</c> stands for one position in a list.</summary>
    public static readonly IReadOnlyList<string> Keys =
    [
        "RabbitMq:Uri", "RabbitMq:Username", "RabbitMq:Password", "RabbitMq:ManagementUri", "Store:ConnectionString", "Keys:ConnectionString", "Keys:MasterKey", "Keys:Old:*:MasterKey", "Seals:Key", "Seals:Old:*:Key",
        "Alerts:Email:Username", "Alerts:Email:Password", "Alerts:Webhook:Secret", "Alerts:Webhook:PreviousSecret", "Alerts:Webhook:Url", "Alerts:Slack:Url", "Alerts:Teams:Url",
        "Kafka:SaslPassword", "Api:Keys:*:Key",
    ];

    /// <summary>Whether <paramref name="key"/> holds a secret, so that its value must not be shown.</summary>
    public static bool IsSecret(string key) => Keys.Any(pattern => Matches(pattern, key));

    /// <summary>Whether <paramref name="key"/> is a secret's name with <c>File</c> at its end, or <c>_FILE</c> as containers' images have it.</summary>
    public static bool IsSecretFile(string key) => key.EndsWith("File", StringComparison.OrdinalIgnoreCase) && IsSecret(SecretOf(key));

    private static string SecretOf(string fileKey) => fileKey[..^4].TrimEnd('_');

    /// <summary>Reads every file that the settings name.</summary>
    public static SecretFilesRead Read(IConfiguration configuration)
    {
        var values = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        var mistakes = new List<string>();
        var warnings = new List<string>();
        foreach (var (fileKey, path) in configuration.AsEnumerable())
        {
            if (path is null || !IsSecretFile(fileKey))
            {
                continue;
            }
            var key = SecretOf(fileKey);
            if (!string.IsNullOrEmpty(configuration[key]) && !IsBuiltInDefault(configuration, key))
            {
                mistakes.Add($"{fileKey}: {key} is set as well; keep one of the two.");
                continue;
            }
            try
            {
                // Not by the file's length: a device has none, and what it gives may never end.
                var bytes = new byte[LargestSecret + 1];
                using var file = File.OpenRead(path);
                var length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
                if (length > LargestSecret)
                {
                    mistakes.Add($"{fileKey}: {path} is larger than {LargestSecret / 1024} KiB, which no secret is.");
                    continue;
                }
                var text = TextFile.Read(bytes.AsSpan(0, length));
                var secret = text.EndsWith("\r\n", StringComparison.Ordinal) ? text[..^2] : text is [.., '\n' or '\r'] ? text[..^1] : text;
                if (secret.Length == 0)
                {
                    mistakes.Add($"{fileKey}: {path} is empty.");
                    continue;
                }
                values[key] = secret;
                if (IsReadableByEveryone(path))
                {
                    warnings.Add($"{fileKey}: every user of this machine can read {path}; run: chmod 600 {path}");
                }
            }
            catch (FormatException exception)
            {
                mistakes.Add($"{fileKey}: {path} {exception.Message}.");
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException)
            {
                mistakes.Add($"{fileKey}: {path} can't be read ({Reason(exception)}).");
            }
        }
        return new SecretFilesRead(values, mistakes, warnings);
    }

    // The shipped settings file names no secrets; a value there is one that an operator wrote.
    private static bool IsBuiltInDefault(IConfiguration configuration, string key) =>
        key.Equals("RabbitMq:Uri", StringComparison.OrdinalIgnoreCase) && configuration[key] == "amqp://guest:guest@localhost:5672/";

    // A container's runtime mounts secrets readable for everyone in a folder that only the container sees.
    private static bool IsReadableByEveryone(string path) =>
        !OperatingSystem.IsWindows() && !path.StartsWith("/run/secrets/", StringComparison.Ordinal) && File.GetUnixFileMode(path).HasFlag(UnixFileMode.OtherRead);

    private static string Reason(Exception exception) => exception switch
    {
        FileNotFoundException or DirectoryNotFoundException => "there is no such file",
        UnauthorizedAccessException => "access denied, or it is a folder",
        _ => exception.GetType().Name,
    };

    private static bool Matches(string pattern, string key)
    {
        var expected = pattern.Split(':');
        var actual = key.Split(':');
        return expected.Length == actual.Length && expected.Zip(actual).All(pair => pair.First == "*" || pair.First.Equals(pair.Second, StringComparison.OrdinalIgnoreCase));
    }
}

/// <summary>What the secret files held, and what is wrong with them.</summary>
internal sealed record SecretFilesRead(IReadOnlyDictionary<string, string?> Values, IReadOnlyList<string> Mistakes, IReadOnlyList<string> Warnings);
