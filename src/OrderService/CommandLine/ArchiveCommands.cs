using System.Globalization;
using OrderService.Retention;

namespace OrderService.CommandLine;

/// <summary>Reads closed orders that were taken out of the store: files and manifests alone.</summary>
internal static class ArchiveCommands
{
    public static async Task<int> VerifyAsync(string folder, CancellationToken cancellationToken)
    {
        if (!await ExistsAsync(folder))
        {
            return ExitCode.Usage;
        }
        var report = await ArchiveReader.VerifyAsync(folder, cancellationToken);
        foreach (var finding in report.Findings)
        {
            Console.WriteLine(finding);
        }
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{report.Orders} orders with {report.Events} events in {report.Files} files checked: {(report.Wrong == 0 ? "all is as it was written" : $"{report.Wrong} things are wrong")}"));
        return report.Wrong == 0 ? ExitCode.Done : ExitCode.SomeFailed;
    }

    public static async Task<int> ShowAsync(string folder, string orderId, bool json, CancellationToken cancellationToken)
    {
        if (!await ExistsAsync(folder))
        {
            return ExitCode.Usage;
        }
        if (await ArchiveReader.FindAsync(folder, orderId, cancellationToken) is not { } order)
        {
            await Console.Error.WriteLineAsync($"There is no order {orderId} in the archive {folder}.");
            return ExitCode.SomeFailed;
        }
        StoreCommands.Print(orderId, order.Stream(), json);
        foreach (var line in json ? [] : order.History)
        {
            Console.WriteLine($"       {line.At.ToString("yyyy-MM-dd HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture)}  {line.Kind}: {line.Detail}");
        }
        return ExitCode.Done;
    }

    private static async Task<bool> ExistsAsync(string folder)
    {
        if (Directory.Exists(folder))
        {
            return true;
        }
        await Console.Error.WriteLineAsync($"There is no folder {folder}.");
        return false;
    }
}
