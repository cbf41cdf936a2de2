using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;

namespace OrderService.CommandLine;

/// <summary>Messages as a small electronics shop sends them, with as many broken, repeated and early ones among them as asked for.</summary>
internal sealed class SampleOrders
{
    private const int Remembered = 200;

    private static readonly (string Sku, int Cents)[] Goods =
    [
        ("KB-MECH-87", 12990), ("MOUSE-ERGO", 4990), ("MON-27-4K", 38900), ("DOCK-TB4", 21950), ("CAM-HD-2", 6490), ("HEADSET-BT", 9990), ("USB-C-2M", 1290),
        ("SSD-NVME-2T", 14990), ("RAM-DDR5-32", 11900), ("STAND-ALU", 3990), ("LAMP-DESK", 5490), ("MAT-XL", 1990), ("SWITCH-8P", 2790), ("HUB-USB-7", 3290), ("PRINTER-L2", 17900),
    ];

    private static readonly (string Code, int Decimals)[] Currencies = [("EUR", 2), ("EUR", 2), ("EUR", 2), ("USD", 2), ("GBP", 2), ("CHF", 2), ("SEK", 2), ("JPY", 0)];

    private readonly int total;
    private readonly int poison;
    private readonly int duplicates;
    private readonly int early;
    private readonly string run;
    private readonly DateTimeOffset now;
    private readonly Random random;

    /// <param name="total">How many messages in all.</param>
    /// <param name="poison">The share of broken ones, 0 to 1; so for the other two.</param>
    /// <param name="now">Makes the ids of this run differ from those of the last.</param>
    public SampleOrders(int total, double poison, double duplicates, double early, DateTimeOffset now, int? seed = null)
    {
        this.total = total;
        this.now = now;
        this.poison = Count(total, poison, total);
        this.duplicates = Count(total, duplicates, Math.Max(0, total - this.poison - 1));
        this.early = Count(total, early, Math.Max(0, (total - this.poison - this.duplicates) / 2));
        random = seed is { } fixedSeed ? new Random(fixedSeed) : new Random();
        run = $"{now.ToUnixTimeSeconds() % 100_000_000:x}{random.Next(256):x2}".ToUpperInvariant();
    }

    public async IAsyncEnumerable<MessageLine> Messages([EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        await Task.CompletedTask;
        int poisonLeft = poison, duplicatesLeft = duplicates, earlyLeft = early, goodLeft = total - poison - duplicates - early;
        var sent = new List<OutgoingMessage>(Remembered);
        var waiting = new Queue<string>();
        var broken = random.Next(Poison.Length);
        for (var number = 1; number <= total; number++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var pick = random.Next(poisonLeft + duplicatesLeft + earlyLeft + goodLeft);
            var orderId = string.Create(CultureInfo.InvariantCulture, $"A-{run}-{number:00000}");
            if ((pick -= poisonLeft) < 0)
            {
                poisonLeft--;
                var (sort, make) = Poison[broken++ % Poison.Length];
                yield return new MessageLine(number, make(this, orderId), Sort: $"broken: {sort}");
            }
            else if ((pick -= duplicatesLeft) < 0 && sent.Count > 0)
            {
                duplicatesLeft--;
                yield return new MessageLine(number, sent[random.Next(sent.Count)], Sort: "repeated");
            }
            else if (pick < 0 || pick - earlyLeft >= 0 || earlyLeft == 0)
            {
                // A repetition that comes before there is anything to repeat changes places with an order.
                goodLeft--;
                var placed = waiting.Count > 0 ? waiting.Dequeue() : orderId;
                var message = MessageFile.Message(CommandType.Place, Encoding.UTF8.GetBytes(Place(placed, more: More())), $"web-{placed}", correlationId: $"cart-{placed}");
                if (sent.Count < Remembered)
                {
                    sent.Add(message);
                }
                else
                {
                    sent[random.Next(Remembered)] = message;
                }
                yield return new MessageLine(number, message, Sort: "orders");
            }
            else
            {
                earlyLeft--;
                waiting.Enqueue(orderId);
                var body = $$"""{"orderId":"{{orderId}}","carrier":"DHL","trackingNumber":"JD{{random.NextInt64(1_000_000_000, 9_999_999_999)}}"}""";
                yield return new MessageLine(number, MessageFile.Message(CommandType.Ship, Encoding.UTF8.GetBytes(body), $"ship-{orderId}", correlationId: $"cart-{orderId}"), Sort: "shipped before they are placed");
            }
        }
    }

    private static int Count(int total, double share, int most) => Math.Min(most, share <= 0 ? 0 : Math.Max(1, (int)Math.Round(total * share)));

    private string Place(string orderId, string? currency = null, string? firstLine = null, string more = "")
    {
        var (code, decimals) = Currencies[random.Next(Currencies.Length)];
        var lines = Enumerable.Range(0, random.Next(1, 4)).Select(_ => Line(decimals)).ToList();
        if (firstLine is not null)
        {
            lines[0] = firstLine;
        }
        return $$"""{"orderId":"{{orderId}}","customerId":"C-{{random.Next(1000, 9999)}}","currency":"{{currency ?? code}}","lines":[{{string.Join(',', lines)}}],"placedAt":"{{now.AddSeconds(-random.Next(600)):yyyy-MM-ddTHH:mm:ssZ}}"{{more}}}""";
    }

    /// <summary>What every third order says beyond its lines.</summary>
    private string More() => random.Next(3) > 0
        ? ""
        : $$"""
        ,"channel":"{{(random.Next(2) == 0 ? "web" : "app")}}","shippingCost":{{random.Next(4, 9)}},"shippingTax":{"rate":20,"included":true},"attributes":{"gift":"{{(random.Next(4) == 0 ? "yes" : "no")}}"},"externalReferences":{"cart":"{{random.Next(100_000, 999_999)}}"}
        """;

    private string Line(int decimals)
    {
        var (sku, cents) = Goods[random.Next(Goods.Length)];
        var price = decimals == 0 ? (cents * 1.6m / 100m * 100m).ToString("0", CultureInfo.InvariantCulture) : (cents / 100m).ToString("0.00", CultureInfo.InvariantCulture);
        return $$"""{"sku":"{{sku}}","quantity":{{random.Next(1, 4)}},"unitPrice":{{price}}}""";
    }

    private static OutgoingMessage Order(string body, string? type = CommandType.Place, string? key = null, string? contentType = "application/json", string? contentEncoding = null) =>
        MessageFile.Message(type, Encoding.UTF8.GetBytes(body), key, contentType: contentType, contentEncoding: contentEncoding);

    // One for each way a message goes wrong in practice: a truncated upload, an old client, a wrong price list, another system's message.
    private static readonly (string Sort, Func<SampleOrders, string, OutgoingMessage> Make)[] Poison =
    [
        (RejectionReason.MalformedJson, (sample, id) => Order(sample.Place(id)[..^20])),
        (RejectionReason.CurrencyUnknown, (sample, id) => Order(sample.Place(id, currency: "EURO"))),
        (RejectionReason.MissingField, (sample, id) => Order($$"""{"orderId":"{{id}}","currency":"EUR","lines":[{{sample.Line(2)}}]}""")),
        (RejectionReason.QuantityOutOfRange, (sample, id) => Order(sample.Place(id, "EUR", """{"sku":"USB-C-2M","quantity":0,"unitPrice":12.90}"""))),
        (RejectionReason.WrongType, (sample, id) => Order(sample.Place(id, "EUR", """{"sku":"USB-C-2M","quantity":"2","unitPrice":12.90}"""))),
        (RejectionReason.UnknownField, (sample, id) => Order(sample.Place(id, more: ",\"coupon\":\"SPRING\""))),
        (RejectionReason.AmountPrecision, (sample, id) => Order(sample.Place(id, "EUR", """{"sku":"USB-C-2M","quantity":1,"unitPrice":12.9049}"""))),
        (RejectionReason.AmountOutOfRange, (sample, id) => Order(sample.Place(id, "EUR", """{"sku":"USB-C-2M","quantity":1,"unitPrice":-12.90}"""))),
        (RejectionReason.IdInvalid, (sample, id) => Order(sample.Place("order " + id))),
        (RejectionReason.DuplicateField, (sample, id) => Order(sample.Place(id, more: ",\"currency\":\"EUR\""))),
        (RejectionReason.BodyEmpty, (_, id) => Order("", key: $"web-{id}")),
        (RejectionReason.TimeInvalid, (sample, id) => Order(sample.Place(id).Replace("\"placedAt\":\"2", "\"placedAt\":\"yesterday 2", StringComparison.Ordinal))),
        (RejectionReason.UnknownCommand, (sample, id) => Order(sample.Place(id), type: "order.create")),
        (RejectionReason.UnsupportedContentType, (_, id) => Order($"<order id=\"{id}\"/>", key: $"web-{id}", contentType: "application/xml")),
        (RejectionReason.UnsupportedContentEncoding, (sample, id) => Order(sample.Place(id), contentEncoding: "gzip")),
        (RejectionReason.InvalidEncoding, (_, id) => MessageFile.Message(CommandType.Place, [.. "{\"orderId\":\""u8, 0xE9, 0xFF, .. "\"}"u8], $"web-{id}")),
        (RejectionReason.DepthExceeded, (_, id) => Order($"{{\"orderId\":\"{id}\",\"lines\":{new string('[', 40)}{new string(']', 40)}}}")),
        (RejectionReason.TooManyLines, (_, id) => Order($$"""{"orderId":"{{id}}","customerId":"C-1000","currency":"EUR","lines":[{{string.Join(',', Enumerable.Repeat("{\"sku\":\"USB-C-2M\",\"quantity\":1,\"unitPrice\":12.90}", 501))}}]}""")),
    ];
}
