namespace OrderService.Store;

/// <summary>Makes what only the service's user may read. What is there already keeps its rights: they are its owner's to set.</summary>
internal static class OwnerOnly
{
    private const UnixFileMode File0600 = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Makes the folder and its parents, as far as they are missing.</summary>
    public static void CreateFolder(string path)
    {
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(path);
        }
        else
        {
            Directory.CreateDirectory(path, File0600 | UnixFileMode.UserExecute);
        }
    }

    /// <summary>Makes an empty file where there is none.</summary>
    public static void CreateFile(string path)
    {
        if (!File.Exists(path))
        {
            try
            {
                New(path).Dispose();
            }
            catch (IOException) when (File.Exists(path))
            {
                // Another process made it first.
            }
        }
    }

    /// <exception cref="IOException">There is one already.</exception>
    public static FileStream New(string path)
    {
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = File0600;
        }
        return new FileStream(path, options);
    }

    /// <summary>Makes a file with this content, and its folder, and has it on the disk.</summary>
    /// <returns>False where there is one already: another process that started at the same moment made it first.</returns>
    public static bool WriteNew(string path, ReadOnlySpan<byte> content)
    {
        CreateFolder(Path.GetDirectoryName(path)!);
        try
        {
            Write(path, content);
            return true;
        }
        catch (IOException) when (File.Exists(path))
        {
            return false;
        }
    }

    /// <summary>The same in place of one that is there: whoever reads it finds the old content or the new one, whole.</summary>
    public static void Replace(string path, ReadOnlySpan<byte> content)
    {
        CreateFolder(Path.GetDirectoryName(path)!);
        var made = $"{path}.{Guid.NewGuid():N}";
        Write(made, content);
        File.Move(made, path, overwrite: true);
    }

    private static void Write(string path, ReadOnlySpan<byte> content)
    {
        using var file = New(path);
        file.Write(content);
        file.Flush(flushToDisk: true);
    }
}
