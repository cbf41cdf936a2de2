using System.Collections.Concurrent;
using System.Globalization;

namespace OrderService.Store;

/// <summary>Opens sealed bytes; null when their key is destroyed. What was never sealed comes back as it is.</summary>
public delegate byte[]? OpenSealed(byte[] bytes);

/// <summary>Finds the key of a customer.</summary>
public delegate SealingKey KeyOfCustomer(string customerId);

/// <summary>
/// Keeps what is personal unreadable for whoever has the store alone, and lets it be forgotten: one key a customer, and for bodies that name no customer one a day.
/// A key is durable before anything is written under it. Customers' keys are not kept in memory, so that one which another process destroys opens nothing from that moment on.
/// </summary>
public sealed partial class PersonalKeys(KeyTable table, KeysOptions options, SealsOptions seals, TimeProvider clock, ILogger logger)
{
    /// <summary>The key that signs records of redaction.</summary>
    private const string SigningSubject = "signing";
    private const string CustomerPrefix = "customer:";
    private const string LettersPrefix = "letters:";

    /// <summary>What signs the evidence that nobody changed the store; the keys lie in the same place.</summary>
    public SealKeys Seals { get; } = new(table, seals, logger);

    private KeyTable Table => table;

    private readonly Lock gate = new();
    private readonly ConcurrentDictionary<Guid, SealingKey> ofLetters = new();
    private Dictionary<string, MasterKey>? masters;
    private MasterKey? current;
    private (string Day, SealingKey Key)? today;

    /// <summary>Makes the store of the keys where it is missing, and looks whether the master keys at hand open all that is in it.</summary>
    /// <exception cref="StoreSettingsException">They do not.</exception>
    public void Prepare()
    {
        table.Create();
        Seals.Prepare();
        var known = Masters(make: true);
        foreach (var use in table.Masters().Where(use => !known.ContainsKey(use.Id)))
        {
            throw new StoreSettingsException(
                $"{use.Keys} keys of customers are wrapped by the master key {use.Id}, which is not here: set Keys:MasterKeyFile (or Keys:Old:0:MasterKeyFile) to the file that holds it.");
        }
    }

    /// <summary>The keys of customers; those that have none get one.</summary>
    public Dictionary<string, SealingKey> OfCustomers(IReadOnlyCollection<string> customerIds)
    {
        var keys = Of([.. customerIds.Select(id => CustomerPrefix + id).Distinct(StringComparer.Ordinal)]);
        return keys.ToDictionary(pair => pair.Key[CustomerPrefix.Length..], pair => pair.Value, StringComparer.Ordinal);
    }

    public SealingKey OfCustomer(string customerId) => OfCustomers([customerId])[customerId];

    /// <summary>Seals a body under the key of the customer it names, or else under that of the day. Nothing stays nothing.</summary>
    public byte[] Seal(byte[] body, string? customerId) => body.Length == 0 ? body : SealedBytes.Seal(customerId is null ? OfToday() : OfCustomer(customerId), body);

    /// <inheritdoc cref="Seal(byte[], string?)"/>
    public byte[]? SealOrNull(byte[]? body, string? customerId) => body is null ? null : Seal(body, customerId);

    /// <inheritdoc cref="OpenSealed"/>
    public byte[]? Open(byte[] stored)
    {
        if (!SealedBytes.IsSealed(stored))
        {
            return stored;
        }
        return Find(SealedBytes.KeyOf(stored)) is { } key ? SealedBytes.Open(key, stored) : null;
    }

    /// <summary>The same where what can't be opened counts as nothing.</summary>
    public byte[] OpenOrNone(byte[] stored) => Open(stored) ?? [];

    /// <summary>The key that signs records of redaction.</summary>
    public SealingKey Signing() => Of([SigningSubject])[SigningSubject];

    /// <summary>Destroys the key of a customer, for good. A later order gets another one.</summary>
    /// <returns>Whether there was one.</returns>
    /// <param name="at">When, if it was before (Unix milliseconds): then only what is as old is destroyed.</param>
    public bool Forget(string customerId, long? at = null) => table.Destroy(CustomerPrefix + customerId, at ?? clock.GetUtcNow().ToUnixTimeMilliseconds()) > 0;

    /// <summary>Everybody who was forgotten, and when last (Unix milliseconds).</summary>
    public IReadOnlyList<(string CustomerId, long At)> Forgotten() => [.. table.Destroyed(CustomerPrefix).Select(row => (row.Subject[CustomerPrefix.Length..], row.At))];

    /// <summary>Wraps every key by the master key of the settings. Nothing that is sealed changes.</summary>
    /// <returns>How many were rewrapped.</returns>
    public long Rotate()
    {
        var known = Masters(make: true);
        long done = 0;
        while (table.WrappedByOthers(current!.Id, 500) is { Count: > 0 } rows)
        {
            table.Rewrap([.. rows.Select(row => Wrapped(row.Subject, Unwrap(row, known)))]);
            done += rows.Count;
        }
        if (table.OwnMaster() is { } own && own.Id != current.Id)
        {
            table.RemoveOwnMaster();
        }
        return done;
    }

    /// <summary>Gives another store of keys all that this one has, wrapped by its own master key; what it has already stays.</summary>
    public void CopyTo(PersonalKeys target)
    {
        var known = Masters(make: false);
        target.Masters(make: true);
        var after = "";
        while (table.Page(after, 500) is { Count: > 0 } rows)
        {
            target.Table.Insert([.. rows.Select(row => row.Wrapped is null ? row : row.WrappedAs(target.Wrapped(row.Subject, Unwrap(row, known))))]);
            after = rows[^1].Id;
        }
        Seals.CopyTo(target.Seals);
    }

    /// <summary>The id of the master key that wraps new keys.</summary>
    public string MasterId()
    {
        Masters(make: true);
        return current!.Id;
    }

    private SealingKey OfToday()
    {
        var day = clock.GetUtcNow().ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
        lock (gate)
        {
            if (today is { } known && known.Day == day)
            {
                return known.Key;
            }
        }
        var subject = LettersPrefix + day;
        var key = Of([subject])[subject];
        lock (gate)
        {
            today = (day, key);
        }
        ofLetters[key.Id] = key;
        return key;
    }

    private SealingKey? Find(Guid id)
    {
        if (ofLetters.TryGetValue(id, out var known))
        {
            return known;
        }
        if (table.Find(id) is not { Wrapped: not null } row)
        {
            return null;
        }
        var key = Unwrap(row, Masters(make: false));
        if (row.Subject.StartsWith(LettersPrefix, StringComparison.Ordinal))
        {
            ofLetters[id] = key;
        }
        return key;
    }

    private Dictionary<string, SealingKey> Of(IReadOnlyCollection<string> subjects)
    {
        var known = Masters(make: true);
        var living = table.Living(subjects);
        if (living.Count < subjects.Count)
        {
            var having = living.Select(row => row.Subject).ToHashSet(StringComparer.Ordinal);
            table.Add(
                [.. subjects.Where(subject => !having.Contains(subject)).Select(subject => Wrapped(subject, new SealingKey(
                    Guid.NewGuid(), System.Security.Cryptography.RandomNumberGenerator.GetBytes(MasterKey.Length))))],
                clock.GetUtcNow().ToUnixTimeMilliseconds());
            // What stands there now, whoever wrote it.
            living = table.Living(subjects);
        }
        return living.ToDictionary(row => row.Subject, row => Unwrap(row, known), StringComparer.Ordinal);
    }

    private KeyRow Wrapped(string subject, SealingKey key) =>
        new() { Id = key.Id.ToString("N"), Subject = subject, Master = current!.Id, Wrapped = current.Wrap(key.Id, key.Bytes) };

    private static SealingKey Unwrap(KeyRow row, Dictionary<string, MasterKey> known) => known.TryGetValue(row.Master, out var master)
        ? master.Unwrap(Guid.Parse(row.Id), row.Wrapped)
        : throw new StoreUnavailableException($"A key is wrapped by the master key {row.Master}, which this process does not have (Keys:MasterKeyFile, Keys:Old).");

    private Dictionary<string, MasterKey> Masters(bool make)
    {
        lock (gate)
        {
            if (masters is not null && (current is not null || !make))
            {
                return masters;
            }
            var own = table.OwnMaster();
            current = string.IsNullOrWhiteSpace(options.MasterKey) ? own : MasterKey.Parse(options.MasterKey);
            if (current is null && make)
            {
                var made = MasterKey.Create();
                var place = table.AddOwnMaster(made);
                current = own = table.OwnMaster()!;
                if (own.Id == made.Id)
                {
                    LogMade(place);
                }
            }
            var all = options.Old.Select(old => MasterKey.Parse(old.MasterKey)).Append(own).Append(current).OfType<MasterKey>();
            return masters = all.DistinctBy(master => master.Id).ToDictionary(master => master.Id, StringComparer.Ordinal);
        }
    }

    [LoggerMessage(LogLevel.Information,
        "A master key for the keys of customers was made and lies in {Place}, beside the keys. Back it up apart from the store, or set Keys:MasterKeyFile: without it no personal data can be read")]
    private partial void LogMade(string place);
}
