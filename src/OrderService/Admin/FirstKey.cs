using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// The key that the first start makes where the settings have none: with all scopes, in a file beside the store that only its owner reads, and with an end.
/// Its life begins with the file's last change.
/// </summary>
/// <param name="IsNew">This start made it.</param>
public sealed record FirstKey(string File, string Key, DateTimeOffset Ends, bool IsNew)
{
    /// <summary>The name that the audit log shows.</summary>
    public const string Name = "first-start";

    /// <summary>Without the key.</summary>
    public override string ToString() => $"{File} until {Ends:u}";

    public static string FileOf(StoreOptions store) =>
        Path.Combine(Path.GetDirectoryName(Path.GetFullPath(string.IsNullOrWhiteSpace(store.Path) ? "data/orders.db" : store.Path))!, "api-key");

    /// <summary>Whether the settings leave it to the first start who may come in.</summary>
    public static bool IsWanted(ApiOptions api) => api.Keys.Count == 0 && string.IsNullOrEmpty(api.Jwt.Authority);

    /// <summary>Null where there is no file.</summary>
    /// <exception cref="UnauthorizedAccessException">It belongs to another user.</exception>
    public static FirstKey? Read(ApiOptions api, StoreOptions store, bool isNew = false)
    {
        var file = FileOf(store);
        return System.IO.File.Exists(file)
            ? new FirstKey(file, System.IO.File.ReadAllText(file).Trim(), new DateTimeOffset(System.IO.File.GetLastWriteTimeUtc(file), TimeSpan.Zero) + api.FirstKeyLifetime, isNew)
            : null;
    }

    /// <exception cref="StoreSettingsException">It can't be read or made.</exception>
    public static FirstKey ReadOrCreate(ApiOptions api, StoreOptions store)
    {
        try
        {
            return Read(api, store) ?? Read(api, store, Create(FileOf(store)))!;
        }
        catch (Exception exception) when (exception is UnauthorizedAccessException or IOException)
        {
            throw new StoreSettingsException(
                $"No API key is configured, so a start makes one and keeps it in {FileOf(store)}, which can't be used: {exception.Message} Let this process's user write there, or set Api:Keys.");
        }
    }

    private static bool Create(string file) =>
        OwnerOnly.WriteNew(file, Encoding.ASCII.GetBytes(Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(32)) + Environment.NewLine));
}
