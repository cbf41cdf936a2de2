using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>store sizes</c>: what each table holds and what a day adds.</summary>
internal static class StoreSizesCommand
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web);

    public static Command Create()
    {
        var json = new Option<bool>("--json") { Description = "Print one JSON object." };
        var command = new Command("sizes", "Shows how many rows and bytes each table of the store holds, and what a day adds. Reads large tables: beside much traffic it takes its time.") { json };
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(
            async (stations, token) =>
            {
                var sizes = new StoreSizes(stations.GetRequiredService<IDatabase>(), stations.GetRequiredService<TimeProvider>());
                var size = await ProgressBar.RunAsync("measuring tables", progress => sizes.MeasureAsync(progress, token));
                Console.WriteLine(parsed.GetValue(json) ? JsonSerializer.Serialize(size, Json) : Table(size));
                return ExitCode.Done;
            },
            cancellationToken));
        return command;
    }

    private static string Table(StoreSize size)
    {
        var text = new System.Text.StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"{"table",-20} {"rows",14} {"MB",12} {"rows a day",14} {"MB a day",12}");
        foreach (var table in size.Tables)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"{table.Table,-20} {table.Rows,14} {Megabytes(table.Bytes),12} {table.RowsADay?.ToString(CultureInfo.InvariantCulture) ?? "-",14} {Megabytes(table.BytesADay),12}");
        }
        text.AppendLine(CultureInfo.InvariantCulture, $"{"all",-20} {"",14} {Megabytes(size.Bytes),12} {"",14} {Megabytes(size.Tables.Sum(table => table.BytesADay ?? 0)),12}");
        if (size.FreeBytes > 0)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"Of that {Megabytes(size.FreeBytes)} MB are free inside the file; new rows take them first.");
        }
        text.Append(CultureInfo.InvariantCulture, $"Growth is that of the last {size.Days:0.#} days.");
        if (size.AreBytesEstimated)
        {
            text.Append(" What a table takes of the file is estimated from its rows.");
        }
        return text.ToString();
    }

    private static string Megabytes(long? bytes) => bytes is { } some ? (some / 1_000_000.0).ToString("0.0", CultureInfo.InvariantCulture) : "-";
}
