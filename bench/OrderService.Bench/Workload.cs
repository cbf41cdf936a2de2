using System.Globalization;
using System.Text;

namespace OrderService.Bench;

/// <summary>
/// The messages of a run: the same for every contestant, and the same at every run. Bodies have about 600 bytes. Order ids and message ids are spread over their whole
/// range, as ids of many producers are, so that no store gets the gift of ever-growing keys.
/// </summary>
internal sealed class Workload
{
    /// <summary>Of this many messages one is a copy of an earlier one: 5 %.</summary>
    public const int CopyEvery = 20;

    private const int IdLength = 17;
    private readonly int[] slots;

    private Workload(int[] slots, int distinct)
    {
        this.slots = slots;
        Distinct = distinct;
    }

    /// <summary>Messages, copies included.</summary>
    public int Messages => slots.Length;

    /// <summary>Orders.</summary>
    public int Distinct { get; }

    /// <summary>Which order each message is for, in the order of publishing.</summary>
    public IReadOnlyList<int> Slots => slots;

    /// <summary>5 % of the messages are copies of one that came before, near or far.</summary>
    /// <param name="first">The number of the first order, so that runs over one store do not meet.</param>
    public static Workload WithCopies(int messages, int first = 0)
    {
        var random = new Random(20_261);
        var slots = new int[messages];
        var distinct = 0;
        for (var slot = 0; slot < messages; slot++)
        {
            slots[slot] = slot % CopyEvery == CopyEvery - 1 ? slots[random.Next(slot)] : first + distinct++;
        }
        return new Workload(slots, distinct);
    }

    /// <summary>Eight hexadecimal digits that look random, then the number: <c>9E3779B9-00000001</c>.</summary>
    public static string OrderId(int number) => string.Create(CultureInfo.InvariantCulture, $"{(uint)Mix((ulong)number):X8}-{number:D8}");

    /// <summary>A producer's idempotency key: a GUID, the same for every copy.</summary>
    public static string MessageId(int number)
    {
        Span<byte> bytes = stackalloc byte[16];
        BitConverter.TryWriteBytes(bytes, Mix((ulong)number + (1UL << 40)));
        BitConverter.TryWriteBytes(bytes[8..], Mix((ulong)number + (1UL << 41)));
        return new Guid(bytes).ToString();
    }

    /// <summary>An <c>order.place</c> of eight lines.</summary>
    public static byte[] Body(int number)
    {
        var body = new StringBuilder(640);
        body.Append(CultureInfo.InvariantCulture, $"{{\"orderId\":\"{OrderId(number)}\",\"customerId\":\"C-{(number * 7919) % 100_000:D6}\",\"currency\":\"EUR\",\"placedAt\":\"2026-11-23T09:30:00Z\",\"lines\":[");
        for (var line = 0; line < 8; line++)
        {
            body.Append(CultureInfo.InvariantCulture, $"{(line == 0 ? "" : ",")}{{\"sku\":\"KB-{(number + line) % 10_000:D5}\",\"quantity\":{1 + line},\"unitPrice\":{10 + (number + line) % 90}.{(number * 3 + line) % 90 + 10}}}");
        }
        return Encoding.UTF8.GetBytes(body.Append("]}").ToString());
    }

    /// <summary>The order's number out of an event: out of its message id when that starts with an order id, otherwise out of its body.</summary>
    /// <returns>-1 when no order id is found.</returns>
    public static int NumberOf(string? messageId, ReadOnlySpan<byte> body)
    {
        if (messageId is { Length: >= IdLength } && messageId[8] == '-'
            && int.TryParse(messageId.AsSpan(9, 8), NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            return number;
        }
        // Some serializers put a blank after the colon.
        var member = "rderId\":"u8;
        var at = body.IndexOf(member);
        if (at < 0)
        {
            return -1;
        }
        var value = body[(at + member.Length)..].TrimStart((byte)' ');
        return value.Length > IdLength && value[0] == '"' && int.TryParse(value.Slice(1 + 9, 8), NumberStyles.None, CultureInfo.InvariantCulture, out number) ? number : -1;
    }

    // SplitMix64's finalizer: a fixed permutation that looks random.
    private static ulong Mix(ulong value)
    {
        value += 0x9E3779B97F4A7C15;
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
        return value ^ (value >> 31);
    }
}
