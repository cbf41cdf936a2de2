using System.Diagnostics;
using System.Globalization;

namespace OrderService.Bench.Measurement;

/// <summary>CPU time a container has used, read from the control group on this machine; null where the engine runs elsewhere.</summary>
internal sealed class ContainerClock
{
    private readonly string? file;
    private readonly bool microseconds;

    public ContainerClock(string? container)
    {
        if (container is null || Shell.Output("docker", "inspect", "-f", "{{.State.Pid}}", container)?.Trim() is not { Length: > 0 } pid || !File.Exists($"/proc/{pid}/cgroup"))
        {
            return;
        }
        foreach (var line in File.ReadLines($"/proc/{pid}/cgroup"))
        {
            var parts = line.Split(':', 3);
            var (path, isSecond) = parts[1] switch
            {
                "" => ($"/sys/fs/cgroup{parts[2]}/cpu.stat", true),
                var controllers when controllers.Split(',').Contains("cpuacct") => ($"/sys/fs/cgroup/{controllers}{parts[2]}/cpuacct.usage", false),
                _ => ("", false),
            };
            if (File.Exists(path))
            {
                (file, microseconds) = (path, isSecond);
                return;
            }
        }
    }

    /// <summary>Since the container started.</summary>
    public TimeSpan? Used()
    {
        if (file is null)
        {
            return null;
        }
        if (!microseconds)
        {
            return TimeSpan.FromMicroseconds(long.Parse(File.ReadAllText(file), CultureInfo.InvariantCulture) / 1000.0);
        }
        var usage = File.ReadLines(file).First(line => line.StartsWith("usage_usec ", StringComparison.Ordinal));
        return TimeSpan.FromMicroseconds(long.Parse(usage.AsSpan(11), CultureInfo.InvariantCulture));
    }
}

/// <summary>Small commands whose output is wanted.</summary>
internal static class Shell
{
    /// <returns>Standard output, or null when the command is missing or failed.</returns>
    public static string? Output(string file, params IEnumerable<string> arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(file, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            _ = process.StandardError.ReadToEndAsync();
            var output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? output : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}
