using System.Net.Sockets;
using System.Security.Authentication;
using Polly.CircuitBreaker;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

/// <summary>A generation ended, or could not be built, for a reason already put in plain words.</summary>
internal sealed class BrokerLostException(string reason) : Exception(reason);

/// <summary>A message ended the connection that it was to be handed out on, and will end the next one too.</summary>
internal sealed class UnreadableMessageException(string reason) : Exception(reason);

/// <summary>What went wrong with the broker, in one line without credentials.</summary>
internal static class BrokerErrors
{
    /// <summary>The library itself ended the connection because of what was in a frame, not because the network or the broker did, or for want of memory.</summary>
    public static bool IsUnreadable(ShutdownEventArgs shutdown) =>
        shutdown.Initiator == global::RabbitMQ.Client.ShutdownInitiator.Library
        && (shutdown.ReplyCode is 501 or 502 or 505 || (shutdown is { ReplyCode: 541, Exception: not null } && shutdown.Exception is not (IOException or SocketException or OperationCanceledException or OutOfMemoryException)));

    /// <summary>The library ended the connection because there was no memory for what came: that is no message's fault.</summary>
    public static bool IsWantOfMemory(ShutdownEventArgs shutdown) => shutdown.Exception is OutOfMemoryException;

    /// <summary>How a generation ends whose consumer the broker took away.</summary>
    public const string ConsumerCancelled = "the broker cancelled the consumer: the queue was deleted, lost its leader, or a delivery was in hand for too long";

    public static string Describe(ShutdownEventArgs shutdown) =>
        shutdown.Exception is { } cause && shutdown.ReplyCode is 0 or 541
            ? Describe(cause)
            : $"closed by the {(shutdown.Initiator == global::RabbitMQ.Client.ShutdownInitiator.Peer ? "broker" : "client")}: {shutdown.ReplyCode} {shutdown.ReplyText}{Hint(shutdown)}";

    private static string Hint(ShutdownEventArgs shutdown) =>
        shutdown is { Initiator: global::RabbitMQ.Client.ShutdownInitiator.Peer, ReplyCode: Constants.InternalError } ? " (the broker's log tells why; usual reasons are a queue that has no leader and a message that it can't hand out)" : "";

    public static string Describe(Exception exception) => exception switch
    {
        BrokerLostException or UnreadableMessageException or TopologyMismatchException => exception.Message,
        AuthenticationFailureException => "access refused: the broker does not accept the user or the password",
        PossibleAuthenticationFailureException => "access refused: the broker closed the connection during the login",
        BrokenCircuitException => "waiting: the last attempts all failed",
        TimeoutException => "no answer in time",
        AuthenticationException => $"TLS: {exception.Message}",
        OperationInterruptedException { ShutdownReason: { } reason } => Describe(reason),
        EndOfStreamException => "the other side closed the connection without a word",
        ObjectDisposedException => "the connection was closed",
        SocketException socket => $"not reachable: {socket.SocketErrorCode}",
        AggregateException { InnerExceptions.Count: > 0 } several => Describe(several.InnerExceptions[^1]),
        _ when exception.InnerException is { } inner => Describe(inner),
        OperationCanceledException => "no answer in time",
        _ => $"{exception.GetType().Name}: {exception.Message}",
    };
}
