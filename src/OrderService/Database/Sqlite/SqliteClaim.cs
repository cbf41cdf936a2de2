using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Win32.SafeHandles;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// One process serves a SQLite store: it holds a lock on a file beside the store, which the operating system gives back when the process dies, and keeps a note there that outlives it: who
/// served the store last, and how its file was left. Neither touches the store's own file, because to close any descriptor of that drops the locks that SQLite has on it
/// (https://sqlite.org/howtocorrupt.html, section 2.2).
/// </summary>
internal sealed class SqliteClaim : IDisposable
{
    private const int NoteBytes = 1024;

    /// <summary>How long another program's checkpoint may stand still between its last write to the file and the word that it is done.</summary>
    private static readonly TimeSpan CopyPatience = TimeSpan.FromSeconds(1);

    private static readonly byte[] FirstBytes = "SQLite format 3\0"u8.ToArray();

    private readonly string path;
    private readonly TimeProvider clock;
    private readonly FileStream held;
    private readonly SafeFileHandle note;
    private readonly Lock gate = new();
    private SqliteNote last;
    private int copying;
    private bool isFrozen;
    private bool hasBegun;

    // What the log held, and how much of that was in the file, when the file was last as the note says.
    private SqliteLogReading known;
    private (long Size, long Modified) suspect;
    private long? suspectSince;

    private SqliteClaim(string path, TimeProvider clock, FileStream held, SqliteNote? before)
    {
        this.path = path;
        this.clock = clock;
        this.held = held;
        OwnerOnly.CreateFile(NoteOf(path));
        note = File.OpenHandle(NoteOf(path), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
        last = new SqliteNote(Environment.ProcessId, Environment.MachineName, clock.GetUtcNow(), null, BootId(), SqliteFileState.Unknown, 0, 0) { ToldToStop = before?.ToldToStop, Seen = before?.Seen };
        LastToldToStop = before?.ToldToStop;
        SeenBefore = before?.Seen;
    }

    /// <summary>What was found that a person should hear of, one sentence each.</summary>
    public IReadOnlyList<string> Findings { get; private init; } = [];

    /// <summary>Who said before this process that it was told to stop.</summary>
    public string? LastToldToStop { get; }

    /// <summary>How far the store that was served here before had come.</summary>
    public SqliteSeen? SeenBefore { get; }

    /// <summary>Hidden, and not called after the store: whoever deletes <c>orders.db*</c> leaves what tells of it.</summary>
    public static string NoteOf(string path) => Path.Combine(Path.GetDirectoryName(path)!, $".{Path.GetFileName(path)}.note");

    /// <exception cref="StoreInUseException">Another process serves the store.</exception>
    /// <exception cref="StoreSettingsException">The folder can't be written, or what lies there does not belong together.</exception>
    public static SqliteClaim Take(string path, TimeProvider clock)
    {
        var held = Hold(path);
        try
        {
            var before = ReadNote(path);
            if (before is { IsBeingReplaced: true })
            {
                throw new StoreSettingsException(
                    $"A restore of {path} did not come to its end{Owner(before)}: what was there lies beside it ({path}.before-restore-...). Run orderservice store restore FILE again, and serve the store then.");
            }
            var findings = Inspect(path, before, clock);
            var claim = new SqliteClaim(path, clock, held, before) { Findings = findings };
            // First, so that a process that dies in between leaves no note of a file that looks otherwise.
            claim.WriteMark(SqliteFileState.Unknown, null);
            claim.Touch();
            Failpoint.Hit("store-claimed");
            claim.WriteMark(SqliteFileState.Unknown, null);
            return claim;
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    /// <summary>For whoever puts another file in its place: nobody serves it meanwhile, and what lies there is not looked at.</summary>
    /// <exception cref="StoreInUseException">Another process serves the store.</exception>
    public static SqliteClaim TakeToReplace(string path, TimeProvider clock)
    {
        var held = Hold(path);
        try
        {
            return new SqliteClaim(path, clock, held, ReadNote(path)) { isFrozen = true };
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    /// <summary>From here on what lies there is neither the store of before nor the new one.</summary>
    /// <exception cref="IOException">It could not be noted.</exception>
    public void BeginReplace()
    {
        lock (gate)
        {
            if (!Write(last with { IsBeingReplaced = true }))
            {
                throw new IOException($"{NoteOf(path)} can't be written.");
            }
        }
    }

    /// <summary>The new store lies there.</summary>
    public void EndReplace(SqliteSeen seen)
    {
        lock (gate)
        {
            isFrozen = false;
            last = last with { IsBeingReplaced = false, Seen = seen };
            WriteMark(SqliteFileState.Whole, clock.GetUtcNow());
        }
    }

    private static FileStream Hold(string path)
    {
        try
        {
            OwnerOnly.CreateFolder(Path.GetDirectoryName(path)!);
            SqliteAccess.Require(path);
            OwnerOnly.CreateFile(path + ".lock");
            return new FileStream(path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0);
        }
        catch (IOException exception) when (IsLocked(exception))
        {
            throw new StoreInUseException(
                $"Another process serves the store {path}{Owner(ReadNote(path))}. One process at a time serves a SQLite store: stop that one, "
                + "or wait until it has stopped with orderservice serve --wait-for-store 60s. Several at once need PostgreSQL (Store:Provider).");
        }
        catch (Exception exception) when (exception is UnauthorizedAccessException or IOException)
        {
            throw SqliteAccess.Problem(path) is { } problem ? (Exception)new StoreSettingsException(problem) : new StoreUnavailableException($"The folder of the store can't be used: {exception.Message}", exception);
        }
    }

    /// <summary>For those who only look: to open files that do not belong together would make one of them.</summary>
    /// <exception cref="StoreSettingsException">They do not.</exception>
    public static void RequireUnmixed(string path)
    {
        try
        {
            if (!File.Exists(path + ".lock"))
            {
                return;
            }
            using var look = new FileStream(path + ".lock", FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // Somebody serves them.
            return;
        }
        RequireTogether(path, ReadNote(path));
    }

    /// <summary>The writer has opened the file, and may have made it: what it is now is where it begins.</summary>
    public void Begin()
    {
        lock (gate)
        {
            if (copying == 0)
            {
                WriteMark(SqliteFileState.Unknown, null);
            }
            hasBegun = true;
        }
    }

    /// <summary>How the store's file is left if the process ends now. Written only when that changes; the file itself did not.</summary>
    public void Mark(bool isAllCopied)
    {
        lock (gate)
        {
            var state = isAllCopied ? SqliteFileState.Whole : SqliteFileState.Behind;
            if (copying == 0 && suspectSince is null && last.State != state)
            {
                Write(last with { State = state });
            }
        }
    }

    /// <summary>
    /// Looks whether somebody else wrote the file. Size and time say that it was written; a checkpoint of another program says so in the log's index too,
    /// when it is done. What nobody copied from the log was laid over it.
    /// </summary>
    /// <param name="copied">Reads how much the log holds, and how much of it is in the file.</param>
    public SqliteFileLook Look(Func<SqliteLogReading?> copied)
    {
        lock (gate)
        {
            // In this order: a checkpoint that ends in between is seen by the second look.
            var now = copied();
            // Of a file that this process writes itself at the moment nobody can tell.
            if (!hasBegun || copying > 0 || now is not { } before)
            {
                return SqliteFileLook.AsLeft;
            }
            var isAsLeft = IsAsLeft(path, last);
            if (!isAsLeft && copied() is { } after && IsCopied(before = after))
            {
                WriteMark(after.IsAllCopied ? SqliteFileState.Whole : SqliteFileState.Behind, last.Ended);
                isAsLeft = true;
            }
            if (isAsLeft)
            {
                known = before;
                suspectSince = null;
                return SqliteFileLook.AsLeft;
            }
            if (FileMark(path) is var mark && (suspectSince is null || mark != suspect))
            {
                (suspect, suspectSince) = (mark, clock.GetTimestamp());
            }
            return clock.GetElapsedTime(suspectSince.Value) < CopyPatience ? SqliteFileLook.Suspect : SqliteFileLook.Overwritten;
        }
    }

    /// <summary>Whether another program copied something from the log since: of this round, the rest of the round before, or all of one that came and went.</summary>
    private bool IsCopied(SqliteLogReading now)
    {
        if (now.Round == known.Round)
        {
            return now.Copied > known.Copied;
        }
        if (!known.IsAllCopied || now.Copied > 0 || now.Round - known.Round > 1)
        {
            return true;
        }
        // What was committed meanwhile and is not in the log any more. In a log that was full the next commit begins a round, in an empty one the next but one.
        var commits = now.Commits - known.Commits;
        return now.Frames == 0 ? commits > 0 : known.Frames == 0 && commits > 1;
    }

    /// <summary>The file is another one than the note says, and has to look so to the next process.</summary>
    public void Freeze()
    {
        lock (gate)
        {
            Write(last with { State = SqliteFileState.Behind });
            isFrozen = true;
        }
    }

    /// <summary>The file is being written: how it would be left now nobody knows.</summary>
    public void BeginCopy()
    {
        lock (gate)
        {
            if (copying++ == 0)
            {
                Write(last with { State = SqliteFileState.Unknown });
            }
        }
    }

    /// <param name="done">How much the log holds, and how much of it is in the file now; null when that is not known.</param>
    public void EndCopy(SqliteLogReading? done)
    {
        lock (gate)
        {
            known = done ?? known;
            if (--copying == 0)
            {
                WriteMark(done is { IsAllCopied: true } ? SqliteFileState.Whole : SqliteFileState.Behind, last.Ended);
            }
        }
    }

    /// <summary>Notes that this process was told to stop: whoever holds a lock on the store does not keep it from being said.</summary>
    /// <returns>Whether it was written.</returns>
    public bool NoteStop(string life)
    {
        lock (gate)
        {
            return Write(last with { ToldToStop = life });
        }
    }

    /// <summary>Notes how far the store has come.</summary>
    public void See(SqliteSeen seen)
    {
        lock (gate)
        {
            if (last.Seen != seen && !isFrozen)
            {
                Write(last with { Seen = seen });
            }
        }
    }

    public void Dispose()
    {
        lock (gate)
        {
            WriteMark(File.Exists(path + "-wal") ? SqliteFileState.Behind : SqliteFileState.Whole, clock.GetUtcNow());
        }
        note.Dispose();
        held.Dispose();
    }

    /// <summary>From here on the file is another one than every copy of it that was made before, whether or not the copy kept the time.</summary>
    private void Touch()
    {
        try
        {
            if (File.Exists(path))
            {
                File.SetLastWriteTimeUtc(path, clock.GetUtcNow().UtcDateTime);
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // Only its owner may.
        }
    }

    private void WriteMark(SqliteFileState state, DateTimeOffset? ended)
    {
        if (isFrozen)
        {
            return;
        }
        // Of a file that was taken away the note keeps what there was.
        var (size, modified) = FileMark(path) is { Size: > 0 } mark ? mark : (last.Size, last.Modified);
        Write(last with { State = state, Ended = ended, Size = size, Modified = modified });
    }

    private bool Write(SqliteNote now)
    {
        last = now;
        var bytes = new byte[NoteBytes];
        bytes.AsSpan().Fill((byte)' ');
        JsonSerializer.SerializeToUtf8Bytes(now, SqliteNoteJson.Default.SqliteNote).CopyTo(bytes, 0);
        bytes[^1] = (byte)'\n';
        try
        {
            // Always as long, and in place: a full disk has room for it, and a process that dies leaves the old one or the new one.
            RandomAccess.Write(note, bytes, 0);
            return true;
        }
        catch (IOException)
        {
            // Only what the next start can tell suffers.
            return false;
        }
    }

    private static SqliteNote? ReadNote(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(NoteOf(path)), SqliteNoteJson.Default.SqliteNote);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Compares what lies there with what the last process left, before SQLite opens it and makes one of it.</summary>
    private static List<string> Inspect(string path, SqliteNote? last, TimeProvider clock)
    {
        var findings = new List<string>();
        var log = path + "-wal";
        var logBytes = File.Exists(log) ? new FileInfo(log).Length : 0;
        if (!File.Exists(path) || new FileInfo(path).Length == 0)
        {
            if (logBytes > 0)
            {
                // SQLite would delete it.
                var aside = string.Create(CultureInfo.InvariantCulture, $"{log}.left-{clock.GetUtcNow():yyyyMMdd'T'HHmmss'Z'}");
                File.Move(log, aside);
                File.Delete(path + "-shm");
                findings.Add($"{path} is gone and its log was left behind: it was moved to {aside}. Without its file nothing can be read from it.");
            }
            if (last is { Size: > 0 })
            {
                findings.Add(
                    $"There is no store at {path} any more, although there was one{Owner(last)}: it was deleted or moved away. A new and empty one is begun: it knows none of the orders, dead letters "
                    + "and messages of before. If that is not meant, stop the service, put the file or a backup back, and start again.");
            }
            return findings;
        }
        var head = Head(path);
        if (!head.AsSpan(0, FirstBytes.Length).SequenceEqual(FirstBytes))
        {
            throw new StoreSettingsException($"Store:Path: {path} is no SQLite database. Put the store or a backup of it there, or name another file.");
        }
        if (logBytes == 0)
        {
            if (last is { State: SqliteFileState.Behind, Ended: null } && last.Boot == BootId() && IsAsLeft(path, last))
            {
                findings.Add($"The log {log} is gone, although the process before ended without a stop: what was committed in its last seconds is not in the store. What was acknowledged of it comes no more.");
            }
            // The schema's number; 0 where nobody ever made one.
            if (last is { Size: > 0 } && head.AsSpan(60, 4).IndexOfAnyExcept((byte)0) < 0)
            {
                findings.Add($"The store at {path} is empty, although there was one with a history{Owner(last)}: the file was replaced. If that is not meant, stop the service, put a backup back, and start again.");
            }
            return findings;
        }
        RequireTogether(path, last);
        return findings;
    }

    private static void RequireTogether(string path, SqliteNote? last)
    {
        var log = path + "-wal";
        if (!File.Exists(path) || !File.Exists(log) || new FileInfo(log).Length == 0)
        {
            return;
        }
        // After a loss of power the note may be older than the file. Then only the pages tell.
        var isAsLeft = last is { State: not SqliteFileState.Unknown, Boot: { } boot } && boot == BootId() ? IsAsLeft(path, last) : SqliteLog.Fits(log, new FileInfo(path).Length);
        if (!isAsLeft)
        {
            throw new StoreSettingsException(
                $"{path} and its log {log} do not belong together: the file was replaced or changed since the service wrote it last{Owner(last)}, and the log is that of the file before. Read together "
                + $"they would make a damaged store. If a backup was put back, move {log} and {path}-shm away and run orderservice store restore --in-place; what the log holds is then not in the store. "
                + $"If all of these files were copied here together, remove {NoteOf(path)} and start again.");
        }
    }

    /// <summary>The number of its schema, as it stands in the file; null for what is no SQLite database.</summary>
    public static int? SchemaOf(string path)
    {
        var head = Head(path);
        return head.AsSpan(0, FirstBytes.Length).SequenceEqual(FirstBytes) ? BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(60)) : null;
    }

    private static byte[] Head(string path)
    {
        var head = new byte[100];
        using var file = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        RandomAccess.Read(file, head, 0);
        return head;
    }

    private static bool IsAsLeft(string path, SqliteNote last) => FileMark(path) == (last.Size, last.Modified);

    private static (long Size, long Modified) FileMark(string path)
    {
        if (LinuxFile.Of(path) is { } status)
        {
            return (status.Size, status.Modified);
        }
        var file = new FileInfo(path);
        return file.Exists ? (file.Length, file.LastWriteTimeUtc.Ticks) : default;
    }

    private static string Owner(SqliteNote? note) => note is null
        ? ""
        : string.Create(CultureInfo.InvariantCulture, $" (process {note.Process} on host {note.Host}, since {note.Since.ToUniversalTime():yyyy-MM-dd HH:mm:ss'Z'}{(note.Ended is { } ended ? $" until {ended.ToUniversalTime():yyyy-MM-dd HH:mm:ss'Z'}" : "")})");

    /// <summary>Changes with every start of the machine; null where it is not known.</summary>
    private static string? BootId()
    {
        try
        {
            return OperatingSystem.IsLinux() ? File.ReadAllText("/proc/sys/kernel/random/boot_id", Encoding.ASCII).Trim() : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    // EWOULDBLOCK of Linux and of macOS, and Windows' sharing violation: .NET has no type for it.
    private static bool IsLocked(IOException exception) => exception.HResult is 11 or 35 or unchecked((int)0x80070020);
}

/// <summary>How much the log holds, in pages, and how much of that is in the file.</summary>
/// <param name="Round">Grows by one each time the log begins anew at its start, where all of it is in the file.</param>
/// <param name="Commits">Grows with every commit.</param>
internal readonly record struct SqliteLogReading(uint Round, uint Commits, int Frames, int Copied)
{
    public bool IsAllCopied => Copied == Frames;
}

/// <summary>Whether the store's file is as its process left it.</summary>
internal enum SqliteFileLook
{
    AsLeft,

    /// <summary>It was written; whether by a checkpoint that is not done yet shows in a moment.</summary>
    Suspect,

    /// <summary>Something else was laid over it.</summary>
    Overwritten,
}

/// <summary>How the store's file was left.</summary>
internal enum SqliteFileState
{
    /// <summary>It was being written.</summary>
    Unknown,

    /// <summary>All that was committed is in it.</summary>
    Whole,

    /// <summary>The newest commits are in the log only.</summary>
    Behind,
}

/// <param name="Ended">When the process stopped; null while it runs, and for one that was killed.</param>
/// <param name="Boot">The start of the machine it ran in.</param>
internal sealed record SqliteNote(int Process, string Host, DateTimeOffset Since, DateTimeOffset? Ended, string? Boot, SqliteFileState State, long Size, long Modified)
{
    /// <summary>The last process that was told to stop, by its name in the store.</summary>
    public string? ToldToStop { get; init; }

    /// <summary>How far the store had come.</summary>
    public SqliteSeen? Seen { get; init; }

    /// <summary>A restore has begun to put another file there.</summary>
    public bool IsBeingReplaced { get; init; }
}

[JsonSerializable(typeof(SqliteNote))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true)]
internal sealed partial class SqliteNoteJson : JsonSerializerContext;
