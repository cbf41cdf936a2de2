using System.Buffers;
using System.Net.Sockets;

namespace OrderService.RabbitMq;

/// <summary>
/// A stream that sends in the background: what is written while a send is on its way goes with the next one. Nothing waits for company; a lone write is sent at once.
/// </summary>
/// <remarks>
/// A write is done when it is gathered, so a failed send is the error of the next write; the reader of a broken connection hears of it anyway. Writers wait while
/// <see cref="MostUnsent"/> bytes are unsent, so that a peer that does not read holds them up as a full socket would. Closing waits for what was written, up to a second for each send.
/// </remarks>
internal sealed class GatheringStream(Socket socket) : NetworkStream(socket, ownsSocket: true), IThreadPoolWorkItem
{
    internal const int MostUnsent = 128 * 1024;

    private static readonly TimeSpan LongestClose = TimeSpan.FromSeconds(1);

    private readonly Lock gate = new();
    private ArrayBufferWriter<byte> gathered = new(16 * 1024);
    private ArrayBufferWriter<byte> leaving = new(16 * 1024);
    private TaskCompletionSource? taken;
    private bool sending;
    private Exception? failure;

    /// <exception cref="IOException">An earlier send failed.</exception>
    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Task? room = null;
        lock (gate)
        {
            if (failure is not null)
            {
                return ValueTask.FromException(new IOException("An earlier send failed.", failure));
            }

            gathered.Write(buffer.Span);
            if (!sending)
            {
                sending = true;
                ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
            }

            if (gathered.WrittenCount > MostUnsent)
            {
                room = Taken();
            }
        }

        return room is null ? ValueTask.CompletedTask : new ValueTask(room.WaitAsync(cancellationToken));
    }

    public override async ValueTask DisposeAsync()
    {
        while (true)
        {
            Task unsent;
            lock (gate)
            {
                if (!sending)
                {
                    break;
                }

                unsent = Taken();
            }

            try
            {
                await unsent.WaitAsync(LongestClose);
            }
            catch (TimeoutException)
            {
                // The peer does not read; the socket's end ends the send.
                break;
            }
        }

        await base.DisposeAsync();
    }

    void IThreadPoolWorkItem.Execute() => _ = SendAsync();

    private async Task SendAsync()
    {
        while (Take() is { } bytes)
        {
            try
            {
                await base.WriteAsync(bytes, CancellationToken.None);
            }
            catch (Exception exception)
            {
                lock (gate)
                {
                    failure = exception;
                }
            }
        }
    }

    /// <summary>What was gathered meanwhile; null when that is nothing, which ends the sending.</summary>
    private ReadOnlyMemory<byte>? Take()
    {
        lock (gate)
        {
            taken?.SetResult();
            taken = null;
            if (gathered.WrittenCount == 0 || failure is not null)
            {
                sending = false;
                return null;
            }

            (gathered, leaving) = (leaving, gathered);
            gathered.ResetWrittenCount();
            return leaving.WrittenMemory;
        }
    }

    /// <summary>Ends when what is gathered now is being sent, or everything is.</summary>
    private Task Taken() => (taken ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;
}
