using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Microsoft.Data.Sqlite;
using OrderService.Store;
using SQLitePCL;

namespace OrderService.Database;

/// <summary>
/// SQLite's own file system for this platform, except that what is written to a write-ahead log is gathered in memory and reaches the file in few large writes.
/// SQLite writes each page of a commit with two calls, one for the frame's 24-byte header and one for the page: a thousand system calls for a commit of a few hundred orders.
/// </summary>
/// <remarks>
/// Nothing depends on a gathered byte: the buffer is written before the file is synced, read, measured, cut or closed, and with <c>synchronous=FULL</c>, the only setting
/// <see cref="SqliteDatabase"/> accepts, SQLite syncs before it tells any reader of a commit. An error of a late write is the error of that sync, and so of that commit.
/// On Linux the log is synced with <c>fdatasync</c>, as SQLite does it where it was built to: the library at hand calls <c>fsync</c>, which makes the file system write its own journal too,
/// at every commit, because the log's time of change is new. What a reader of the log needs, its bytes and its length, <c>fdatasync</c> makes as durable.
/// The structures are those of https://sqlite.org/c3ref/vfs.html and https://sqlite.org/c3ref/io_methods.html.
/// </remarks>
internal static unsafe class SqliteWalFile
{
    /// <summary>To be named in the connection string (<c>Vfs</c>).</summary>
    public const string FileSystem = "gathering-wal";

    private const int SQLITE_OPEN_WAL = 0x00080000;
    private const int SQLITE_IOERR_FSYNC = 1034;
    private const int SQLITE_FCNTL_FILE_POINTER = 7;
    private const int SQLITE_FCNTL_HAS_MOVED = 20;
    private const int SQLITE_FCNTL_JOURNAL_POINTER = 28;
    private const int O_RDWR = 2;
    private const int O_CLOEXEC = 0x80000;
    // One write call of SQLite's takes less than 128 KB (os_unix.c, seekAndWriteFd).
    private const int BufferBytes = 120 * 1024;

    /// <summary>The index's first part (wal.c, WALINDEX_PGSZ), and each of the two copies of its head.</summary>
    private const int IndexBytes = 32 * 1024;
    private const int IndexHeadBytes = 48;

    private const int MostAttempts = 10_000;

    private static readonly Lock Gate = new();
    private static Vfs* own;
    private static Vfs* platform;
    private static IoMethods* platformMethods;
    private static IoMethods* methods;

    /// <summary>Makes the file system known to SQLite; again and again does no harm.</summary>
    public static void RegisterFileSystem()
    {
        lock (Gate)
        {
            if (own is not null)
            {
                return;
            }
            Batteries_V2.Init();
            platform = sqlite3_vfs_find(null);
            var copy = (Vfs*)NativeMemory.Alloc((nuint)sizeof(Vfs));
            *copy = *platform;
            copy->FileBytes = platform->FileBytes + sizeof(Gathered*);
            copy->Next = null;
            copy->Name = (byte*)Marshal.StringToCoTaskMemUTF8(FileSystem);
            copy->Open = &Open;
            var code = sqlite3_vfs_register(copy, 0);
            if (code != raw.SQLITE_OK)
            {
                throw new StoreSettingsException($"SQLite does not take the file system of the store (code {code}).");
            }
            own = copy;
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Open(Vfs* vfs, byte* name, IoFile* file, int flags, int* outFlags)
    {
        var code = platform->Open(platform, name, file, flags, outFlags);
        if (code == raw.SQLITE_OK && (flags & SQLITE_OPEN_WAL) != 0)
        {
            var gathered = (Gathered*)NativeMemory.AllocZeroed((nuint)sizeof(Gathered));
            // A descriptor of its own: SQLite shows nobody the one it has. It takes no locks on a log, so closing this one drops none.
            gathered->Descriptor = OperatingSystem.IsLinux() ? open(name, O_RDWR | O_CLOEXEC) : -1;
            if (gathered->Descriptor >= 0 && LinuxFile.Of(gathered->Descriptor) is { } status)
            {
                // SQLite keeps the name as long as the file is open.
                gathered->Name = name;
                (gathered->Inode, gathered->Device) = (status.Inode, status.Device);
            }
            *Buffer(file) = gathered;
            file->Methods = Methods(file->Methods);
        }
        return code;
    }

    /// <summary>What lies no more where it was opened.</summary>
    public enum Moves
    {
        None,

        /// <summary>The database's file.</summary>
        File,

        /// <summary>Its log alone.</summary>
        Log,
    }

    /// <summary>Compares the files that a connection has open with those that lie at their paths: one look at each, none at what is in them.</summary>
    public static Moves Moved(SqliteConnection connection)
    {
        var database = connection.Handle!.DangerousGetHandle();
        fixed (byte* main = "main\0"u8)
        {
            var moved = 0;
            if (sqlite3_file_control(database, main, SQLITE_FCNTL_HAS_MOVED, &moved) == raw.SQLITE_OK && moved != 0)
            {
                return Moves.File;
            }
            IoFile* log = null;
            // Before the first transaction there is none.
            if (sqlite3_file_control(database, main, SQLITE_FCNTL_JOURNAL_POINTER, &log) != raw.SQLITE_OK || log is null || methods is null || log->Methods != methods)
            {
                return Moves.None;
            }
            var gathered = *Buffer(log);
            return gathered->Inode != 0 && (LinuxFile.Of(gathered->Name) is not { } status || status.Inode != gathered->Inode || status.Device != gathered->Device) ? Moves.Log : Moves.None;
        }
    }

    /// <summary>
    /// How far the log of a connection is, from the head of the index that all its users share (https://sqlite.org/walformat.html, section 2.1); null before
    /// the first transaction.
    /// </summary>
    public static SqliteLogReading? Log(SqliteConnection connection)
    {
        var database = connection.Handle!.DangerousGetHandle();
        fixed (byte* main = "main\0"u8)
        {
            IoFile* log = null;
            IoFile* file = null;
            byte* index = null;
            if (sqlite3_file_control(database, main, SQLITE_FCNTL_JOURNAL_POINTER, &log) != raw.SQLITE_OK || log is null
                || methods is null || log->Methods != methods
                || sqlite3_file_control(database, main, SQLITE_FCNTL_FILE_POINTER, &file) != raw.SQLITE_OK || file is null || file->Methods is null
                || file->Methods->ShmMap(file, 0, IndexBytes, 0, &index) != raw.SQLITE_OK || index is null)
            {
                return null;
            }
            // It is written twice, and whole when both are the same and stay so.
            var one = new ReadOnlySpan<byte>(index, IndexHeadBytes);
            var two = new ReadOnlySpan<byte>(index + IndexHeadBytes, IndexHeadBytes);
            Span<byte> head = stackalloc byte[IndexHeadBytes];
            for (var attempts = 0; attempts < MostAttempts; attempts++)
            {
                one.CopyTo(head);
                Thread.MemoryBarrier();
                var copied = Volatile.Read(ref *(uint*)(index + (2 * IndexHeadBytes)));
                Thread.MemoryBarrier();
                if (head.SequenceEqual(two) && head.SequenceEqual(one))
                {
                    return new SqliteLogReading(
                        Round: BinaryPrimitives.ReadUInt32BigEndian(head[32..]),
                        Commits: MemoryMarshal.Read<uint>(head[8..]),
                        Frames: (int)MemoryMarshal.Read<uint>(head[16..]),
                        Copied: (int)copied);
                }
                Thread.Yield();
            }
            return null;
        }
    }

    private static IoMethods* Methods(IoMethods* ofPlatform)
    {
        lock (Gate)
        {
            if (methods is null)
            {
                var copy = (IoMethods*)NativeMemory.Alloc((nuint)sizeof(IoMethods));
                *copy = *ofPlatform;
                copy->Close = &Close;
                copy->Read = &Read;
                copy->Write = &Write;
                copy->Truncate = &Truncate;
                copy->Sync = &Sync;
                copy->FileSize = &FileSize;
                platformMethods = ofPlatform;
                methods = copy;
            }
            return methods;
        }
    }

    private static Gathered** Buffer(IoFile* file) => (Gathered**)((byte*)file + platform->FileBytes);

    private static int Flush(IoFile* file)
    {
        var gathered = *Buffer(file);
        if (gathered->Length == 0)
        {
            return raw.SQLITE_OK;
        }
        var length = gathered->Length;
        gathered->Length = 0;
        return platformMethods->Write(file, gathered->Bytes, length, gathered->Offset);
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Write(IoFile* file, byte* bytes, int length, long offset)
    {
        var gathered = *Buffer(file);
        if (gathered->Length > 0 && (offset != gathered->Offset + gathered->Length || gathered->Length + length > BufferBytes))
        {
            var code = Flush(file);
            if (code != raw.SQLITE_OK)
            {
                return code;
            }
        }
        if (length > BufferBytes)
        {
            return platformMethods->Write(file, bytes, length, offset);
        }
        if (gathered->Length == 0)
        {
            gathered->Offset = offset;
        }
        NativeMemory.Copy(bytes, gathered->Bytes + gathered->Length, (nuint)length);
        gathered->Length += length;
        return raw.SQLITE_OK;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Sync(IoFile* file, int flags)
    {
        var code = Flush(file);
        if (code != raw.SQLITE_OK)
        {
            return code;
        }
        var gathered = *Buffer(file);
        // The first sync is SQLite's own: it also makes the new file's name durable.
        if (gathered->Descriptor < 0 || !gathered->IsSynced)
        {
            code = platformMethods->Sync(file, flags);
            gathered->IsSynced = code == raw.SQLITE_OK;
            return code;
        }
        return fdatasync(gathered->Descriptor) == 0 ? raw.SQLITE_OK : SQLITE_IOERR_FSYNC;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Read(IoFile* file, byte* bytes, int length, long offset)
    {
        var code = Flush(file);
        return code == raw.SQLITE_OK ? platformMethods->Read(file, bytes, length, offset) : code;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Truncate(IoFile* file, long size)
    {
        var code = Flush(file);
        return code == raw.SQLITE_OK ? platformMethods->Truncate(file, size) : code;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int FileSize(IoFile* file, long* size)
    {
        var code = Flush(file);
        return code == raw.SQLITE_OK ? platformMethods->FileSize(file, size) : code;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Close(IoFile* file)
    {
        var flushed = Flush(file);
        var gathered = *Buffer(file);
        if (gathered->Descriptor >= 0)
        {
            _ = close(gathered->Descriptor);
        }
        NativeMemory.Free(gathered);
        var closed = platformMethods->Close(file);
        return flushed == raw.SQLITE_OK ? closed : flushed;
    }

    [DllImport("e_sqlite3", CallingConvention = CallingConvention.Cdecl)]
    private static extern Vfs* sqlite3_vfs_find(byte* name);

    [DllImport("e_sqlite3", CallingConvention = CallingConvention.Cdecl)]
    private static extern int sqlite3_vfs_register(Vfs* vfs, int makeDefault);

    [DllImport("e_sqlite3", CallingConvention = CallingConvention.Cdecl)]
    private static extern int sqlite3_file_control(nint database, byte* name, int operation, void* argument);

    [DllImport("libc")]
    private static extern int open(byte* path, int flags);

    [DllImport("libc")]
    private static extern int fdatasync(int descriptor);

    [DllImport("libc")]
    private static extern int close(int descriptor);

    private struct Gathered
    {
        public int Descriptor;
        public bool IsSynced;
        public byte* Name;
        public ulong Inode;
        public ulong Device;
        public long Offset;
        public int Length;
        public fixed byte Bytes[BufferBytes];
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct IoFile
    {
        public IoMethods* Methods;
    }

    /// <summary>sqlite3_vfs, version 3.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Vfs
    {
        public int Version;
        public int FileBytes;
        public int MaxPathname;
        public Vfs* Next;
        public byte* Name;
        public void* AppData;
        public delegate* unmanaged[Cdecl]<Vfs*, byte*, IoFile*, int, int*, int> Open;
        public Others15 Others;
    }

    /// <summary>sqlite3_io_methods, version 3.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct IoMethods
    {
        public int Version;
        public delegate* unmanaged[Cdecl]<IoFile*, int> Close;
        public delegate* unmanaged[Cdecl]<IoFile*, byte*, int, long, int> Read;
        public delegate* unmanaged[Cdecl]<IoFile*, byte*, int, long, int> Write;
        public delegate* unmanaged[Cdecl]<IoFile*, long, int> Truncate;
        public delegate* unmanaged[Cdecl]<IoFile*, int, int> Sync;
        public delegate* unmanaged[Cdecl]<IoFile*, long*, int> FileSize;
        public Others6 Before;
        public delegate* unmanaged[Cdecl]<IoFile*, int, int, int, byte**, int> ShmMap;
        public Others5 After;
    }

    /// <summary>What is left of <see cref="Vfs"/>: xDelete to xNextSystemCall.</summary>
    [InlineArray(15)]
    private struct Others15
    {
        private nint first;
    }

    /// <summary>xLock to xDeviceCharacteristics.</summary>
    [InlineArray(6)]
    private struct Others6
    {
        private nint first;
    }

    /// <summary>xShmLock to xUnfetch.</summary>
    [InlineArray(5)]
    private struct Others5
    {
        private nint first;
    }
}
