using System.Globalization;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>A numbered step of the schema, embedded in the assembly as <c>PROVIDER/Migrations/NNN_name.sql</c>.</summary>
internal sealed record Migration(int Number, string Name, string Sql)
{
    /// <exception cref="StoreSettingsException">A newer version wrote the store.</exception>
    public static void RequireNoNewer(long current, string provider, string store)
    {
        if (current > All(provider)[^1].Number)
        {
            throw new StoreSettingsException($"{store} was written by a newer version (schema {current}); run that version or restore a backup.");
        }
    }

    /// <summary>For those who only look: what they know is one schema, and to change it is not theirs.</summary>
    /// <exception cref="StoreSettingsException">The store has another schema.</exception>
    /// <exception cref="StoreMissingException">It has none.</exception>
    public static void RequireCurrent(long current, string provider, string store)
    {
        RequireNoNewer(current, provider, store);
        var newest = All(provider)[^1].Number;
        if (current == 0)
        {
            throw new StoreMissingException($"{store} is empty; the first orderservice serve, or orderservice migrate, makes its tables.");
        }
        if (current < newest)
        {
            throw new StoreSettingsException(
                $"{store} has the schema {current} of an older version and this version needs {newest}; nothing was changed. Use the commands of the version that serves it, "
                + "or bring it up to date by starting this version's service (or, with the service stopped, by orderservice migrate).");
        }
    }

    public static IReadOnlyList<Migration> All(string provider)
    {
        var assembly = typeof(Migration).Assembly;
        var prefix = $"OrderService.Database.{provider}.Migrations.";
        return [.. assembly.GetManifestResourceNames()
            .Where(name => name.StartsWith(prefix, StringComparison.Ordinal))
            .Order(StringComparer.Ordinal)
            .Select(name =>
            {
                using var reader = new StreamReader(assembly.GetManifestResourceStream(name)!);
                var file = name[prefix.Length..^".sql".Length];
                return new Migration(int.Parse(file.AsSpan(0, 3), CultureInfo.InvariantCulture), file, reader.ReadToEnd());
            })];
    }
}
