using System.Globalization;
using System.Text.RegularExpressions;

namespace OrderService.Configuration;

/// <param name="Value">As it would be written; null where nothing is set. Of a secret only that it is set.</param>
/// <param name="Origin">A file, an environment variable, or <c>default</c>.</param>
public sealed record SettingInForce(string Key, string? Value, string Origin, bool IsSecret);

/// <summary>What is in force and where each value came from, secrets masked: for an operator, and for whoever is asked to help one.</summary>
internal static partial class SettingsInForce
{
    public const string Default = "default";
    private const string Mask = "(set, not shown)";

    public static IReadOnlyList<SettingInForce> Read(IConfigurationRoot configuration, SettingsRules rules)
    {
        var found = new List<SettingInForce>();
        foreach (var scalar in SettingsCheck.Scalars)
        {
            Add(found, configuration, scalar, null);
        }
        foreach (var (section, type) in rules.Sections)
        {
            AddObject(found, configuration, section, type, Activator.CreateInstance(type));
        }
        // Of libraries' sections only what somebody wrote is known.
        var known = found.Select(setting => setting.Key).ToHashSet(StringComparer.OrdinalIgnoreCase);
        foreach (var (key, value) in configuration.AsEnumerable().OrderBy(pair => pair.Key, StringComparer.OrdinalIgnoreCase))
        {
            var isForeign = SettingsCheck.Foreign.Any(section => key.StartsWith(section + ":", StringComparison.OrdinalIgnoreCase)) || key.StartsWith("OTEL_", StringComparison.OrdinalIgnoreCase);
            if (value is not null && (isForeign || SecretFiles.IsSecretFile(key)) && known.Add(key))
            {
                Add(found, configuration, key, null);
            }
        }
        return found;
    }

    private static void AddObject(List<SettingInForce> found, IConfigurationRoot configuration, string path, Type type, object? defaults)
    {
        foreach (var property in type.GetProperties().Where(property => property.GetMethod is { IsStatic: false } && (property.SetMethod is not null || IsList(property.PropertyType))))
        {
            var key = $"{path}:{property.Name}";
            var value = defaults is null ? null : property.GetValue(defaults);
            var declared = property.PropertyType;
            if (declared.IsClass && declared.Namespace?.StartsWith(nameof(OrderService), StringComparison.Ordinal) == true)
            {
                AddObject(found, configuration, key, declared, value ?? Activator.CreateInstance(declared));
            }
            else if (declared != typeof(string) && declared.IsAssignableTo(typeof(System.Collections.IEnumerable)))
            {
                AddEntries(found, configuration, key);
            }
            else
            {
                Add(found, configuration, key, Text(value));
            }
        }
    }

    private static void AddEntries(List<SettingInForce> found, IConfigurationRoot configuration, string key)
    {
        var entries = configuration.GetSection(key).AsEnumerable().Where(pair => pair.Value is not null).OrderBy(pair => pair.Key, StringComparer.OrdinalIgnoreCase).ToList();
        foreach (var entry in entries)
        {
            Add(found, configuration, entry.Key, null);
        }
        if (entries.Count == 0)
        {
            found.Add(new SettingInForce(key, null, Default, false));
        }
    }

    private static void Add(List<SettingInForce> found, IConfigurationRoot configuration, string key, string? byDefault)
    {
        var value = configuration[key];
        // A file that holds a secret is named; that is no secret.
        var isSecret = !SecretFiles.IsSecretFile(key) && (SecretFiles.IsSecret(key) || SecretName().IsMatch(key) || WithPassword().IsMatch(value ?? byDefault ?? ""));
        // Of a broker's address everybody wants to see the host.
        var shown = value ?? byDefault;
        if (isSecret && !string.IsNullOrEmpty(shown))
        {
            shown = Uri.TryCreate(shown, UriKind.Absolute, out var address) && address.Scheme is "amqp" or "amqps" ? $"{address.Scheme}://{(address.UserInfo.Length == 0 ? "" : "(not shown)@")}{address.Authority}{address.AbsolutePath}" : Mask;
        }
        found.Add(new SettingInForce(key, shown, value is null ? Default : Origin(configuration, key), isSecret));
    }

    private static string Origin(IConfigurationRoot configuration, string key)
    {
        foreach (var fileKey in (string[])[key + "File", key + "_FILE"])
        {
            if (configuration[fileKey] is { } path)
            {
                return $"{path} ({Settings.Origin(configuration, fileKey) ?? fileKey})";
            }
        }
        return Settings.Origin(configuration, key) ?? Default;
    }

    private static string? Text(object? value) => value switch
    {
        null => null,
        bool yes => yes ? "true" : "false",
        IFormattable number => number.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString(),
    };

    private static bool IsList(Type type) => type != typeof(string) && type.IsAssignableTo(typeof(System.Collections.IEnumerable));

    [GeneratedRegex("(password|secret|token|apikey|headers|connectionstring)$|:key$", RegexOptions.IgnoreCase)]
    private static partial Regex SecretName();

    [GeneratedRegex(@"://[^/\s]*:[^/\s]*@|(password|pwd)\s*=", RegexOptions.IgnoreCase)]
    private static partial Regex WithPassword();
}
