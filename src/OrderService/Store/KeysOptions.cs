using Microsoft.Extensions.Options;

namespace OrderService.Store;

/// <summary>The keys under which personal data is stored, one a customer, and the master key that wraps them. Section <c>Keys</c>.</summary>
public sealed class KeysOptions
{
    public const string Section = "Keys";

    /// <summary>With <c>Store:Provider</c> Sqlite: the file of the keys; <c>keys.db</c> beside <c>Store:Path</c> when it is empty.</summary>
    public string? Path { get; init; }

    /// <summary>With <c>Store:Provider</c> Postgres: the database whose schema <c>orderservice_keys</c> has the keys; that of <c>Store:ConnectionString</c> when it is empty. A secret.</summary>
    public string? ConnectionString { get; init; }

    /// <summary>256 bits as base64 or hex, which wrap the customers' keys. A secret: prefer <c>Keys:MasterKeyFile</c>. Without one the first start makes one beside the keys.</summary>
    public string? MasterKey { get; init; }

    /// <summary>Master keys of before, which still unwrap until <c>orderservice keys rotate</c> has run.</summary>
    public IList<OldMasterKey> Old { get; init; } = [];

    /// <summary>The same for a file of SQLite that lies elsewhere than the store.</summary>
    internal KeysOptions Of(StoreOptions store) => new()
    {
        Path = string.IsNullOrWhiteSpace(Path) ? System.IO.Path.Combine(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(store.Path))!, "keys.db") : Path,
        ConnectionString = ConnectionString,
        MasterKey = MasterKey,
        Old = Old,
    };
}

public sealed class OldMasterKey
{
    /// <summary>As <c>Keys:MasterKey</c>.</summary>
    public string MasterKey { get; init; } = "";
}

internal sealed class KeysOptionsValidator : IValidateOptions<KeysOptions>
{
    private const string Wanted = "must be 32 bytes as base64 or hex; make one with: openssl rand -base64 32";

    public ValidateOptionsResult Validate(string? name, KeysOptions options)
    {
        var mistakes = new List<string>();
        if (!string.IsNullOrWhiteSpace(options.MasterKey) && Store.MasterKey.Parse(options.MasterKey) is null)
        {
            mistakes.Add($"Keys:MasterKey: {Wanted}");
        }
        for (var index = 0; index < options.Old.Count; index++)
        {
            if (Store.MasterKey.Parse(options.Old[index].MasterKey) is null)
            {
                mistakes.Add($"Keys:Old:{index}:MasterKey: {Wanted}");
            }
        }
        return mistakes.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(mistakes);
    }
}
