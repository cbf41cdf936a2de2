using System.Globalization;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>
/// Writes closed orders to files, one a day (UTC): <c>orders-2026-11-27.ndjson.gz</c> holds an order a line, <c>orders-2026-11-27.manifest.ndjson</c> a line for each stretch that was
/// written at once, with its SHA-256. Both lie on the disk before an order is taken out of the store. An order may be there twice, where the process ended in between.
/// </summary>
internal sealed class OrderArchive(string folder, TimeProvider clock)
{
    internal const string Extension = ".ndjson.gz";
    internal const string ManifestExtension = ".manifest.ndjson";

    /// <summary>What the first line of a manifest names as the one before it.</summary>
    internal static readonly string Beginning = new('0', 64);

    private const int LongestLine = 1 << 20;

    /// <exception cref="IOException">The folder can't be written to, or another process writes to it. Nothing may be taken out.</exception>
    public void Append(IReadOnlyList<ArchivedOrder> orders)
    {
        if (orders.Count == 0)
        {
            return;
        }
        OwnerOnly.CreateFolder(folder);
        var now = clock.GetUtcNow();
        var name = $"orders-{now.UtcDateTime.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)}";
        using var manifest = Open(Path.Combine(folder, name + ManifestExtension));
        using var file = Open(Path.Combine(folder, name + Extension));
        var (end, previous) = Last(manifest);
        if (file.Length < end)
        {
            throw new IOException($"{file.Name} is shorter than its manifest says: somebody changed it. Look at it with orderservice verify --archive, and move it away.");
        }
        // What no line of the manifest names was cut off by the end of a process, and its orders are in the store still.
        file.SetLength(end);
        file.Position = end;
        var part = Pack(orders);
        file.Write(part);
        file.Flush(flushToDisk: true);
        var line = JsonSerializer.SerializeToUtf8Bytes(
            new ArchivedPart(name + Extension, end, part.Length, Convert.ToHexStringLower(SHA256.HashData(part)), previous, now, [.. orders.Select(order => order.OrderId)]), ArchiveJson.Default.ArchivedPart);
        manifest.Position = manifest.Length;
        manifest.Write([.. line, (byte)'\n']);
        manifest.Flush(flushToDisk: true);
    }

    private static FileStream Open(string path)
    {
        OwnerOnly.CreateFile(path);
        // Nobody else writes meanwhile.
        return new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.Read);
    }

    /// <summary>Where the file ends by its manifest, and the hash of the manifest's last line. A line without an end is cut off.</summary>
    private static (long End, string Previous) Last(FileStream manifest)
    {
        // A line is far shorter than this, and a day's manifest may be long.
        var from = Math.Max(0, manifest.Length - LongestLine);
        var bytes = new byte[manifest.Length - from];
        manifest.Position = from;
        manifest.ReadExactly(bytes);
        var whole = Array.LastIndexOf(bytes, (byte)'\n') + 1;
        if (whole == 0 && from > 0)
        {
            throw new IOException($"{manifest.Name} can't be read.");
        }
        manifest.SetLength(from + whole);
        if (whole == 0)
        {
            return (0, Beginning);
        }
        var begin = whole < 2 ? 0 : Array.LastIndexOf(bytes, (byte)'\n', whole - 2) + 1;
        var line = bytes.AsSpan(begin, whole - 1 - begin);
        var part = JsonSerializer.Deserialize(line, ArchiveJson.Default.ArchivedPart) ?? throw new IOException($"{manifest.Name} can't be read.");
        return (part.Offset + part.Length, Convert.ToHexStringLower(SHA256.HashData(line)));
    }

    private static byte[] Pack(IReadOnlyList<ArchivedOrder> orders)
    {
        using var packed = new MemoryStream();
        using (var zip = new GZipStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            foreach (var order in orders)
            {
                JsonSerializer.Serialize(zip, order, ArchiveJson.Default.ArchivedOrder);
                zip.Write("\n"u8);
            }
        }
        return packed.ToArray();
    }
}
