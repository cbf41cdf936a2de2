using System.Collections.Frozen;
using System.Text;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>Reads one member's value into the fields; false when it is rejected.</summary>
internal delegate bool MemberReader(ref CommandParser parser, CommandFields fields);

/// <summary>A member that commands may have.</summary>
internal sealed record CommandMember(string Name, MemberReader Read)
{
    public byte[] Utf8Name { get; } = Encoding.UTF8.GetBytes(Name);
}

/// <summary>What a command's members said. One for all commands: each has its own few.</summary>
internal sealed class CommandFields
{
    public string? OrderId;
    public string? PaymentReference;
    public decimal? Amount;
    public string? Carrier;
    public string? TrackingNumber;
    public string? Reason;
    public long? ExpectedVersion;
    public OrderDetails? Details;
    public string? CaptureReference;
    public string? RefundReference;
    public string? ShipmentId;
    public string? ReturnId;
    public IReadOnlyList<LineQuantity>? Quantities;
    public IReadOnlyList<AmendedLine>? Lines;
    public IReadOnlyList<KeyValuePair<string, string>>? Attributes;
    public IReadOnlyList<Discount>? Discounts;
    public decimal? ShippingCost;
    public decimal? Total;
}

/// <summary>
/// A command as it looks from outside. The parser reads by it; the HTTP endpoints, the OpenAPI document and the admin page are made of it, and the docs are checked against it.
/// </summary>
/// <param name="Type">The name in the AMQP property <c>type</c>.</param>
/// <param name="Verb">The last part of its address <c>/api/orders/{id}/...</c>; null for the one that places an order.</param>
/// <param name="Summary">What it does, in one sentence.</param>
/// <param name="Body">Its body for the OpenAPI document.</param>
/// <param name="Example">A body as <c>POST</c> takes it.</param>
/// <param name="Members">What it may say, beside the order's id and the expected version.</param>
/// <param name="Required">Which of them must be there.</param>
/// <param name="Build">Makes the command of the fields, once all that is required is there.</param>
internal sealed record CommandShape(
    string Type, string? Verb, string Summary, System.Type Body, string Example, CommandMember[] Members, (string Name, Func<CommandFields, bool> IsThere)[] Required, Func<CommandFields, OrderCommand> Build)
{
    /// <summary>The members for whoever sent an unknown one.</summary>
    public string Names { get; } = string.Join(", ", Members.Select(member => member.Name));

    /// <summary>Where it is sent over HTTP, below <c>/api</c>.</summary>
    public string Route => Verb is null ? "/orders" : $"/orders/{{id}}/{Verb}";

    public List<string> Missing(CommandFields fields) => [.. Required.Where(required => !required.IsThere(fields)).Select(required => required.Name)];
}

/// <summary>Every command, one row each. A new command is a row here, its record with its rule in the domain, and its body for the document.</summary>
internal static class CommandShapes
{
    private const int MaxReferenceLength = 128;
    private const int MaxCarrierLength = 64;
    private const int MaxTrackingNumberLength = 128;
    private const int MaxReasonLength = 500;

    private static readonly CommandMember OrderId = new("orderId", static (ref CommandParser parser, CommandFields fields) => parser.Id("orderId", out fields.OrderId));
    private static readonly CommandMember ExpectedVersion = new("expectedVersion", static (ref CommandParser parser, CommandFields fields) => parser.Version("expectedVersion", out fields.ExpectedVersion));
    private static readonly CommandMember PaymentReference = Text("paymentReference", MaxReferenceLength, static (fields, text) => fields.PaymentReference = text);
    private static readonly CommandMember Amount = new("amount", static (ref CommandParser parser, CommandFields fields) => parser.PaidAmount("amount", out fields.Amount));
    private static readonly CommandMember Carrier = Text("carrier", MaxCarrierLength, static (fields, text) => fields.Carrier = text);
    private static readonly CommandMember TrackingNumber = Text("trackingNumber", MaxTrackingNumberLength, static (fields, text) => fields.TrackingNumber = text);
    private static readonly CommandMember Reason = Text("reason", MaxReasonLength, static (fields, text) => fields.Reason = text);

    private static readonly CommandMember CaptureReference = Text("captureReference", MaxReferenceLength, static (fields, text) => fields.CaptureReference = text);
    private static readonly CommandMember RefundReference = Text("refundReference", MaxReferenceLength, static (fields, text) => fields.RefundReference = text);
    private static readonly CommandMember ShipmentId = new("shipmentId", static (ref CommandParser parser, CommandFields fields) => parser.Id("shipmentId", out fields.ShipmentId));
    private static readonly CommandMember ReturnId = new("returnId", static (ref CommandParser parser, CommandFields fields) => parser.Id("returnId", out fields.ReturnId));
    private static readonly CommandMember Quantities = new("lines", static (ref CommandParser parser, CommandFields fields) => parser.Quantities(out fields.Quantities));
    private static readonly CommandMember Lines = new("lines", static (ref CommandParser parser, CommandFields fields) => parser.AmendedLines(out fields.Lines));
    private static readonly CommandMember Attributes = new("attributes", static (ref CommandParser parser, CommandFields fields) => parser.Pairs("attributes", out fields.Attributes));
    private static readonly CommandMember ShippingCost = new("shippingCost", static (ref CommandParser parser, CommandFields fields) => parser.Exact("shippingCost", out fields.ShippingCost));
    private static readonly CommandMember Discounts = new("discounts", static (ref CommandParser parser, CommandFields fields) => parser.ReadDiscounts(out fields.Discounts));
    private static readonly CommandMember Total = new("total", static (ref CommandParser parser, CommandFields fields) => parser.Exact("total", out fields.Total));

    private static readonly (string, Func<CommandFields, bool>) NeedsAmount = ("amount", static fields => fields.Amount is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsRefundReference = ("refundReference", static fields => fields.RefundReference is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsReturnId = ("returnId", static fields => fields.ReturnId is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsQuantities = ("lines", static fields => fields.Quantities is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsAnyChange =
        ("lines", static fields => fields.Lines is not null || fields.Attributes is not null || fields.ShippingCost is not null || fields.Discounts is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsOrderId = ("orderId", static fields => fields.OrderId is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsPaymentReference = ("paymentReference", static fields => fields.PaymentReference is not null);
    private static readonly (string, Func<CommandFields, bool>) NeedsReason = ("reason", static fields => fields.Reason is not null);

    /// <summary>What an order may say beyond what nearly every order says: those members the parser reads by hand.</summary>
    public static CommandMember[] PlaceMore { get; } = [.. CommandParser.DetailMembers, ExpectedVersion];

    public static string PlaceNames { get; } = $"orderId, customerId, currency, lines, email, name, phone, billingAddress, shippingAddress, placedAt, {string.Join(", ", PlaceMore.Select(member => member.Name))}";

    /// <summary>In the order of an order's life.</summary>
    public static IReadOnlyList<CommandShape> All { get; } =
    [
        new(CommandType.Place, null, "Places an order.", typeof(PlaceBody),
            """{"orderId":"A-1001","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"anna@example.com","placedAt":"2026-01-05T10:00:00Z"}""",
            [], [], static _ => throw new System.Diagnostics.UnreachableException("The parser reads an order by hand.")),
        Row(CommandType.Authorize, "authorize", "Records that money is set aside for an order.", typeof(AuthorizeBody),
            """{"paymentReference":"AUTH-778","amount":99.80}""",
            [PaymentReference, Amount], [NeedsPaymentReference, NeedsAmount],
            static fields => new OrderCommand.Authorize(fields.OrderId!, fields.PaymentReference!, fields.Amount!.Value)),
        Row(CommandType.Capture, "capture", "Records that authorized money was taken.", typeof(CaptureBody),
            """{"paymentReference":"AUTH-778","captureReference":"CAP-1","amount":49.90}""",
            [PaymentReference, CaptureReference, Amount], [NeedsPaymentReference],
            static fields => new OrderCommand.Capture(fields.OrderId!, fields.PaymentReference!, fields.CaptureReference, fields.Amount)),
        Row(CommandType.Pay, "pay", "Records a payment.", typeof(PayBody),
            """{"paymentReference":"PAY-778","amount":99.80}""",
            [PaymentReference, Amount], [NeedsPaymentReference],
            static fields => new OrderCommand.Pay(fields.OrderId!, fields.PaymentReference!, fields.Amount)),
        Row(CommandType.Amend, "amend", "Changes what is ordered, before anything is shipped.", typeof(AmendBody),
            """{"lines":[{"sku":"KB-01","quantity":3,"unitPrice":49.90}],"attributes":{"gift":"yes"}}""",
            [Lines, Attributes, ShippingCost, Discounts, Total], [NeedsAnyChange],
            static fields => new OrderCommand.Amend(fields.OrderId!, fields.Lines, fields.Attributes, fields.ShippingCost, fields.Discounts, fields.Total)),
        Row(CommandType.Hold, "hold", "Keeps an order from being shipped.", typeof(HoldBody),
            """{"reason":"The address is checked."}""",
            [Reason], [NeedsReason],
            static fields => new OrderCommand.Hold(fields.OrderId!, fields.Reason!)),
        Row(CommandType.Release, "release", "Lets a held order be shipped again.", typeof(ReleaseBody),
            """{"orderId":"A-1001"}""",
            [], [],
            static fields => new OrderCommand.Release(fields.OrderId!)),
        Row(CommandType.Ship, "ship", "Ships an order, or a part of it.", typeof(ShipBody),
            """{"carrier":"DHL","trackingNumber":"00340434161094042557"}""",
            [Carrier, TrackingNumber, ShipmentId, Quantities], [],
            static fields => new OrderCommand.Ship(fields.OrderId!, fields.Carrier, fields.TrackingNumber, fields.ShipmentId, fields.Quantities)),
        Row(CommandType.Deliver, "deliver", "Records that an order, or one of its shipments, arrived.", typeof(DeliverBody),
            """{"orderId":"A-1001"}""",
            [ShipmentId], [],
            static fields => new OrderCommand.Deliver(fields.OrderId!, fields.ShipmentId)),
        Row(CommandType.Return, "return", "Records that goods came back.", typeof(ReturnBody),
            """{"returnId":"R-1","lines":[{"lineId":"1","quantity":1}],"reason":"Too small."}""",
            [ReturnId, Quantities, Reason], [NeedsReturnId, NeedsQuantities, NeedsReason],
            static fields => new OrderCommand.Return(fields.OrderId!, fields.ReturnId!, fields.Quantities!, fields.Reason!)),
        Row(CommandType.Cancel, "cancel", "Cancels an order, or a part of it.", typeof(CancelBody),
            """{"reason":"The customer changed her mind."}""",
            [Reason, Quantities], [NeedsReason],
            static fields => new OrderCommand.Cancel(fields.OrderId!, fields.Reason!, fields.Quantities)),
        Row(CommandType.Refund, "refund", "Records that money went back.", typeof(RefundBody),
            """{"refundReference":"REF-1","amount":49.90,"paymentReference":"PAY-778","reason":"One piece came back."}""",
            [RefundReference, Amount, PaymentReference, Reason], [NeedsRefundReference, NeedsAmount],
            static fields => new OrderCommand.Refund(fields.OrderId!, fields.RefundReference!, fields.Amount!.Value, fields.PaymentReference, fields.Reason)),
    ];

    private static readonly FrozenDictionary<string, CommandShape> ByType = All.ToFrozenDictionary(shape => shape.Type, StringComparer.Ordinal);

    /// <exception cref="KeyNotFoundException">There is no such command: nothing is ever read as another one.</exception>
    public static CommandShape Of(string type) => ByType[type];

    private static CommandShape Row(
        string type, string verb, string summary, System.Type body, string example, CommandMember[] members, (string, Func<CommandFields, bool>)[] required, Func<CommandFields, OrderCommand> build) =>
        new(type, verb, summary, body, example, [OrderId, .. members, ExpectedVersion], [NeedsOrderId, .. required], fields => build(fields) with { ExpectedVersion = fields.ExpectedVersion });

    private static CommandMember Text(string name, int maxLength, Action<CommandFields, string?> set) => new(
        name,
        (ref CommandParser parser, CommandFields fields) =>
        {
            var read = parser.Text(name, maxLength, out var text);
            set(fields, text);
            return read;
        });
}
