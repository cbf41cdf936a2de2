using System.Globalization;

namespace OrderService.Database;

/// <summary>A numbered step of the schema, embedded in the assembly as <c>Migrations/PROVIDER/NNN_name.sql</c>.</summary>
internal sealed record Migration(int Number, string Name, string Sql)
{
    public static IReadOnlyList<Migration> All(string provider)
    {
        var assembly = typeof(Migration).Assembly;
        var prefix = $"OrderService.Database.Migrations.{provider}.";
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
