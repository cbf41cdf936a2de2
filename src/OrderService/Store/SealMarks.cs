using System.Security.Cryptography;

namespace OrderService.Store;

/// <summary>What became of a row that is under seal.</summary>
internal enum SealMarkKind
{
    Added = 1,
    Changed = 2,
    Removed = 3,
}

/// <summary>A mark before it is signed.</summary>
internal sealed record SealMark(string Subject, SealMarkKind Kind, long Row)
{
    /// <summary>As a row of <c>seal_marks</c>.</summary>
    public (byte[] Nonce, byte[] Mark) Sign(SealKeys keys)
    {
        var nonce = RandomNumberGenerator.GetBytes(SealKeys.NonceLength);
        return (nonce, keys.MarkRow(Subject, Kind, Row, nonce));
    }
}

/// <summary>
/// Whoever adds, changes or takes out a row that is under seal says so in the same transaction, with a signature that nobody without the key can make: what has none is not sealed, and is
/// found. Events bring theirs in a column; only their removal and their redaction are marked here.
/// </summary>
internal static class SealMarks
{
    public static Task AddedAsync(StoreTransaction transaction, string subject, params IReadOnlyCollection<long> rows) => AddAsync(transaction, subject, SealMarkKind.Added, rows);

    public static Task ChangedAsync(StoreTransaction transaction, string subject, params IReadOnlyCollection<long> rows) => AddAsync(transaction, subject, SealMarkKind.Changed, rows);

    public static Task RemovedAsync(StoreTransaction transaction, string subject, params IReadOnlyCollection<long> rows) => AddAsync(transaction, subject, SealMarkKind.Removed, rows);

    private static async Task AddAsync(StoreTransaction transaction, string subject, SealMarkKind kind, IReadOnlyCollection<long> rows)
    {
        if (rows.Count > 0)
        {
            await SealsTable.AddMarksAsync(transaction, [.. rows.Select(row => new SealMark(subject, kind, row))]);
        }
    }
}
