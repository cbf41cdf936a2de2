using System.Security.Cryptography;
using System.Text;
using OrderService.Store;

namespace OrderService.Tests.Seals;

/// <summary>Somebody who has the store and not the key: knows the code and every table, and does one thing at random.</summary>
internal sealed class Tampering(StoreTransaction store, Random random, bool isSqlite, IReadOnlyList<WaitingMark> usedMarks)
{
    private static readonly SealSubject SealRows = new("seals", "number",
    [
        ("number", SealedColumn.Number), ("subject", SealedColumn.Text), ("first_row", SealedColumn.Number), ("last_row", SealedColumn.Number), ("row_count", SealedColumn.Number),
        ("found_to", SealedColumn.Number), ("sealed_at", SealedColumn.Number), ("key_id", SealedColumn.Text), ("previous", SealedColumn.Bytes), ("root", SealedColumn.Bytes),
        ("signature", SealedColumn.Bytes), ("manifest", SealedColumn.Bytes),
    ]);

    /// <returns>What was done, in words; null where nothing came of it.</returns>
    public async Task<string?> DoAsync() => random.Next(20) switch
    {
        < 9 => await ChangeAsync(SealSubject.All[random.Next(3)]),
        9 or 10 => await DeleteAsync(SealSubject.All[random.Next(3)]),
        11 => await DeleteLastAsync(SealSubject.All[random.Next(3)]),
        12 => await DeleteStreamAsync(),
        13 => await DoubleAsync(SealSubject.All[random.Next(3)]),
        14 => await SwapAsync(SealSubject.All[random.Next(3)]),
        15 => await ChangeAsync(SealRows),
        16 => await RemoveSealAsync(),
        17 => await CutOffAsync(),
        18 => await ForgeSealAsync(),
        _ => await UseOldMarkAsync(),
    };

    private async Task<string?> ChangeAsync(SealSubject subject)
    {
        var (row, column) = (await RowAsync(subject), subject.Columns[random.Next(subject.Columns.Count)]);
        var before = await store.QueryAsync<object>($"SELECT {column.Name} FROM {subject.Table} WHERE {subject.Row} = @row AND {column.Name} IS NOT NULL", new { row });
        var value = column.Kind switch
        {
            SealedColumn.Number => $"coalesce({column.Name}, 0) + {random.NextInt64(1, 1_000_000_000)}",
            SealedColumn.Text => Text(column.Name, before.Count > 0),
            _ => Bytes(column.Name, before.Count > 0),
        };
        await store.ExecuteAsync($"UPDATE {subject.Table} SET {column.Name} = {value} WHERE {subject.Row} = {row}");
        return $"{subject.Table}.{column.Name} of {row} = {value}";
    }

    private string Text(string column, bool has) => !has ? "'x'" : random.Next(isSqlite ? 4 : 3) switch
    {
        0 => $"{column} || 'x'",
        1 => $"'x' || {column}",
        2 => $"'{random.Next():x}'",
        // What most programs do not see: they take the zero for the end.
        _ => $"{column} || char(0) || 'x'",
    };

    private string Bytes(string column, bool has)
    {
        var some = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(random.Next(1, 40)));
        var literal = isSqlite ? $"x'{some}'" : $"'\\x{some}'::bytea";
        var appended = isSqlite ? $"CAST({column} || {literal} AS BLOB)" : $"{column} || {literal}";
        return !has || random.Next(2) == 0 ? literal : appended;
    }

    private async Task<string?> DeleteAsync(SealSubject subject)
    {
        var row = await RowAsync(subject);
        await store.ExecuteAsync($"DELETE FROM {subject.Table} WHERE {subject.Row} = {row}");
        return $"{subject.Table} without {row}";
    }

    private async Task<string?> DeleteLastAsync(SealSubject subject)
    {
        await store.ExecuteAsync($"DELETE FROM {subject.Table} WHERE {subject.Row} IN (SELECT {subject.Row} FROM {subject.Table} ORDER BY {subject.Row} DESC LIMIT {random.Next(1, 4)})");
        return $"{subject.Table} without the last";
    }

    private async Task<string?> DeleteStreamAsync()
    {
        var stream = await store.ExecuteScalarAsync<long>($"SELECT stream FROM events WHERE position = {await RowAsync(SealSubject.Events)}");
        await store.ExecuteAsync($"DELETE FROM events WHERE stream = {stream}");
        // All of it: nothing in the read model speaks of it either.
        await store.ExecuteAsync($"DELETE FROM orders WHERE seq = {stream}");
        return $"no stream {stream}";
    }

    private async Task<string?> DoubleAsync(SealSubject subject)
    {
        var row = await RowAsync(subject);
        var number = await store.ExecuteScalarAsync<long>($"SELECT max({subject.Row}) FROM {subject.Table}") + random.Next(1, 10);
        var columns = subject.Columns.Select(column => column.Name).Where(name => name != subject.Row).ToList();
        // What the store's own constraints want to differ.
        var values = columns.Select(name => name switch
        {
            "stream" => random.Next(2) == 0 ? "stream + 1000" : "stream",
            "version" => "version + 1000",
            "key" => "key || 'x'",
            _ => name,
        });
        await store.ExecuteAsync($"INSERT INTO {subject.Table} ({subject.Row}, {string.Join(", ", columns)}) SELECT {number}, {string.Join(", ", values)} FROM {subject.Table} WHERE {subject.Row} = {row}");
        return $"{subject.Table}: {row} once more as {number}";
    }

    private async Task<string?> SwapAsync(SealSubject subject)
    {
        var (one, other) = (await RowAsync(subject), await RowAsync(subject));
        if (one == other)
        {
            return null;
        }
        const long Aside = -7;
        foreach (var (from, to) in new[] { (one, Aside), (other, one), (Aside, other) })
        {
            await store.ExecuteAsync($"UPDATE {subject.Table} SET {subject.Row} = {to} WHERE {subject.Row} = {from}");
        }
        return $"{subject.Table}: {one} and {other} exchanged";
    }

    private async Task<string?> RemoveSealAsync()
    {
        var row = await RowAsync(SealRows);
        await store.ExecuteAsync($"DELETE FROM seals WHERE number = {row}");
        if (random.Next(2) == 0)
        {
            // And closes the gap.
            await store.ExecuteAsync($"UPDATE seals SET number = -number WHERE number > {row}");
            await store.ExecuteAsync("UPDATE seals SET number = -number - 1 WHERE number < 0");
        }
        return $"no seal {row}";
    }

    private async Task<string?> CutOffAsync()
    {
        var row = random.Next(5) == 0 ? 0 : await RowAsync(SealRows);
        await store.ExecuteAsync($"DELETE FROM seals WHERE number > {row - 1}");
        if (random.Next(2) == 0)
        {
            // So that what was under seal looks as if it were older than seals.
            await store.ExecuteAsync("UPDATE seal_beginnings SET found_to = 1000000");
        }
        return $"no seals from {row} on";
    }

    /// <summary>Changes a row, and makes the seals anew that speak of it, with a key of one's own.</summary>
    private async Task<string?> ForgeSealAsync()
    {
        var (key, newest) = (SealKey.Create(), (await SealsTable.NewestAsync(store))!);
        var row = await RowAsync(SealSubject.Audit);
        await store.ExecuteAsync($"UPDATE audit SET who = 'nobody' WHERE id = {row}");
        var hash = (await SealSubject.Audit.RowsAsync(store, [row]))[0].Hash;
        var manifest = SealManifest.Write([new SealEntry(row, SealedState.Changed, hash, [RandomNumberGenerator.GetBytes(SealKeys.NonceLength)])]);
        var id = await EpochsTable.StoreIdAsync(store);
        var forged = new Seal
        {
            Number = newest.Number + 1, Subject = "audit", FirstRow = row, LastRow = row, RowCount = 1, FoundTo = 0, SealedAt = newest.SealedAt + 1,
            KeyId = random.Next(2) == 0 ? newest.KeyId : key.Id, Previous = newest.Hash(id), Root = SHA256.HashData(manifest), Manifest = manifest,
        };
        forged.Signature = HMACSHA256.HashData(key.Bytes, forged.Signed(id));
        await SealsTable.AddAsync(store, forged);
        return $"a forged seal over audit row {row} under {forged.KeyId}";
    }

    /// <summary>Changes a letter, and notes that as the service does, with a note that the service once made.</summary>
    private async Task<string?> UseOldMarkAsync()
    {
        if (usedMarks.Where(mark => mark.Subject == "dead_letters" && mark.MarkKind == SealMarkKind.Changed).ToList() is not { Count: > 0 } some)
        {
            return null;
        }
        var mark = some[random.Next(some.Count)];
        if (await store.ExecuteAsync("UPDATE dead_letters SET reason = reason || 'x' WHERE id = @RowId", new { mark.RowId }) == 0)
        {
            return null;
        }
        await store.ExecuteAsync("INSERT INTO seal_marks (subject, row_id, kind, nonce, mark) VALUES (@Subject, @RowId, @Kind, @Nonce, @Mark)", mark);
        return $"letter {mark.RowId} with an old note";
    }

    private async Task<long> RowAsync(SealSubject subject)
    {
        var rows = await store.QueryAsync<long>($"SELECT {subject.Row} FROM {subject.Table}");
        return rows[random.Next(rows.Count)];
    }
}

/// <summary>The store as a transaction of it sees it.</summary>
internal sealed class StoreInside(IDatabase database, StoreTransaction transaction) : IDatabase
{
    public string Provider => database.Provider;
    public long Epoch => database.Epoch;
    public PersonalKeys Keys => database.Keys;

    public Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default) => read(transaction);

    public Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default) => throw new NotSupportedException("Who verifies writes nothing.");

    public Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken) => throw new NotSupportedException();

    public Task MigrateAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

    public Task RequireSchemaAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
