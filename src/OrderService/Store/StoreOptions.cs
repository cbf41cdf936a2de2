using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

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

    /// <summary>Backups that the service makes by itself; SQLite only.</summary>
    [ValidateObjectMembers]
    public StoreBackupOptions Backup { get; init; } = new();

    internal bool UsesPostgres => string.Equals(Provider, "Postgres", StringComparison.OrdinalIgnoreCase);
}

/// <summary>Backups of the SQLite file by the process that serves it.</summary>
public sealed class StoreBackupOptions
{
    /// <summary>Where backups are put, best on another disk; none are made without it.</summary>
    public string? Folder { get; init; }

    /// <summary>How long after one backup the next one is made.</summary>
    [Range(typeof(TimeSpan), "00:01:00", "30.00:00:00")]
    public TimeSpan Interval { get; init; } = TimeSpan.FromDays(1);

    /// <summary>How many of them are kept; the oldest go.</summary>
    [Range(1, 1000)]
    public int Keep { get; init; } = 7;
}
