using System.Globalization;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Options;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

internal sealed record QueueShape(string Name, IReadOnlyDictionary<string, object?> Arguments);

internal sealed record ExchangeShape(string Name, string Type, IReadOnlyDictionary<string, object?> Arguments);

/// <param name="IsWanted">False for one that is taken away where it is found.</param>
internal sealed record BindingShape(string Exchange, string Queue, string RoutingKey, bool IsWanted = true);

/// <summary>The queues and exchanges of docs/messages.md as data, declared and compared. All are durable.</summary>
public sealed partial class Topology
{
    private const string HashExchange = "x-consistent-hash";
    private const string HashPlugin = "rabbitmq_consistent_hash_exchange";
    private const string EqualWeight = "1";

    private readonly ILogger logger;
    private readonly int consumedPartitions;

    public Topology(IOptions<RabbitMqOptions> options, ILogger<Topology> logger)
    {
        this.logger = logger;
        consumedPartitions = options.Value.ConsumedPartitions;
        var commands = new Dictionary<string, object?>
        {
            ["x-queue-type"] = "quorum",
            ["x-dead-letter-exchange"] = "",
            ["x-dead-letter-routing-key"] = TopologyNames.DeadLetters,
            ["x-dead-letter-strategy"] = "at-least-once",
            ["x-overflow"] = "reject-publish",
            ["x-delivery-limit"] = options.Value.DeliveryLimit,
        };
        string[] partitions = [.. Enumerable.Range(1, consumedPartitions).Select(TopologyNames.Partition)];
        OrderQueues = [TopologyNames.Orders, .. partitions];
        Queues =
        [
            .. OrderQueues.Select(queue => new QueueShape(queue, commands)),
            new(TopologyNames.DeadLetters, new Dictionary<string, object?>
            {
                ["x-queue-type"] = "quorum",
                ["x-overflow"] = "reject-publish",
                // Without a limit of its own RabbitMQ 4 deletes a message after 20 returns. Here the limit moves it: only a letter that ends every connection it is delivered on gets that far.
                ["x-dead-letter-exchange"] = "",
                ["x-dead-letter-routing-key"] = TopologyNames.Unreadable,
                ["x-dead-letter-strategy"] = "at-least-once",
                ["x-delivery-limit"] = 100,
            }),
            new(TopologyNames.Unreadable, new Dictionary<string, object?>
            {
                ["x-queue-type"] = "quorum",
                ["x-overflow"] = "reject-publish",
                // The last stop: nothing may be deleted here. -1 has been passed over before in favour of the default of 20; a number nobody reaches means the same to every version.
                ["x-delivery-limit"] = NeverReached,
            }),
            new(TopologyNames.UnroutedEvents, new Dictionary<string, object?>
            {
                ["x-queue-type"] = "quorum",
                // A look-out, not a store: the events stay in the event store, so the oldest may go.
                ["x-max-length"] = 100_000,
                ["x-max-length-bytes"] = 256 * 1024 * 1024,
                ["x-overflow"] = "drop-head",
            }),
        ];
        Exchanges =
        [
            new(TopologyNames.OrdersIn, ExchangeType.Fanout, NoArguments),
            new(TopologyNames.UnroutedEvents, ExchangeType.Fanout, NoArguments),
            new(TopologyNames.OrderEvents, ExchangeType.Topic, new Dictionary<string, object?> { ["alternate-exchange"] = TopologyNames.UnroutedEvents }),
            // Last: a broker without the plugin may close the connection over it. Its hash ring has been seen broken after a node's restart; what it can't place takes the front door.
            .. options.Value.Partitions == 0 ? [] : new ExchangeShape[] { new(TopologyNames.OrdersPartitioned, HashExchange, new Dictionary<string, object?> { ["alternate-exchange"] = TopologyNames.OrdersIn }) },
        ];
        Bindings =
        [
            new(TopologyNames.OrdersIn, TopologyNames.Orders, ""),
            new(TopologyNames.UnroutedEvents, TopologyNames.UnroutedEvents, ""),
            .. partitions.Select((queue, index) => new BindingShape(TopologyNames.OrdersPartitioned, queue, EqualWeight, IsWanted: index < options.Value.Partitions)),
        ];
    }

    private const int NeverReached = 1_000_000_000;

    private static Dictionary<string, object?> NoArguments { get; } = [];

    /// <summary>The queues whose messages go into the inbox: <c>orders</c> first, then the partitions.</summary>
    internal IReadOnlyList<string> OrderQueues { get; }

    /// <summary>The exchanges with a name that the service itself publishes to.</summary>
    internal IEnumerable<string> PublishedTo => Exchanges.Select(exchange => exchange.Name).Where(name => name is not TopologyNames.UnroutedEvents);

    internal IReadOnlyList<QueueShape> Queues { get; }

    internal IReadOnlyList<ExchangeShape> Exchanges { get; }

    internal IReadOnlyList<BindingShape> Bindings { get; }

    /// <summary>One line for each queue, exchange and binding, for <c>orderservice topology</c>.</summary>
    public IEnumerable<string> Describe()
    {
        foreach (var queue in Queues)
        {
            yield return $"queue {queue.Name}, durable{Describe(queue.Arguments)}";
        }

        foreach (var exchange in Exchanges)
        {
            yield return $"exchange {exchange.Name}, {exchange.Type}, durable{Describe(exchange.Arguments)}";
        }

        foreach (var binding in Bindings)
        {
            yield return $"{(binding.IsWanted ? "" : "no ")}binding {binding.Exchange} -> {binding.Queue}{(binding.RoutingKey.Length == 0 ? "" : $" by {binding.RoutingKey}")}";
        }
    }

    /// <summary>Declares what is missing. Idempotent. A user without the right to declare is fine as long as everything exists.</summary>
    /// <exception cref="TopologyMismatchException">Something exists with other arguments, or is missing and may not be declared.</exception>
    public async Task DeclareAsync(IConnection connection, CancellationToken cancellationToken)
    {
        await using var channel = new ReopeningChannel(connection);
        foreach (var queue in Queues)
        {
            await DeclareAsync(channel, "queue", queue.Name, Declare(queue, queue.Arguments), static (open, name, token) => open.QueueDeclarePassiveAsync(name, token), cancellationToken);
        }

        foreach (var exchange in Exchanges)
        {
            await DeclareAsync(channel, "exchange", exchange.Name, Declare(exchange, exchange.Type, exchange.Arguments), static (open, name, token) => open.ExchangeDeclarePassiveAsync(name, token), cancellationToken);
        }

        foreach (var binding in Bindings)
        {
            try
            {
                await channel.RunAsync(
                    (open, token) => binding.IsWanted
                        ? open.QueueBindAsync(binding.Queue, binding.Exchange, binding.RoutingKey, null, false, token)
                        : open.QueueUnbindAsync(binding.Queue, binding.Exchange, binding.RoutingKey, null, token),
                    cancellationToken);
            }
            catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
            {
                // A binding can't be looked at with AMQP, so it is taken to be there, as its queue and exchange are.
                LogNotAllowed("binding", $"{binding.Exchange} -> {binding.Queue}");
            }
        }
    }

    /// <summary>Everything that is not as it should be; declares nothing. Empty when all is well.</summary>
    public async Task<IReadOnlyList<TopologyDifference>> CheckAsync(IConnection connection, CancellationToken cancellationToken)
    {
        var differences = new List<TopologyDifference>();
        await using var channel = new ReopeningChannel(connection);
        foreach (var queue in Queues)
        {
            if (await IsThereAsync(channel, "queue", queue.Name, static (open, name, token) => open.QueueDeclarePassiveAsync(name, token), differences, cancellationToken))
            {
                await CompareAsync(channel, queue.Arguments, (arguments, _) => Declare(queue, arguments), differences, cancellationToken);
            }
        }

        foreach (var exchange in Exchanges)
        {
            if (await IsThereAsync(channel, "exchange", exchange.Name, static (open, name, token) => open.ExchangeDeclarePassiveAsync(name, token), differences, cancellationToken))
            {
                await CompareAsync(channel, exchange.Arguments, (arguments, type) => Declare(exchange, type ?? exchange.Type, arguments), differences, cancellationToken);
            }
        }

        var beyond = await FindBeyondAsync(connection, cancellationToken);
        differences.AddRange(beyond.Where(queue => queue is { MessageCount: > 0, ConsumerCount: 0 }).Select(queue => Unconsumed(queue.QueueName, queue.MessageCount, beyond[^1].QueueName)));
        return differences;
    }

    /// <summary>The partitions above those that are consumed, as long as they follow one another: what is left when the number of partitions was lowered.</summary>
    internal async Task<IReadOnlyList<QueueDeclareOk>> FindBeyondAsync(IConnection connection, CancellationToken cancellationToken)
    {
        await using var channel = new ReopeningChannel(connection);
        var found = new List<QueueDeclareOk>();
        try
        {
            while (true)
            {
                var queue = TopologyNames.Partition(consumedPartitions + found.Count + 1);
                await channel.RunAsync(async (open, token) => found.Add(await open.QueueDeclarePassiveAsync(queue, token)), cancellationToken);
            }
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode is Constants.NotFound or Constants.AccessRefused)
        {
            return found;
        }
    }

    /// <summary>Lets nothing new into a partition above those that are consumed.</summary>
    internal async Task RetireAsync(IConnection connection, string queue, CancellationToken cancellationToken)
    {
        await using var channel = new ReopeningChannel(connection);
        try
        {
            // Fine with the broker when there is no such binding, or no such exchange.
            await channel.RunAsync((open, token) => open.QueueUnbindAsync(queue, TopologyNames.OrdersPartitioned, EqualWeight, null, token), cancellationToken);
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
        {
            LogNotAllowed("binding", $"{TopologyNames.OrdersPartitioned} -> {queue}");
        }
    }

    /// <param name="last">The highest partition there is.</param>
    internal static TopologyDifference Unconsumed(string queue, long messages, string last) => new(
        "queue", queue, "consumers", messages.ToString(CultureInfo.InvariantCulture), "0",
        $"set RabbitMq__PartitionsBefore={last[(TopologyNames.Orders.Length + 1)..]} and restart an instance with the role orders, which consumes them then");

    /// <summary>Reads the broker's text about an argument that differs, or about a type of exchange that it does not know; null when it says something else.</summary>
    internal static TopologyDifference? ReadDifference(string text)
    {
        if (UnknownType().Match(text) is { Success: true } unknown && unknown.Groups["type"].Value == HashExchange)
        {
            return new TopologyDifference("exchange", TopologyNames.OrdersPartitioned, "plugin", "none", HashPlugin, $"rabbitmq-plugins enable {HashPlugin}");
        }

        var match = InequivalentArgument().Match(text);
        if (!match.Success)
        {
            return null;
        }

        var kind = match.Groups["kind"].Value;
        var name = match.Groups["name"].Value;
        var argument = match.Groups["argument"].Value;
        var actual = ReadValue(match.Groups["current"].Value);
        return new TopologyDifference(kind, name, argument, actual, ReadValue(match.Groups["received"].Value), MendCommand(kind, name, argument, actual, match.Groups["host"].Value));
    }

    // Without --if-empty: the broker does not do that for quorum queues.
    private static string MendCommand(string kind, string name, string argument, string actual, string virtualHost) => kind == "queue"
        ? $"rabbitmqctl -p '{virtualHost}' delete_queue '{name}' && orderservice topology --declare"
            + ((name == TopologyNames.Orders || TopologyNames.IsPartition(name)) && argument == "x-delivery-limit" && actual != "none" ? $" (or set RabbitMq__DeliveryLimit={actual} to keep the queue as it is)" : "")
        : $"curl -u USER -X DELETE http://BROKER:15672/api/exchanges/{Uri.EscapeDataString(virtualHost)}/{Uri.EscapeDataString(name)} && orderservice topology --declare";

    private static string ReadValue(string text)
    {
        var quoted = QuotedValue().Match(text);
        return quoted.Success ? quoted.Groups["value"].Value : text.Trim();
    }

    private static Func<IChannel, CancellationToken, Task> Declare(QueueShape queue, IReadOnlyDictionary<string, object?> arguments) =>
        (open, token) => open.QueueDeclareAsync(queue.Name, true, false, false, new Dictionary<string, object?>(arguments), false, false, token);

    private static Func<IChannel, CancellationToken, Task> Declare(ExchangeShape exchange, string type, IReadOnlyDictionary<string, object?> arguments) =>
        (open, token) => open.ExchangeDeclareAsync(exchange.Name, type, true, false, new Dictionary<string, object?>(arguments), false, false, token);

    private async Task DeclareAsync(
        ReopeningChannel channel,
        string kind,
        string name,
        Func<IChannel, CancellationToken, Task> declare,
        Func<IChannel, string, CancellationToken, Task> look,
        CancellationToken cancellationToken)
    {
        try
        {
            await channel.RunAsync(declare, cancellationToken);
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason is { } reason)
        {
            if (ReadDifference(reason.ReplyText) is { } difference)
            {
                throw new TopologyMismatchException(difference);
            }

            if (reason.ReplyCode != Constants.AccessRefused)
            {
                throw;
            }

            var missing = new List<TopologyDifference>();
            if (!await IsThereAsync(channel, kind, name, look, missing, cancellationToken))
            {
                throw new TopologyMismatchException(missing[0]);
            }

            LogNotAllowed(kind, name);
        }
    }

    // Some versions ask for the right to configure even for looking (4.2.6, 4.3.0); then it is taken to be there, and consuming or publishing tells.
    private static async Task<bool> IsThereAsync(
        ReopeningChannel channel,
        string kind,
        string name,
        Func<IChannel, string, CancellationToken, Task> look,
        List<TopologyDifference> differences,
        CancellationToken cancellationToken)
    {
        try
        {
            await channel.RunAsync((open, token) => look(open, name, token), cancellationToken);
            return true;
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
        {
            return true;
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.NotFound)
        {
            differences.Add(new TopologyDifference(kind, name, "existence", "none", "one", "orderservice topology --declare (as a user who may configure it)"));
            return false;
        }
    }

    // Declaring a thing that exists changes nothing and names the first difference. With that one taken over, the next declaration names the second.
    private static async Task CompareAsync(
        ReopeningChannel channel,
        IReadOnlyDictionary<string, object?> wanted,
        Func<IReadOnlyDictionary<string, object?>, string?, Func<IChannel, CancellationToken, Task>> declare,
        List<TopologyDifference> differences,
        CancellationToken cancellationToken)
    {
        var arguments = new Dictionary<string, object?>(wanted);
        string? type = null;
        for (var round = 0; round < 20; round++)
        {
            try
            {
                await channel.RunAsync(declare(arguments, type), cancellationToken);
                return;
            }
            catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
            {
                return;
            }
            catch (OperationInterruptedException exception) when (exception.ShutdownReason is { ReplyCode: Constants.PreconditionFailed or Constants.CommandInvalid } reason)
            {
                if (ReadDifference(reason.ReplyText) is not { } difference || differences.Contains(difference))
                {
                    throw;
                }

                differences.Add(difference);
                if (difference.Argument is "plugin" or "durable" or "auto_delete" or "exclusive" or "internal")
                {
                    return;
                }

                if (difference.Argument == "type")
                {
                    type = difference.Actual;
                }
                else if (difference.Actual == "none")
                {
                    arguments.Remove(difference.Argument);
                }
                else
                {
                    arguments[difference.Argument] = long.TryParse(difference.Actual, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) ? number : difference.Actual;
                }
            }
        }
    }

    private static string Describe(IReadOnlyDictionary<string, object?> arguments) =>
        string.Concat(arguments.Select(argument => string.Create(CultureInfo.InvariantCulture, $", {argument.Key}={(argument.Value is "" ? "\"\"" : argument.Value)}")));

    [GeneratedRegex(@"inequivalent arg '(?<argument>[^']+)' for (?<kind>queue|exchange) '(?<name>.*?)' in vhost '(?<host>.*?)': received (?<received>.+?) but current is (?<current>.+)", RegexOptions.Singleline)]
    private static partial Regex InequivalentArgument();

    // An exchange's type is quoted twice.
    [GeneratedRegex("''(?<value>[^']+)''|'(?<value>[^']*)'")]
    private static partial Regex QuotedValue();

    [GeneratedRegex("(?:invalid|unknown) exchange type '(?<type>[^']+)'")]
    private static partial Regex UnknownType();

    [LoggerMessage(LogLevel.Debug, "Not allowed to declare the {Kind} {Name}; it is taken as it is")]
    private partial void LogNotAllowed(string kind, string name);

    /// <summary>A channel that is opened again after the broker closed it over an error.</summary>
    private sealed class ReopeningChannel(IConnection connection) : IAsyncDisposable
    {
        private IChannel? open;

        public async Task RunAsync(Func<IChannel, CancellationToken, Task> work, CancellationToken cancellationToken)
        {
            open ??= await connection.CreateChannelAsync(null, cancellationToken);
            try
            {
                await work(open, cancellationToken);
            }
            catch
            {
                await DisposeAsync();
                throw;
            }
        }

        public async ValueTask DisposeAsync()
        {
            var last = open;
            open = null;
            if (last is not null)
            {
                try
                {
                    await last.DisposeAsync();
                }
                catch (Exception)
                {
                    // It was closed already; what closed it is on its way to the caller.
                }
            }
        }
    }
}
