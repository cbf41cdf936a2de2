using System.Diagnostics;
using System.Runtime.InteropServices;

namespace OrderService.Bench.Measurement;

/// <summary>A contestant's process: its output goes to a file, its CPU time and peak memory are read from outside.</summary>
internal sealed partial class ChildProcess : IAsyncDisposable
{
    private const int Terminate = 15;
    private readonly Process process;
    private readonly StreamWriter log;
    private readonly string logFile;

    private ChildProcess(Process process, StreamWriter log, string logFile)
    {
        this.process = process;
        this.log = log;
        this.logFile = logFile;
    }

    public static ChildProcess Start(ProcessStartInfo start, string logFile)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(logFile)!);
        start.RedirectStandardOutput = true;
        start.RedirectStandardError = true;
        var log = new StreamWriter(logFile) { AutoFlush = true };
        var process = Process.Start(start) ?? throw new BenchException($"{start.FileName} did not start.");
        var child = new ChildProcess(process, log, logFile);
        process.OutputDataReceived += (_, line) => child.Write(line.Data);
        process.ErrorDataReceived += (_, line) => child.Write(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return child;
    }

    public int Id => process.Id;

    public TimeSpan CpuTime()
    {
        EnsureRunning();
        process.Refresh();
        return process.TotalProcessorTime;
    }

    /// <summary>The largest resident set so far, in bytes.</summary>
    public long PeakMemory()
    {
        process.Refresh();
        return process.PeakWorkingSet64;
    }

    public void EnsureRunning()
    {
        if (process.HasExited)
        {
            throw new BenchException($"The contestant ended with exit code {process.ExitCode}. Its last words:\n{Tail()}");
        }
    }

    /// <summary>Asks it to stop as an orchestrator does, and waits.</summary>
    public async Task StopAsync()
    {
        if (!process.HasExited)
        {
            _ = Kill(process.Id, Terminate);
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(40));
            try
            {
                await process.WaitForExitAsync(limit.Token);
            }
            catch (OperationCanceledException)
            {
                process.Kill(entireProcessTree: true);
                throw new BenchException($"The contestant did not stop within 40 s. Its last words:\n{Tail()}");
            }
        }
        if (process.ExitCode is not (0 or 128 + Terminate))
        {
            throw new BenchException($"The contestant ended with exit code {process.ExitCode}. Its last words:\n{Tail()}");
        }
    }

    public string Tail()
    {
        lock (log)
        {
            log.Flush();
        }
        using var reader = new StreamReader(new FileStream(logFile, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        return string.Join('\n', reader.ReadToEnd().Split('\n').TakeLast(15));
    }

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync();
        }
        process.Dispose();
        await log.DisposeAsync();
    }

    private void Write(string? line)
    {
        if (line is not null)
        {
            lock (log)
            {
                log.WriteLine(line);
            }
        }
    }

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Kill(int process, int signal);
}
