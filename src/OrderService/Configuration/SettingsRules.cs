namespace OrderService.Configuration;

/// <summary>What the check of the settings is told by those whose settings they are.</summary>
/// <param name="Sections">The sections this service owns and the classes that describe them.</param>
/// <param name="AddStations">Registers every station, whose validators judge their options.</param>
/// <param name="LogMistakes">What can be told of the log's settings.</param>
public sealed record SettingsRules(
    IReadOnlyDictionary<string, Type> Sections,
    Action<IServiceCollection, IConfiguration, ServiceRoles> AddStations,
    Func<IConfiguration, IEnumerable<string>> LogMistakes);
