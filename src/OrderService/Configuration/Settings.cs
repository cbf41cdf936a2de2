using Microsoft.Extensions.Configuration.EnvironmentVariables;
using Microsoft.Extensions.Configuration.Json;

namespace OrderService.Configuration;

/// <summary>
/// Where settings come from, the later winning: <c>appsettings.json</c> beside the binary, <c>appsettings.ENVIRONMENT.json</c>,
/// environment variables with <c>__</c>, secret files, and what the command line says.
/// </summary>
public static class Settings
{
    /// <summary>Reads all sources and checks every setting; throws nothing and finds all mistakes at once.</summary>
    /// <param name="rules">Whose settings they are.</param>
    /// <param name="overrides">What the command line says; it wins.</param>
    /// <param name="environmentVariables">Off in tests that must not depend on the machine.</param>
    public static LoadedSettings Load(SettingsRules rules, IEnumerable<KeyValuePair<string, string?>>? overrides = null, bool environmentVariables = true)
    {
        var builder = new ConfigurationBuilder().SetBasePath(AppContext.BaseDirectory);
        // Settings are read once: a service that changes its mind in mid-flow is harder to reason about than a restart.
        builder.AddJsonFile("appsettings.json", optional: true, reloadOnChange: false);
        builder.AddJsonFile($"appsettings.{EnvironmentName}.json", optional: true, reloadOnChange: false);
        if (environmentVariables)
        {
            builder.AddEnvironmentVariables();
        }
        if (overrides is not null)
        {
            builder.AddInMemoryCollection(overrides);
        }
        IConfigurationRoot configuration;
        try
        {
            configuration = builder.Build();
        }
        catch (InvalidDataException exception)
        {
            // "Failed to load configuration from file '/app/appsettings.json'." with the line and column in the inner exception.
            return new LoadedSettings(new ConfigurationBuilder().Build(), [$"{exception.Message} {exception.InnerException?.Message}".Trim()], []);
        }

        var secrets = SecretFiles.Read(configuration);
        builder.AddInMemoryCollection(secrets.Values);
        configuration = builder.Build();
        var mistakes = new List<string>(secrets.Mistakes);
        mistakes.AddRange(SettingsCheck.Mistakes(configuration, rules));
        return new LoadedSettings(configuration, mistakes, secrets.Warnings);
    }

    /// <summary><c>Production</c> unless <c>DOTNET_ENVIRONMENT</c> or <c>ASPNETCORE_ENVIRONMENT</c> says otherwise.</summary>
    public static string EnvironmentName =>
        Environment.GetEnvironmentVariable("ASPNETCORE_ENVIRONMENT") ?? Environment.GetEnvironmentVariable("DOTNET_ENVIRONMENT") ?? Environments.Production;

    /// <summary>Says where the value in force came from, in an operator's words; null for defaults.</summary>
    internal static string? Origin(IConfigurationRoot configuration, string key)
    {
        foreach (var provider in configuration.Providers.Reverse())
        {
            if (provider.TryGet(key, out _) || provider.GetChildKeys([], key).Any())
            {
                return provider switch
                {
                    JsonConfigurationProvider json => json.Source.Path,
                    EnvironmentVariablesConfigurationProvider => $"environment variable {key.Replace(":", "__", StringComparison.Ordinal)}",
                    _ => null,
                };
            }
        }
        return null;
    }
}

/// <summary>The settings in force. They may be used only when <see cref="Mistakes"/> is empty.</summary>
/// <param name="Mistakes">One sentence for each mistake, starting with the setting's key. No secret is among the words.</param>
/// <param name="Warnings">What works but should be changed.</param>
public sealed record LoadedSettings(IConfigurationRoot Configuration, IReadOnlyList<string> Mistakes, IReadOnlyList<string> Warnings);
