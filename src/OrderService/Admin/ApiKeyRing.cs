using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>The API keys in force, as hashes; the keys themselves are not kept.</summary>
public sealed class ApiKeyRing
{
    private readonly Entry[] entries;

    public ApiKeyRing(IOptions<ApiOptions> api, IOptions<StoreOptions> store)
    {
        if (api.Value.Keys.Count > 0)
        {
            entries = [.. api.Value.Keys.Select(key => new Entry(key.Name, Hash(key.Key), [.. key.Scopes]))];
            return;
        }
        if (!string.IsNullOrEmpty(api.Value.Jwt.Authority))
        {
            entries = [];
            return;
        }
        var file = GeneratedKeyFile(store.Value);
        GeneratedKey = ReadOrCreate(file, out var isNew);
        GeneratedKeyIsNew = isNew;
        entries = [new Entry("first-start", Hash(GeneratedKey), [.. Scopes.All])];
    }

    /// <summary>The key that was made because none was configured; null otherwise.</summary>
    public string? GeneratedKey { get; }

    /// <summary>True when this start made it, so that it is printed exactly once.</summary>
    public bool GeneratedKeyIsNew { get; }

    /// <summary>Where a generated key is kept: beside the store.</summary>
    public static string GeneratedKeyFile(StoreOptions store) =>
        Path.Combine(Path.GetDirectoryName(Path.GetFullPath(string.IsNullOrWhiteSpace(store.Path) ? "data/orders.db" : store.Path))!, "api-key");

    /// <summary>Finds the owner of a key. It takes the same time whichever key it is, and whether there is one.</summary>
    public Entry? Find(string presented)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.UTF8.GetBytes(presented), hash);
        Entry? found = null;
        foreach (var entry in entries)
        {
            if (CryptographicOperations.FixedTimeEquals(entry.Hash, hash))
            {
                found = entry;
            }
        }
        return found;
    }

    /// <summary>Whether a key with this <see cref="Entry.Id"/> is in force.</summary>
    public bool Holds(string id) => Array.Exists(entries, entry => entry.Id == id);

    /// <summary>The key of that name; null when it was taken out of the settings.</summary>
    public Entry? FindByName(string name) => Array.Find(entries, entry => entry.Name == name);

    private static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    private static string ReadOrCreate(string file, out bool isNew)
    {
        isNew = false;
        if (File.Exists(file))
        {
            return File.ReadAllText(file).Trim();
        }
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        var key = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(32));
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        }
        try
        {
            using var writer = new StreamWriter(file, options);
            writer.WriteLine(key);
        }
        catch (IOException) when (File.Exists(file))
        {
            // Another process that started at the same moment made it first.
            return File.ReadAllText(file).Trim();
        }
        isNew = true;
        return key;
    }

    /// <summary>A key's owner.</summary>
    public sealed record Entry(string Name, byte[] Hash, IReadOnlyList<string> Scopes)
    {
        /// <summary>Tells this key from another of the same name, and says nothing about it.</summary>
        public string Id { get; } = Convert.ToHexStringLower(HMACSHA256.HashData(Hash, "orderservice key id"u8).AsSpan(0, 4));
    }
}
