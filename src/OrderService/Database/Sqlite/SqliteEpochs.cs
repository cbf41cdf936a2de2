using System.Globalization;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>How far a store had come when it was last looked at; kept beside it.</summary>
/// <param name="Store">Its own name, see <see cref="EpochsTable.StoreIdAsync"/>.</param>
internal sealed record SqliteSeen(string Store, long Epoch, long Position);

/// <summary>A SQLite store's epochs, and whether the file is one that was served here before, at least as far.</summary>
internal static class SqliteEpochs
{
    public static async Task<SqliteSeen> SeenAsync(StoreConnection connection) => new(
        await EpochsTable.StoreIdAsync(connection), await EpochsTable.CurrentAsync(connection), await EventQueries.NewestAsync(connection));

    /// <summary>Begins an epoch: event positions and the numbers of rows go on far beyond what was given out before.</summary>
    public static async Task<EpochRow> BeginAsync(StoreTransaction transaction, long number, long now, string cause)
    {
        if (number > StoreEpoch.Last)
        {
            throw new StoreSettingsException($"Epoch {number} is beyond the last one there can be ({StoreEpoch.Last}).");
        }
        await EpochsTable.BeginAsync(transaction, number, now, cause);
        // No number of a letter, an alert or a job is given out twice.
        var before = StoreEpoch.RowsBefore(number);
        await transaction.ExecuteAsync($"UPDATE sqlite_sequence SET seq = max(@before, (seq / {StoreEpoch.RowStep} + 1) * {StoreEpoch.RowStep})", new { before });
        // Those that never had a row may have had one in what was lost.
        await transaction.ExecuteAsync(
            """
            INSERT INTO sqlite_sequence (name, seq)
            SELECT name, @before FROM sqlite_master
            WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' AND name NOT IN (SELECT name FROM sqlite_sequence)
            """,
            new { before });
        return (await EpochsTable.ReadAsync(transaction)).Current;
    }

    /// <summary>Compares the store with what was seen beside it. One that was just made where there was another goes on in the next epoch.</summary>
    /// <exception cref="StoreSettingsException">The file is another store, or an older state of this one.</exception>
    public static async Task CheckAsync(StoreTransaction transaction, string path, SqliteSeen before, bool isNew, long now)
    {
        if (isNew)
        {
            await BeginAsync(transaction, before.Epoch + 1, now, "deleted");
            return;
        }
        var seen = await SeenAsync(transaction);
        if (seen.Epoch > before.Epoch || (seen.Store == before.Store && seen.Epoch == before.Epoch && seen.Position >= before.Position))
        {
            return;
        }
        var what = seen.Store != before.Store
            ? "is another store than the one that was served here last"
            : string.Create(
                CultureInfo.InvariantCulture,
                $"is an older state of the store that was served here last: its newest event is at position {seen.Position} of epoch {seen.Epoch}, and position {before.Position} of epoch {before.Epoch} was given out");
        throw new StoreSettingsException(
            $"{path} {what}. Served as it is it would give positions and event ids to new events that subscribers have seen for others. Put the newer file back; or, if this one is meant, begin its next "
            + "epoch with orderservice store restore --in-place, and serve it then. A backup is best put back with orderservice store restore FILE, which does that by itself.");
    }
}
