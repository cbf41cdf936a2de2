using OrderService.Tests.Infrastructure;
using System.Text.RegularExpressions;

namespace OrderService.Tests.Store;

/// <summary>The SQL of a table stands in one place. This list is the map: what is not in it is not allowed, and what nothing needs any more leaves it.</summary>
public sealed partial class TableTests
{
    /// <summary>Table -> its file first, then those whose statements begin from another table and join it or look into it.</summary>
    private static readonly Dictionary<string, string[]> Homes = new()
    {
        ["alert_channels"] = ["ChannelsTable.cs"],
        ["alert_deliveries"] = ["DeliveriesTable.cs", "AlertsTable.cs"],
        ["alerts"] = ["AlertsTable.cs", "DeliveriesTable.cs"],
        ["audit"] = ["AuditTrail.cs"],
        ["checkpoints"] = ["CheckpointsTable.cs"],
        ["customer_holds"] = ["CustomersTable.cs"],
        ["dead_letters"] = ["LettersTable.cs", "AlertsTable.cs", "HistoryTable.cs", "IncidentsTable.cs", "OrderQueries.cs", "ReplayJobsTable.cs"],
        ["deferred"] = ["DeferredTable.cs", "OrderQueries.cs"],
        ["epochs"] = ["EpochsTable.cs"],
        ["events"] = ["EventQueries.cs", "CheckpointsTable.cs", "EpochsTable.cs", "OrderQueries.cs", "OutboxStore.cs", "RedactionsTable.cs"],
        ["forgotten_customers"] = ["CustomersTable.cs"],
        ["history"] = ["HistoryTable.cs"],
        ["http_requests"] = ["HttpRequests.cs"],
        ["inbox"] = ["InboxTable.cs"],
        ["incidents"] = ["IncidentsTable.cs", "LettersTable.cs"],
        ["intake_in_hand"] = ["IntakeTable.cs"],
        ["intake_pauses"] = ["IntakeTable.cs"],
        ["keyless_letters"] = ["LettersTable.cs"],
        ["lives"] = ["Lives.cs"],
        ["order_attributes"] = ["OrderQueries.cs"],
        ["order_mails"] = ["OrderMailsTable.cs"],
        ["orders"] = ["OrderQueries.cs", "DeferredTable.cs", "EventQueries.cs", "LettersTable.cs", "OutboxStore.cs", "RefusedPaymentsTable.cs", "RedactionsTable.cs"],
        ["outbox"] = ["OutboxStore.cs"],
        ["plain_letters"] = ["LettersTable.cs"],
        ["redactions"] = ["RedactionsTable.cs"],
        ["refused_payments"] = ["RefusedPaymentsTable.cs"],
        ["rejections"] = ["RejectionsTable.cs"],
        ["relay_keys"] = ["RelayKeysTable.cs"],
        ["relay_leases"] = ["PostgresRelayLease.cs"],
        ["relay_members"] = ["PostgresRelayLease.cs"],
        ["replay_job_letters"] = ["ReplayJobsTable.cs"],
        ["replay_jobs"] = ["ReplayJobsTable.cs"],
        ["replays"] = ["ReplaysTable.cs", "ReplayJobsTable.cs"],
        ["retention"] = ["RetentionTable.cs"],
        ["sales_kept"] = ["SalesTable.cs"],
        ["schedules"] = ["SchedulesTable.cs", "AlertsTable.cs"],
        ["seal_beginnings"] = ["SealsTable.cs"],
        ["seal_marks"] = ["SealsTable.cs"],
        ["seals"] = ["SealsTable.cs"],
        ["service_troubles"] = ["TroublesTable.cs"],
        ["sessions"] = ["SessionsTable.cs"],
        ["started"] = ["Lives.cs"],
        ["store_identity"] = ["EpochsTable.cs"],
        ["tombstones"] = ["TombstonesTable.cs"],
    };

    /// <summary>The append, which is written in whole for each database: it may write every table that it has rows for.</summary>
    private static readonly string[] Append = ["SqliteOrderEventStore.cs", "SqliteAppend.cs", "PostgresOrderEventStore.cs", "PostgresAppend.cs"];

    private static readonly string Source = Path.Combine(Repository.Root, "src", "OrderService");

    [Fact]
    public void The_sql_of_a_table_stands_in_its_class()
    {
        var tables = Directory.EnumerateFiles(Path.Combine(Source, "Database"), "*.sql", SearchOption.AllDirectories)
            .SelectMany(file => CreatedTable().Matches(File.ReadAllText(file)).Select(match => match.Groups[1].Value)).ToHashSet();
        var found = Directory.EnumerateFiles(Source, "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Contains($"{Path.DirectorySeparatorChar}obj{Path.DirectorySeparatorChar}", StringComparison.Ordinal) && !Append.Contains(Path.GetFileName(file)))
            .SelectMany(file => TableInSql().Matches(File.ReadAllText(file)).Select(match => (Table: match.Groups[1].Value, File: Path.GetFileName(file))))
            .Where(use => tables.Contains(use.Table)).ToHashSet();

        var allowed = Homes.SelectMany(home => home.Value.Select(file => (Table: home.Key, File: file))).ToHashSet();
        Assert.Empty(found.Except(allowed).Select(use => $"{use.File} has SQL for {use.Table}, which {Homes.GetValueOrDefault(use.Table, ["no file"])[0]} has").Order());
        Assert.Empty(allowed.Except(found).Select(use => $"{use.File} has no SQL for {use.Table} any more: take it off the list").Order());
    }

    [GeneratedRegex(@"CREATE TABLE (?:IF NOT EXISTS )?(\w+)")]
    private static partial Regex CreatedTable();

    [GeneratedRegex(@"\b(?:FROM|INTO|UPDATE|JOIN)\s+(\w+)")]
    private static partial Regex TableInSql();
}
