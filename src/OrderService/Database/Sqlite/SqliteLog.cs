using System.Buffers.Binary;

namespace OrderService.Database;

/// <summary>A write-ahead log as it lies on the disk, read without SQLite (https://sqlite.org/fileformat2.html#the_write_ahead_log).</summary>
internal static class SqliteLog
{
    private const int HeaderBytes = 32;
    private const int FrameHeaderBytes = 24;

    /// <summary>SQLite keeps its locks in this byte and leaves the page around it alone.</summary>
    private const long LockByte = 0x40000000;

    /// <summary>
    /// Whether the log can be of this database file: each page of the last commit is in the one or the other. A file from before the log was begun lacks the pages that the store got in
    /// between, and SQLite would not notice.
    /// </summary>
    public static bool Fits(string logPath, long databaseBytes)
    {
        using var log = File.OpenHandle(logPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        Span<byte> header = stackalloc byte[HeaderBytes];
        if (RandomAccess.Read(log, header, 0) < HeaderBytes || (BinaryPrimitives.ReadUInt32BigEndian(header) & ~1u) != 0x377f0682)
        {
            // No log yet: SQLite passes over it.
            return true;
        }
        var pageBytes = (long)BinaryPrimitives.ReadUInt32BigEndian(header[8..]);
        if (pageBytes is < 512 or > 65536)
        {
            return true;
        }
        var salts = BinaryPrimitives.ReadUInt64BigEndian(header[16..]);
        var inFile = databaseBytes / pageBytes;
        var (inLog, added) = (new HashSet<long>(), new List<long>());
        var pages = 0L;
        Span<byte> frame = stackalloc byte[FrameHeaderBytes];
        // Frames of the log's earlier rounds have other salts.
        for (var offset = (long)HeaderBytes;
            RandomAccess.Read(log, frame, offset) == FrameHeaderBytes && BinaryPrimitives.ReadUInt64BigEndian(frame[8..]) == salts;
            offset += FrameHeaderBytes + pageBytes)
        {
            added.Add(BinaryPrimitives.ReadUInt32BigEndian(frame));
            if (BinaryPrimitives.ReadUInt32BigEndian(frame[4..]) is > 0 and var size)
            {
                pages = size;
                inLog.UnionWith(added);
                added.Clear();
            }
        }
        for (var page = inFile + 1; page <= pages; page++)
        {
            if (!inLog.Contains(page) && page != (LockByte / pageBytes) + 1)
            {
                return false;
            }
        }
        return true;
    }
}
