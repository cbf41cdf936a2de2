using System.Globalization;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>The epochs of a store in PostgreSQL.</summary>
internal static class PostgresEpochs
{
    /// <summary>Begins the next epoch: event positions, the numbers of rows and those of the relay's leases go on far beyond what was given out before.</summary>
    public static async Task<EpochRow> BeginAsync(StoreTransaction transaction, string family, string mine, long atLeast, string cause)
    {
        await RequireAloneAsync(transaction, family, mine);
        var number = Math.Max(atLeast, await EpochsTable.CurrentAsync(transaction) + 1);
        if (number > StoreEpoch.Last)
        {
            throw new StoreSettingsException($"Epoch {number} is beyond the last one there can be ({StoreEpoch.Last}).");
        }
        var now = await transaction.ExecuteScalarAsync<long>("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
        await EpochsTable.BeginAsync(transaction, number, now, cause);
        var sequences = await transaction.QueryAsync<(string Table, string Column)>(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES' ORDER BY table_name");
        foreach (var (table, column) in sequences)
        {
            var sequence = await transaction.ExecuteScalarAsync<string>("SELECT pg_get_serial_sequence(@table, @column)", new { table, column });
            await transaction.ExecuteAsync(table == "events"
                ? string.Create(CultureInfo.InvariantCulture, $"SELECT setval('{sequence}', {StoreEpoch.FirstPosition(number)}, false)")
                // No number of a letter, an alert or a job is given out twice.
                : string.Create(
                    CultureInfo.InvariantCulture,
                    $"SELECT setval('{sequence}', greatest({StoreEpoch.RowsBefore(number)}, (last_value / {StoreEpoch.RowStep} + 1) * {StoreEpoch.RowStep})) FROM {sequence}"));
        }
        await PostgresRelayLease.JumpAsync(transaction, StoreEpoch.RowsBefore(number));
        return (await EpochsTable.ReadAsync(transaction)).Current;
    }

    /// <exception cref="StoreInUseException">Other processes are connected.</exception>
    public static async Task RequireAloneAsync(StoreConnection connection, string family, string mine)
    {
        var others = await connection.QueryAsync<string>(
            """
            SELECT DISTINCT application_name FROM pg_stat_activity
            WHERE datname = current_database() AND starts_with(application_name, @family || '-') AND application_name <> @mine ORDER BY 1
            """,
            new { family, mine });
        if (others.Count > 0)
        {
            throw new StoreInUseException($"The store is in use by {string.Join(", ", others)} (pg_stat_activity). Stop every instance of the service and every command that uses it, and try again.");
        }
    }
}
