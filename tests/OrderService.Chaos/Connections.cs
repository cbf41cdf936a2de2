using RabbitMQ.Client;

namespace OrderService.Chaos;

internal static class Connections
{
    /// <summary>Lets go of a connection that may be broken, without waiting for a broker that does not answer.</summary>
    public static async Task AbandonAsync(this IConnection connection)
    {
        await connection.CloseAsync(Constants.ReplySuccess, "done", TimeSpan.FromSeconds(1), abort: true);
        await connection.DisposeAsync();
    }
}
