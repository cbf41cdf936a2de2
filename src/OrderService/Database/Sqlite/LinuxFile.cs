using System.Runtime.InteropServices;

namespace OrderService.Database;

/// <summary>What .NET does not tell of a file: which one it is, and whose. Where the system is not Linux nothing is known.</summary>
internal static unsafe class LinuxFile
{
    private const int AT_FDCWD = -100;
    private const int AT_EMPTY_PATH = 0x1000;
    private const uint STATX_BASIC_STATS = 0x7ff;
    private const int R_OK_W_OK = 4 | 2;
    private const int O_CLOEXEC = 0x80000;

    /// <param name="Modified">Nanoseconds since 1970.</param>
    public readonly record struct Status(ulong Inode, ulong Device, uint Owner, uint Group, int Mode, long Size, long Modified)
    {
        public bool IsSameFileAs(Status other) => Inode == other.Inode && Device == other.Device;
    }

    public static Status? Of(string path)
    {
        fixed (byte* bytes = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
        {
            return Of(bytes);
        }
    }

    /// <param name="path">Ends with a zero.</param>
    public static Status? Of(byte* path) => Of(AT_FDCWD, path, 0);

    public static Status? Of(int descriptor)
    {
        byte none = 0;
        return Of(descriptor, &none, AT_EMPTY_PATH);
    }

    /// <summary>This process's user and group; null where they are not known.</summary>
    public static (uint User, uint Group)? Self => OperatingSystem.IsLinux() ? (geteuid(), getegid()) : null;

    /// <summary>Whether this process may read and write what is there; true where that is not known.</summary>
    public static bool MayWrite(string path)
    {
        if (!OperatingSystem.IsLinux())
        {
            return true;
        }
        fixed (byte* bytes = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
        {
            return access(bytes, R_OK_W_OK) == 0;
        }
    }

    /// <summary>Makes the names in a folder durable.</summary>
    public static void SyncFolder(string path)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }
        fixed (byte* bytes = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
        {
            var descriptor = open(bytes, O_CLOEXEC);
            if (descriptor < 0)
            {
                return;
            }
            var code = fsync(descriptor);
            _ = close(descriptor);
            if (code != 0)
            {
                throw new IOException($"The folder {path} could not be synced.");
            }
        }
    }

    private static Status? Of(int folder, byte* path, int flags)
    {
        if (!OperatingSystem.IsLinux())
        {
            return null;
        }
        // struct statx, the same on every processor: https://man7.org/linux/man-pages/man2/statx.2.html
        var buffer = stackalloc byte[256];
        try
        {
            if (statx(folder, path, flags, STATX_BASIC_STATS, buffer) != 0)
            {
                return null;
            }
        }
        catch (EntryPointNotFoundException)
        {
            // A C library from before 2018.
            return null;
        }
        return new Status(
            *(ulong*)(buffer + 32), ((ulong)*(uint*)(buffer + 136) << 32) | *(uint*)(buffer + 140), *(uint*)(buffer + 20), *(uint*)(buffer + 24), *(ushort*)(buffer + 28) & 0xfff,
            *(long*)(buffer + 40), (*(long*)(buffer + 112) * 1_000_000_000) + *(uint*)(buffer + 120));
    }

    [DllImport("libc")]
    private static extern int statx(int folder, byte* path, int flags, uint mask, byte* buffer);

    [DllImport("libc")]
    private static extern int access(byte* path, int mode);

    [DllImport("libc")]
    private static extern int open(byte* path, int flags);

    [DllImport("libc")]
    private static extern int fsync(int descriptor);

    [DllImport("libc")]
    private static extern int close(int descriptor);

    [DllImport("libc")]
    private static extern uint geteuid();

    [DllImport("libc")]
    private static extern uint getegid();
}
