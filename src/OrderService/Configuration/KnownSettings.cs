using System.Collections;
using System.ComponentModel;
using System.Globalization;
using System.Reflection;

namespace OrderService.Configuration;

/// <summary>
/// The settings that exist, read off the options classes, so that a misspelt key is a mistake instead of a default that nobody meant.
/// Libraries' own sections (<c>Serilog</c>, <c>OpenTelemetry</c>, <c>Logging</c>, <c>Kestrel</c>) are theirs to check.
/// </summary>
internal sealed class KnownSettings(IReadOnlyDictionary<string, Type> sections, IReadOnlyList<string> scalars, IReadOnlyList<string> foreign)
{
    public IEnumerable<string> Sections => sections.Keys;

    /// <summary>Finds unknown keys and values of the wrong type.</summary>
    public IReadOnlyList<SettingMistake> Check(IConfigurationRoot configuration)
    {
        var mistakes = new List<SettingMistake>();
        foreach (var section in configuration.GetChildren())
        {
            if (Find(sections.Keys, section.Key) is { } name)
            {
                // A scalar under a section's name ("STORE=abc") is some other program's environment variable.
                CheckObject(configuration, section, sections[name], mistakes);
            }
            else if (scalars.Contains(section.Key, StringComparer.OrdinalIgnoreCase) || foreign.Contains(section.Key, StringComparer.OrdinalIgnoreCase))
            {
            }
            else if (IsFromFile(configuration, section.Key) || (section.GetChildren().Any() && Spelling.Nearest(section.Key, sections.Keys) is not null))
            {
                mistakes.Add(Unknown(configuration, section, [.. sections.Keys, .. scalars, .. foreign], parent: ""));
            }
        }
        return mistakes;
    }

    private static void CheckObject(IConfigurationRoot configuration, IConfigurationSection section, Type type, List<SettingMistake> mistakes)
    {
        var properties = type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.SetMethod is { IsPublic: true } || IsList(property.PropertyType, out _))
            .ToDictionary(property => property.Name, property => property.PropertyType, StringComparer.OrdinalIgnoreCase);
        foreach (var child in section.GetChildren())
        {
            if (properties.TryGetValue(child.Key, out var propertyType))
            {
                CheckValue(configuration, child, propertyType, mistakes);
            }
            else if (!SecretFiles.IsSecretFile(child.Path))
            {
                mistakes.Add(Unknown(configuration, child, properties.Keys, section.Path + ":"));
            }
        }
    }

    private static void CheckValue(IConfigurationRoot configuration, IConfigurationSection section, Type declared, List<SettingMistake> mistakes)
    {
        var type = Nullable.GetUnderlyingType(declared) ?? declared;
        if (type == typeof(string))
        {
            if (section.GetChildren().Any())
            {
                mistakes.Add(new(section.Path, $"{section.Path}: expected one value, found a section with {string.Join(", ", section.GetChildren().Select(child => child.Key))}."));
            }
            return;
        }
        if (IsDictionary(type))
        {
            return;
        }
        if (IsList(type, out var element))
        {
            if (section.Value is { Length: > 0 } && !section.GetChildren().Any())
            {
                mistakes.Add(new(section.Path, $"{section.Path}: expected a list; in the environment write {section.Path.Replace(":", "__", StringComparison.Ordinal)}__0, __1 and so on."));
            }
            foreach (var item in section.GetChildren())
            {
                CheckValue(configuration, item, element, mistakes);
            }
            return;
        }
        var converter = TypeDescriptor.GetConverter(type);
        if (!converter.CanConvertFrom(typeof(string)) || type.IsClass && type != typeof(Uri) && type != typeof(Version))
        {
            CheckObject(configuration, section, type, mistakes);
            return;
        }
        if (section.GetChildren().Any())
        {
            mistakes.Add(new(section.Path, $"{section.Path}: expected {Describe(type)}, found a section."));
            return;
        }
        if (section.Value is not { } value)
        {
            return;
        }
        try
        {
            _ = converter.ConvertFromString(null, CultureInfo.InvariantCulture, value);
        }
        catch (Exception exception) when (exception is FormatException or ArgumentException or NotSupportedException or OverflowException || exception.InnerException is FormatException or OverflowException)
        {
            var shown = SecretFiles.IsSecret(section.Path) ? "its value" : $"'{Shorten(value)}'";
            mistakes.Add(new(section.Path, $"{section.Path}: {shown} is not {Describe(type)}{From(configuration, section.Path)}."));
        }
    }

    private static SettingMistake Unknown(IConfigurationRoot configuration, IConfigurationSection section, IEnumerable<string> known, string parent)
    {
        var nearest = Spelling.Nearest(section.Key, known);
        var hint = nearest is null ? "" : $", did you mean {parent}{nearest}?";
        return new(section.Path, $"{section.Path}: unknown setting{From(configuration, section.Path)}{(nearest is null ? "." : hint)}");
    }

    private static string From(IConfigurationRoot configuration, string key) =>
        Settings.Origin(configuration, key) is { } origin ? $" (from {origin})" : "";

    private static bool IsFromFile(IConfigurationRoot configuration, string key) => configuration.Providers
        .OfType<FileConfigurationProvider>()
        .Any(provider => provider.TryGet(key, out _) || provider.GetChildKeys([], key).Any());

    private static string? Find(IEnumerable<string> names, string key) => names.FirstOrDefault(name => name.Equals(key, StringComparison.OrdinalIgnoreCase));

    private static bool IsDictionary(Type type) => type.IsGenericType && type.GetInterfaces().Append(type).Any(candidate =>
        candidate.IsGenericType && (candidate.GetGenericTypeDefinition() == typeof(IDictionary<,>) || candidate.GetGenericTypeDefinition() == typeof(IReadOnlyDictionary<,>)));

    private static bool IsList(Type type, out Type element)
    {
        element = typeof(string);
        if (type == typeof(string) || !type.IsAssignableTo(typeof(IEnumerable)) || IsDictionary(type))
        {
            return false;
        }
        element = type.IsArray ? type.GetElementType()! : type.GetInterfaces().Append(type)
            .First(candidate => candidate.IsGenericType && candidate.GetGenericTypeDefinition() == typeof(IEnumerable<>)).GetGenericArguments()[0];
        return true;
    }

    private static string Shorten(string value) => value.Length <= 40 ? value : value[..40] + "...";

    private static string Describe(Type type) => type switch
    {
        _ when type == typeof(bool) => "true or false",
        _ when type == typeof(int) || type == typeof(long) || type == typeof(ushort) || type == typeof(short) || type == typeof(uint) => "a whole number in range",
        _ when type == typeof(double) || type == typeof(decimal) => "a number",
        _ when type == typeof(TimeSpan) => "a duration such as 00:15:00",
        _ when type == typeof(TimeOnly) => "a time of day such as 22:00",
        _ when type == typeof(Uri) => "a URI",
        { IsEnum: true } => $"one of {string.Join(", ", Enum.GetNames(type))}",
        _ => $"a {type.Name}",
    };
}

/// <summary>A setting and what is wrong with it.</summary>
internal sealed record SettingMistake(string Key, string Text);

/// <summary>Guesses what a misspelt name was meant to be.</summary>
internal static class Spelling
{
    /// <summary>The nearest of <paramref name="known"/>, or null when none is near enough to be meant.</summary>
    public static string? Nearest(string name, IEnumerable<string> known) => known
        .Select(candidate => (candidate, distance: Distance(name.ToUpperInvariant(), candidate.ToUpperInvariant())))
        .Where(pair => pair.distance <= Math.Max(2, pair.candidate.Length / 4))
        .OrderBy(pair => pair.distance)
        .Select(pair => pair.candidate)
        .FirstOrDefault();

    internal static int Distance(string left, string right)
    {
        var previous = Enumerable.Range(0, right.Length + 1).ToArray();
        for (var row = 1; row <= left.Length; row++)
        {
            var current = new int[right.Length + 1];
            current[0] = row;
            for (var column = 1; column <= right.Length; column++)
            {
                var substitution = previous[column - 1] + (left[row - 1] == right[column - 1] ? 0 : 1);
                current[column] = Math.Min(Math.Min(previous[column] + 1, current[column - 1] + 1), substitution);
            }
            previous = current;
        }
        return previous[^1];
    }
}
