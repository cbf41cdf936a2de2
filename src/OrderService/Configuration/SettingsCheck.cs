using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Configuration;

/// <summary>Every check of the settings: names, types, ranges, and what contradicts what.</summary>
internal static class SettingsCheck
{
    /// <summary>Settings without a section.</summary>
    public static IReadOnlyList<string> Scalars { get; } = ["Urls", "ManagementUrls", "Roles", "AllowedHosts"];

    /// <summary>Sections that are libraries' own.</summary>
    public static IReadOnlyList<string> Foreign { get; } = ["Serilog", "OpenTelemetry", "Logging", "Kestrel", "$schema"];

    public static IReadOnlyList<string> Mistakes(IConfigurationRoot configuration, SettingsRules rules)
    {
        var known = new KnownSettings(rules.Sections, Scalars, Foreign);
        SettingMistake[] mistakes = [.. known.Check(configuration), .. CollectorSettings.Mistakes(configuration)];
        // What could not be read is left out, so that the validators can still judge the rest: all mistakes at once.
        var readable = new ConfigurationBuilder()
            .AddInMemoryCollection(configuration.AsEnumerable().Where(pair => pair.Value is not null && !mistakes.Any(mistake => IsUnder(pair.Key, mistake.Key))))
            .Build();
        return [.. mistakes.Select(mistake => mistake.Text), .. rules.LogMistakes(configuration), .. OutOfRange(readable, rules), .. Contradictions(readable)];
    }

    private static IEnumerable<string> OutOfRange(IConfigurationRoot configuration, SettingsRules rules)
    {
        var services = new ServiceCollection();
        rules.AddStations(services, configuration, ServiceRoles.All);
        using var provider = services.BuildServiceProvider();
        try
        {
            provider.GetService<IStartupValidator>()?.Validate();
            return [];
        }
        catch (OptionsValidationException exception)
        {
            return Explain(exception, rules);
        }
        catch (AggregateException exception)
        {
            return [.. exception.InnerExceptions.SelectMany(inner => inner is OptionsValidationException validation ? Explain(validation, rules) : [inner.Message])];
        }
    }

    // "Prefetch: The field RabbitMqOptions.Prefetch must be between 1 and 2000." becomes "RabbitMq:Prefetch: must be between 1 and 2000."
    private static IEnumerable<string> Explain(OptionsValidationException exception, SettingsRules rules)
    {
        var section = rules.Sections.FirstOrDefault(pair => pair.Value == exception.OptionsType).Key ?? exception.OptionsType.Name;
        foreach (var failure in exception.Failures)
        {
            // One section's check may look at another's settings, which it then names.
            if (rules.Sections.Keys.Any(name => failure.StartsWith(name + ":", StringComparison.OrdinalIgnoreCase)))
            {
                yield return failure;
                continue;
            }
            var colon = failure.IndexOf(": ", StringComparison.Ordinal);
            var member = colon > 0 && !failure[..colon].Contains(' ') ? failure[..colon] : null;
            var text = member is null ? failure : failure[(colon + 2)..];
            if (text.StartsWith(section + ":", StringComparison.OrdinalIgnoreCase))
            {
                yield return text;
                continue;
            }
            if (text.StartsWith("The field ", StringComparison.Ordinal) && text.IndexOf(' ', 10) is > 0 and var end)
            {
                text = text[(end + 1)..];
            }
            yield return member is null ? $"{section}: {text}" : $"{section}:{member.Replace('.', ':')}: {text}";
        }
    }

    private static IEnumerable<string> Contradictions(IConfigurationRoot configuration)
    {
        var store = configuration.GetSection(StoreOptions.Section).Get<StoreOptions>() ?? new StoreOptions();
        if (store.Provider.Equals("Sqlite", StringComparison.OrdinalIgnoreCase) && !string.IsNullOrWhiteSpace(store.ConnectionString))
        {
            yield return "Store:ConnectionString: is for PostgreSQL, but Store:Provider is Sqlite; set Store:Provider to Postgres or remove it.";
        }
        if (store.Provider.Equals("Sqlite", StringComparison.OrdinalIgnoreCase) && (string.IsNullOrWhiteSpace(store.Path) || store.Path.Contains(":memory:", StringComparison.OrdinalIgnoreCase)))
        {
            yield return "Store:Path: must name a file; orders that only memory holds are lost at the next restart.";
        }
        if (store.Provider.Equals("Postgres", StringComparison.OrdinalIgnoreCase) && !string.IsNullOrWhiteSpace(store.Backup.Folder))
        {
            yield return "Store:Backup:Folder: is for SQLite, but Store:Provider is Postgres; back PostgreSQL up by its own means (docs/operations.md, Backup) and remove it.";
        }
        foreach (var mistake in ServiceRoles.Read(configuration).Mistakes)
        {
            yield return mistake;
        }
        foreach (var mistake in ListenAddresses.Mistakes(configuration))
        {
            yield return mistake;
        }
    }

    private static bool IsUnder(string key, string mistaken) =>
        key.Equals(mistaken, StringComparison.OrdinalIgnoreCase) || key.StartsWith(mistaken + ":", StringComparison.OrdinalIgnoreCase);
}
