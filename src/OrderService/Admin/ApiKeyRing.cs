using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;
using OrderService.Configuration;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>The API keys in force, as hashes; the keys themselves are not kept.</summary>
public sealed class ApiKeyRing
{
    private readonly Entry[] entries;

    private readonly TimeProvider clock;

    /// <param name="roles">Everything when null.</param>
    public ApiKeyRing(IOptions<ApiOptions> api, IOptions<StoreOptions> store, TimeProvider clock, ServiceRoles? roles = null)
    {
        this.clock = clock;
        AreKnown = roles?.Api != false;
        if (!AreKnown)
        {
            entries = [];
            return;
        }
        First = FirstKey.IsWanted(api.Value) ? FirstKey.ReadOrCreate(api.Value, store.Value) : null;
        entries = First is null
            ? [.. api.Value.Keys.Select(key => new Entry(key.Name, Hash(key.Key), [.. key.Scopes]) { Commands = [.. key.Commands] })]
            : [new Entry(FirstKey.Name, Hash(First.Key), [.. Scopes.All], First.Ends)];
    }

    /// <summary>False in a process without the API: whatever its settings say of keys may be out of date or not there at all, so it judges none.</summary>
    public bool AreKnown { get; }

    /// <summary>The key that the first start made because none was configured; null otherwise.</summary>
    public FirstKey? First { get; }

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
        return found is not null && IsInForce(found) ? found : null;
    }

    /// <summary>Whether a key with this <see cref="Entry.Id"/> is in force, or nobody here can tell.</summary>
    public bool Holds(string id) => !AreKnown || Array.Exists(entries, entry => entry.Id == id && IsInForce(entry));

    /// <summary>Whether it was in force, and its time is over.</summary>
    public bool HasEnded(string id) => Array.Exists(entries, entry => entry.Id == id && !IsInForce(entry));

    /// <summary>The key of that name; null when it was taken out of the settings, or has ended.</summary>
    public Entry? FindByName(string name) => Array.Find(entries, entry => entry.Name == name && IsInForce(entry));

    /// <summary>The key with this <see cref="Entry.Id"/>; null when it was taken out of the settings, or has ended.</summary>
    public Entry? FindById(string id) => Array.Find(entries, entry => entry.Id == id && IsInForce(entry));

    private static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    private bool IsInForce(Entry entry) => entry.Ends is not { } ends || ends > clock.GetUtcNow();

    /// <summary>A key's owner.</summary>
    /// <param name="Ends">Null for a key of the settings, which ends when it is taken out.</param>
    public sealed record Entry(string Name, byte[] Hash, IReadOnlyList<string> Scopes, DateTimeOffset? Ends = null)
    {
        /// <summary>The commands that it may send; empty for all.</summary>
        public IReadOnlyList<string> Commands { get; init; } = [];

        /// <summary>Tells this key from another of the same name, and says nothing about it.</summary>
        public string Id { get; } = Convert.ToHexStringLower(HMACSHA256.HashData(Hash, "orderservice key id"u8).AsSpan(0, 4));
    }
}
