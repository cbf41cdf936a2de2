namespace OrderService.Configuration;

/// <summary>What a process does. One process may do everything; several may share the work.</summary>
/// <param name="Orders">Takes orders from the queue, decides and stores them.</param>
/// <param name="DeadLetters">Parks dead letters and sends alerts.</param>
/// <param name="Relay">Publishes committed events.</param>
/// <param name="Api">Serves the HTTP API and the admin page. Health and metrics are served by every process.</param>
public sealed record ServiceRoles(bool Orders, bool DeadLetters, bool Relay, bool Api)
{
    private static readonly string[] Names = ["orders", "dead-letters", "relay", "api"];

    public static readonly ServiceRoles All = new(true, true, true, true);

    /// <summary>Reads <c>Roles</c>: a list, or one value with commas; everything when it is absent.</summary>
    internal static (ServiceRoles Roles, IReadOnlyList<string> Mistakes) Read(IConfiguration configuration)
    {
        var section = configuration.GetSection("Roles");
        var given = section.GetChildren().Any()
            ? [.. section.GetChildren().Select(child => child.Value ?? "")]
            : (section.Value ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (given.Length == 0)
        {
            return (All, string.IsNullOrEmpty(section.Value) ? [] : ["Roles: names no role; leave it out for all of them."]);
        }
        var mistakes = given
            .Where(name => !Names.Contains(name, StringComparer.OrdinalIgnoreCase))
            .Select(name => $"Roles: '{name}' is not a role; there are {string.Join(", ", Names)}{(Spelling.Nearest(name, Names) is { } nearest ? $", did you mean {nearest}?" : ".")}")
            .ToList();
        bool Has(string name) => given.Contains(name, StringComparer.OrdinalIgnoreCase);
        return (new ServiceRoles(Has("orders"), Has("dead-letters"), Has("relay"), Has("api")), mistakes);
    }

    public override string ToString() => string.Join(", ", new[] { (Orders, "orders"), (DeadLetters, "dead-letters"), (Relay, "relay"), (Api, "api") }.Where(role => role.Item1).Select(role => role.Item2));
}
