using System.IO.Compression;
using System.Security.Cryptography;
using System.Text.Json;

namespace OrderService.Retention;

/// <summary>What a check of an archive found.</summary>
/// <param name="Findings">One sentence each; the first hundred.</param>
internal sealed record ArchiveReport(int Files, long Orders, long Events, long Wrong, IReadOnlyList<string> Findings);

/// <summary>Reads what <see cref="OrderArchive"/> wrote: files and manifests alone, no store.</summary>
internal static class ArchiveReader
{
    private const int MaxFindings = 100;

    /// <summary>Checks every file against its manifest, and every order's hash chain.</summary>
    /// <exception cref="DirectoryNotFoundException">There is no such folder.</exception>
    public static async Task<ArchiveReport> VerifyAsync(string folder, CancellationToken cancellationToken)
    {
        var findings = new List<string>();
        var wrong = 0L;
        long orders = 0, events = 0;
        var manifests = Manifests(folder);
        var files = Directory.EnumerateFiles(folder, "*" + OrderArchive.Extension).Select(Path.GetFileName).ToHashSet(StringComparer.Ordinal);
        foreach (var manifest in manifests)
        {
            var name = Path.GetFileName(manifest);
            var data = name[..^OrderArchive.ManifestExtension.Length] + OrderArchive.Extension;
            if (!files.Remove(data))
            {
                Find($"{data} is missing; its manifest {name} is there.");
                continue;
            }
            await using var file = File.OpenRead(Path.Combine(folder, data));
            var (previous, end) = (OrderArchive.Beginning, 0L);
            await foreach (var (part, hash, mistake) in PartsAsync(manifest, cancellationToken))
            {
                if (part is null)
                {
                    Find($"{name}: {mistake}");
                    break;
                }
                if (part.Previous != previous || part.Offset != end)
                {
                    Find($"{name}: a line before the one of {part.WrittenAt:yyyy-MM-dd HH:mm:ss'Z'} was changed or taken out.");
                }
                (previous, end) = (hash, part.Offset + part.Length);
                var (read, found, mistakes) = Check(file, part);
                orders += read;
                events += found;
                mistakes.ForEach(sentence => Find($"{data}: {sentence}"));
            }
            if (file.Length > end)
            {
                Find($"{data} has {file.Length - end} bytes that its manifest does not name: of a process that ended while it wrote (then they are cut off with the next order of that day), or of somebody else.");
            }
        }
        foreach (var file in files)
        {
            Find($"{file} has no manifest.");
        }
        return new ArchiveReport(manifests.Count, orders, events, wrong, findings);

        void Find(string finding)
        {
            wrong++;
            if (findings.Count < MaxFindings)
            {
                findings.Add(finding);
            }
        }
    }

    /// <summary>An order, as it was archived last; null when it is not there.</summary>
    /// <exception cref="DirectoryNotFoundException">There is no such folder.</exception>
    public static async Task<ArchivedOrder?> FindAsync(string folder, string orderId, CancellationToken cancellationToken)
    {
        foreach (var manifest in Manifests(folder).Reverse())
        {
            ArchivedPart? holder = null;
            await foreach (var (part, _, _) in PartsAsync(manifest, cancellationToken))
            {
                holder = part?.Orders.Contains(orderId) == true ? part : holder;
            }
            if (holder is null)
            {
                continue;
            }
            await using var file = File.OpenRead(Path.Combine(folder, Path.GetFileName(holder.File)));
            return Orders(Bytes(file, holder)).LastOrDefault(order => order.OrderId == orderId);
        }
        return null;
    }

    private static IReadOnlyList<string> Manifests(string folder) =>
        [.. Directory.EnumerateFiles(folder, "*" + OrderArchive.ManifestExtension).Order(StringComparer.Ordinal)];

    private static async IAsyncEnumerable<(ArchivedPart? Part, string Hash, string Mistake)> PartsAsync(
        string manifest, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (var line in File.ReadLinesAsync(manifest, cancellationToken))
        {
            ArchivedPart? part = null;
            var mistake = "a line can't be read.";
            try
            {
                part = JsonSerializer.Deserialize(line, ArchiveJson.Default.ArchivedPart);
            }
            catch (JsonException exception)
            {
                mistake = $"a line can't be read: {exception.Message}";
            }
            yield return (part, Convert.ToHexStringLower(SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(line))), mistake);
        }
    }

    private static (long Orders, long Events, List<string> Mistakes) Check(FileStream file, ArchivedPart part)
    {
        if (file.Length < part.Offset + part.Length)
        {
            return (0, 0, [$"it ends before the {part.Orders.Count} orders of {part.WrittenAt:yyyy-MM-dd HH:mm:ss'Z'} do."]);
        }
        var bytes = Bytes(file, part);
        if (Convert.ToHexStringLower(SHA256.HashData(bytes)) != part.Sha256)
        {
            return (0, 0, [$"the {part.Orders.Count} orders of {part.WrittenAt:yyyy-MM-dd HH:mm:ss'Z'} (from byte {part.Offset} on) are not what was written."]);
        }
        long orders = 0, events = 0;
        var mistakes = new List<string>();
        foreach (var order in Orders(bytes))
        {
            orders++;
            events += order.Events.Count;
            if (order.Mistake() is { } mistake)
            {
                mistakes.Add($"order {order.OrderId}: {mistake}");
            }
        }
        return (orders, events, mistakes);
    }

    private static byte[] Bytes(FileStream file, ArchivedPart part)
    {
        var bytes = new byte[part.Length];
        file.Position = part.Offset;
        file.ReadExactly(bytes);
        return bytes;
    }

    private static IEnumerable<ArchivedOrder> Orders(byte[] packed)
    {
        using var lines = new StreamReader(new GZipStream(new MemoryStream(packed), CompressionMode.Decompress));
        while (lines.ReadLine() is { } line)
        {
            yield return JsonSerializer.Deserialize(line, ArchiveJson.Default.ArchivedOrder) ?? throw new InvalidDataException("A line of the archive is empty.");
        }
    }
}
