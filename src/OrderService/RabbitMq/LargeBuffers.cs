using System.Buffers;
using System.Collections.Concurrent;

namespace OrderService.RabbitMq;

/// <summary>
/// Lets go of the buffers of large bodies. The client library takes them from the pool that all share, and gives them back on whichever thread its loop has come to; the pool keeps one
/// of each size for every thread and many more besides, which are hundreds of megabytes of nothing when bodies have 16. So the loop goes on on a thread of ours after a large
/// body, gives the buffer back to that thread's part of the pool, and there it is taken out again and forgotten.
/// </summary>
internal static class LargeBuffers
{
    /// <summary>A body larger than this comes in a buffer of its own.</summary>
    public const int From = 256 * 1024;

    private static readonly BlockingCollection<(TaskCompletionSource Done, int Length)> Waiting = [];

    static LargeBuffers() => new Thread(Run) { IsBackground = true, Name = "large buffers" }.Start();

    /// <summary>To be awaited by the client's loop in place of a completed task; its next step gives the buffer back.</summary>
    public static Task LetGoAsync(int length)
    {
        // Continued where it is completed: that is the point.
        var done = new TaskCompletionSource();
        Waiting.Add((done, length));
        return done.Task;
    }

    private static void Run()
    {
        foreach (var next in Waiting.GetConsumingEnumerable())
        {
            next.Done.SetResult();
            try
            {
                _ = ArrayPool<byte>.Shared.Rent(next.Length);
            }
            catch (OutOfMemoryException)
            {
                // It was not there, and there is none to make another.
            }
        }
    }
}
