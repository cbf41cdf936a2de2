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
}
