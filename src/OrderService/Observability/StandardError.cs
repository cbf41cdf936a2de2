namespace OrderService.Observability;

/// <summary>
/// Lines on standard error from whoever has work to do. Nobody waits for their reader: what finds no room is left out and counted, and said when there is room again.
/// </summary>
internal static class StandardError
{
    private const int Room = 200;

    private static readonly Lock Gate = new();
    private static Task last = Task.CompletedTask;
    private static int waiting;
    private static long leftOut;

    public static void Say(string line)
    {
        lock (Gate)
        {
            if (waiting == Room)
            {
                leftOut++;
                return;
            }
            var more = leftOut;
            leftOut = 0;
            waiting++;
            // One after the other: a reader that has stopped holds one thread and no more.
            last = last.ContinueWith(_ => Write(line, more), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    /// <summary>Waits until all is written, for so long at the most.</summary>
    public static async Task FlushAsync(TimeSpan limit)
    {
        Task all;
        lock (Gate)
        {
            all = last;
        }
        using var end = new CancellationTokenSource(limit);
        await Task.WhenAny(all, Task.Delay(Timeout.Infinite, end.Token));
    }

    private static void Write(string line, long leftOutBefore)
    {
        try
        {
            if (leftOutBefore > 0)
            {
                Console.Error.WriteLine($"({leftOutBefore} lines were left out here: nobody read them.)");
            }
            Console.Error.WriteLine(line);
        }
        catch (IOException)
        {
            // Nobody reads it any more.
        }
        lock (Gate)
        {
            waiting--;
        }
    }
}
