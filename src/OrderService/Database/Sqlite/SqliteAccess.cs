using System.Globalization;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>Whether this process may use the files of a SQLite store, and if not, who may and what to do.</summary>
internal static class SqliteAccess
{
    /// <exception cref="StoreSettingsException">A file or the folder can't be read and written.</exception>
    public static void Require(string path)
    {
        if (Problem(path) is { } problem)
        {
            throw new StoreSettingsException(problem);
        }
    }

    /// <returns>One sentence with the path, this process's user, the owner, and what to do; null when all can be used.</returns>
    public static string? Problem(string path)
    {
        var folder = Path.GetDirectoryName(path)!;
        while (!Directory.Exists(folder) && Path.GetDirectoryName(folder) is { } above)
        {
            folder = above;
        }
        var closed = ((string[])[folder, path, path + "-wal", path + "-shm", path + ".lock", SqliteClaim.NoteOf(path)]).FirstOrDefault(one => Path.Exists(one) && !LinuxFile.MayWrite(one));
        if (closed is null || LinuxFile.Self is not { } self)
        {
            return null;
        }
        var owner = LinuxFile.Of(closed);
        var whose = owner is { } known ? string.Create(CultureInfo.InvariantCulture, $"; it belongs to user {known.Owner}, group {known.Group}, mode {Convert.ToString(known.Mode, 8)}") : "";
        var run = owner is { } user ? string.Create(CultureInfo.InvariantCulture, $"Run the service as that user (docker run --user {user.Owner}:{user.Group})") : "Run the service as its owner";
        return string.Create(
            CultureInfo.InvariantCulture,
            $"Store:Path: {closed} can't be written by this process, which runs as user {self.User}, group {self.Group}{whose}. {run}, give the folder to this one "
            + $"(chown -R {self.User} {Path.GetDirectoryName(path)}), or, for arbitrary users of group 0, to the group (chgrp -R 0 and chmod -R g=u); the file system must not be read-only.");
    }
}
