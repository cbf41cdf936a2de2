using System.ComponentModel.DataAnnotations;

namespace OrderService.Store;

/// <summary>Where orders are kept.</summary>
public sealed class StoreOptions
{
    public const string Section = "Store";

    /// <summary><c>Sqlite</c> (one machine) or <c>Postgres</c> (any number of instances).</summary>
    [RegularExpression("(?i)sqlite|postgres", ErrorMessage = "Store:Provider is Sqlite or Postgres.")]
    public string Provider { get; init; } = "Sqlite";

    /// <summary>The SQLite file; its folder is made when it is missing. On a local disk, never on a network share.</summary>
    public string Path { get; init; } = "data/orders.db";

    /// <summary>PostgreSQL's connection string, as Npgsql takes it; a secret. It names the server itself, not a pooler.</summary>
    public string? ConnectionString { get; init; }

    /// <summary>Lets PostgreSQL be reached on another machine without TLS that is verified: only on a private network.</summary>
    public bool AllowPlaintext { get; init; }

    internal bool UsesPostgres => string.Equals(Provider, "Postgres", StringComparison.OrdinalIgnoreCase);
}
