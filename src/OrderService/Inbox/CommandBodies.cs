namespace OrderService.Inbox;

// The commands' bodies for the OpenAPI document alone: the parser reads by CommandShapes.

/// <param name="Lines">1 to 500.</param>
/// <param name="Currency">ISO 4217.</param>
/// <param name="Email">Where the customer is written to.</param>
/// <param name="PlacedAt">When the customer ordered.</param>
/// <param name="ShippingCost">Added to the total.</param>
/// <param name="ShippingTax">The tax upon the shipping cost.</param>
/// <param name="Discounts">Taken off the total, at most 50.</param>
/// <param name="Total">What the order costs by the shop's sum; must agree with ours.</param>
/// <param name="Attributes">Up to 50 pairs of the shop's own; keys of up to 40, values of up to 500 characters. They are published.</param>
/// <param name="Channel">Where it was sold.</param>
/// <param name="ExternalReferences">What the order is called elsewhere, by the kind of name; as attributes.</param>
/// <param name="ExpectedVersion">0: the order must not exist yet.</param>
internal sealed record PlaceBody(
    string OrderId, string CustomerId, string Currency, IReadOnlyList<PlaceLine> Lines, string? Email = null, DateTimeOffset? PlacedAt = null,
    decimal? ShippingCost = null, TaxBody? ShippingTax = null, IReadOnlyList<DiscountBody>? Discounts = null, decimal? Total = null, IReadOnlyDictionary<string, string>? Attributes = null,
    string? Channel = null, IReadOnlyDictionary<string, string>? ExternalReferences = null, long? ExpectedVersion = null);

/// <param name="Quantity">1 to 1,000,000.</param>
/// <param name="UnitPrice">0 or more, with at most the currency's decimals.</param>
/// <param name="LineId">The line's name in shipments, returns and cancellations; its place, counted from 1, when absent.</param>
/// <param name="Discount">Taken off the whole line.</param>
/// <param name="Attributes">As those of the order.</param>
internal sealed record PlaceLine(
    string Sku, int Quantity, decimal UnitPrice, string? LineId = null, string? Name = null, decimal? Discount = null, TaxBody? Tax = null, IReadOnlyDictionary<string, string>? Attributes = null);

/// <param name="Rate">In percent, 0 to 100 with at most four decimals.</param>
/// <param name="Included">The price holds the tax; else it comes on top.</param>
/// <param name="Amount">Computed when absent.</param>
internal sealed record TaxBody(decimal Rate, bool Included, decimal? Amount = null);

/// <param name="Code">The coupon.</param>
internal sealed record DiscountBody(decimal Amount, string? Code = null, string? Name = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
internal sealed record PayBody(string PaymentReference, decimal? Amount = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
internal sealed record AuthorizeBody(string PaymentReference, decimal Amount, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="PaymentReference">The authorization.</param>
/// <param name="CaptureReference">What the payment is called; as the authorization when absent.</param>
/// <param name="Amount">All that is left of the authorization when absent.</param>
internal sealed record CaptureBody(string PaymentReference, string? CaptureReference = null, decimal? Amount = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="PaymentReference">The payment it is of.</param>
internal sealed record RefundBody(string RefundReference, decimal Amount, string? PaymentReference = null, string? Reason = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="ShipmentId">What the shipment is called; numbered when absent.</param>
/// <param name="Lines">What is in it; all that is open when absent.</param>
internal sealed record ShipBody(
    string? Carrier = null, string? TrackingNumber = null, string? ShipmentId = null, IReadOnlyList<QuantityBody>? Lines = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="LineId">The line's name, or its place, counted from 1.</param>
/// <param name="Quantity">1 to 1,000,000.</param>
internal sealed record QuantityBody(string LineId, int Quantity);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="ShipmentId">The shipment that arrived; the whole order when absent.</param>
internal sealed record DeliverBody(string? OrderId = null, string? ShipmentId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
internal sealed record ReturnBody(string ReturnId, IReadOnlyList<QuantityBody> Lines, string Reason, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="Lines">What is cancelled; the whole order when absent.</param>
internal sealed record CancelBody(string Reason, IReadOnlyList<QuantityBody>? Lines = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
/// <param name="Lines">All lines as they are from now on.</param>
/// <param name="Attributes">All attributes as they are from now on.</param>
internal sealed record AmendBody(
    IReadOnlyList<PlaceLine>? Lines = null, IReadOnlyDictionary<string, string>? Attributes = null, decimal? ShippingCost = null, IReadOnlyList<DiscountBody>? Discounts = null,
    decimal? Total = null, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
internal sealed record HoldBody(string Reason, string? OrderId = null, long? ExpectedVersion = null);

/// <param name="OrderId">May be left out: the address names the order.</param>
internal sealed record ReleaseBody(string? OrderId = null, long? ExpectedVersion = null);
