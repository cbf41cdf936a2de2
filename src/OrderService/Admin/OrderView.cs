using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>One order. What is personal is <c>***</c> for callers that may not see it (<c>Api:RequirePersonalScope</c>).</summary>
/// <param name="Forgotten">True when the customer was forgotten: what was personal is gone.</param>
/// <param name="BillingAddress"><c>{name?, company?, lines, city, region?, postalCode?, country}</c>, as it came.</param>
/// <param name="ShippingAddress">The same.</param>
/// <param name="PlacedAt">When the customer ordered, by the shop's clock, where the shop said so.</param>
/// <param name="Paid">The sum of all payments.</param>
/// <param name="Due">What of the total is still open; never below 0.</param>
/// <param name="Overpaid">What was paid beyond the total.</param>
/// <param name="PaymentReference">The payment that came last.</param>
/// <param name="Taxes">What of the total is tax, by rate.</param>
/// <param name="Authorized">What may be captured.</param>
/// <param name="Refunded">The sum of all refunds.</param>
/// <param name="Held">It is not shipped until it is released.</param>
/// <param name="PaidAmount">The same as <c>paid</c>; null as long as nothing was paid.</param>
internal sealed record OrderView(
    string OrderId, string Status, long Version, string? CustomerId, string? Currency, decimal? Total, decimal? Paid, decimal? Due, decimal? Overpaid, IReadOnlyList<OrderLineView> Lines,
    DateTimeOffset? PlacedAt, string? PaymentReference, decimal? PaidAmount, string? Carrier, string? TrackingNumber, string? CancelReason,
    DateTimeOffset RecordedAt, DateTimeOffset UpdatedAt,
    decimal? ShippingCost, TaxBody? ShippingTax, IReadOnlyList<DiscountBody> Discounts, IReadOnlyList<TaxView> Taxes, string? Channel, IReadOnlyDictionary<string, string> Attributes,
    IReadOnlyDictionary<string, string> ExternalReferences, string PaymentStatus, string FulfillmentStatus, decimal? Authorized, decimal? Refunded, bool Held, string? HoldReason,
    IReadOnlyList<PaymentView> Payments, IReadOnlyList<RefundView> Refunds, IReadOnlyList<ShipmentView> Shipments, IReadOnlyList<ReturnView> Returns,
    string? Email, string? Name, string? Phone, System.Text.Json.JsonElement? BillingAddress, System.Text.Json.JsonElement? ShippingAddress, bool? Forgotten)
{
    /// <param name="seesPersonal">What is personal is shown, and not only that there is some.</param>
    public static OrderView Of(string orderId, IReadOnlyList<RecordedEvent> stream, PersonalKeys keys, bool seesPersonal)
    {
        var order = Order.Fold(orderId, stream.Select(recorded => EventSerializer.Read(recorded.Type, recorded.Data.Span, keys.Open)));
        var personal = order.Personal is { } read ? PersonalMembers(read, seesPersonal) : [];
        System.Text.Json.JsonElement? Address(string name) => personal.TryGetValue(name, out var value) ? value : null;
        string? Text(string name) => Address(name)?.GetString();
        var details = order.Details ?? OrderDetails.None;
        var progress = order.Progress ?? OrderProgress.None;
        var goods = order.Goods;
        decimal? Amount(long minor) => order.Currency is { } currency ? Money.ToDecimal(minor, currency) : null;
        return new OrderView(
            orderId, order.Status.ToWire(), order.Version, order.CustomerId, order.Currency?.Code, Amount(order.TotalMinor),
            Amount(order.PaidMinor), Amount(order.DueMinor), Amount(order.OverpaidMinor),
            [.. order.Lines.Select((_, index) => OrderLineView.Of(order, goods[index], index))],
            order.PlacedAt, order.PaymentReference, order.PaymentReference is null ? null : Amount(order.PaidMinor), order.Carrier, order.TrackingNumber, order.CancelReason,
            DateTimeOffset.FromUnixTimeMilliseconds(stream[0].RecordedAt), DateTimeOffset.FromUnixTimeMilliseconds(stream[^1].RecordedAt),
            details.ShippingCost, TaxOf(details.ShippingTax), [.. details.Discounts.Select(discount => new DiscountBody(discount.Amount, discount.Code, discount.Name))],
            [.. details.Taxes.Select(tax => new TaxView(tax.Rate, tax.Included, tax.Amount))], details.Channel, details.Attributes.ToDictionary(), details.ExternalReferences.ToDictionary(),
            order.PaymentStatus.ToWire(), order.FulfillmentStatus.ToWire(), Amount(progress.AuthorizedMinor), Amount(progress.RefundedMinor), order.IsHeld, progress.HoldReason,
            [.. (order.Payments ?? []).OrderBy(payment => payment.Key, StringComparer.Ordinal).Select(payment => new PaymentView(payment.Key, Amount(payment.Value)))],
            [.. progress.Refunds.Select(refund => new RefundView(refund.RefundReference, Amount(refund.AmountMinor), refund.PaymentReference, refund.Reason))],
            [.. progress.Shipments.Select(shipment => new ShipmentView(shipment.ShipmentId, Quantities(shipment.Lines), shipment.Carrier, shipment.TrackingNumber, shipment.IsDelivered))],
            [.. progress.Returns.Select(back => new ReturnView(back.ReturnId, Quantities(back.Lines), back.Reason))],
            Text("email"), Text("name"), Text("phone"), Address("billingAddress"), Address("shippingAddress"), order.Personal?.IsForgotten == true ? true : null);
    }

    private static Dictionary<string, System.Text.Json.JsonElement> PersonalMembers(PersonalData personal, bool seesPersonal)
    {
        var output = new System.Buffers.ArrayBufferWriter<byte>();
        using (var writer = new System.Text.Json.Utf8JsonWriter(output))
        {
            writer.WriteStartObject();
            if (seesPersonal)
            {
                PersonalJson.WriteMembers(writer, personal);
            }
            else
            {
                PersonalJson.WriteMasked(writer, personal);
            }
            writer.WriteEndObject();
        }
        using var document = System.Text.Json.JsonDocument.Parse(output.WrittenMemory);
        return document.RootElement.EnumerateObject().ToDictionary(member => member.Name, member => member.Value.Clone());
    }

    private static IReadOnlyList<QuantityBody> Quantities(IReadOnlyList<LineQuantity> lines) => [.. lines.Select(line => new QuantityBody(line.LineId, line.Quantity))];

    internal static TaxBody? TaxOf(Tax? tax) => tax is null ? null : new TaxBody(tax.Rate, tax.Included, tax.Amount);
}

/// <summary>What of an order's total is tax, for one rate.</summary>
internal sealed record TaxView(decimal Rate, bool Included, decimal Amount);

internal sealed record PaymentView(string PaymentReference, decimal? Amount);

internal sealed record RefundView(string RefundReference, decimal? Amount, string? PaymentReference, string? Reason);

internal sealed record ShipmentView(string ShipmentId, IReadOnlyList<QuantityBody> Lines, string? Carrier, string? TrackingNumber, bool Delivered);

internal sealed record ReturnView(string ReturnId, IReadOnlyList<QuantityBody> Lines, string Reason);

/// <param name="LineId">The line's name in shipments, returns and cancellations.</param>
/// <param name="Open">Pieces that are neither shipped nor cancelled.</param>
internal sealed record OrderLineView(
    string Sku, int Quantity, decimal? UnitPrice, string LineId, string? Name, decimal? Discount, TaxBody? Tax, IReadOnlyDictionary<string, string> Attributes,
    int Shipped, int Cancelled, int Returned, int Open)
{
    public static OrderLineView Of(Order order, LineGoods goods, int index)
    {
        var line = order.Lines[index];
        return new OrderLineView(
            line.Sku, line.Quantity, order.Currency is { } currency ? Money.ToDecimal(line.UnitPriceMinor, currency) : null, LineIds.Of(order.Lines, index),
            line.Details?.Name, line.Details?.Discount, OrderView.TaxOf(line.Details?.Tax), line.Details?.Attributes.ToDictionary() ?? [],
            goods.Shipped, goods.Cancelled, goods.Returned, order.Status == OrderStatus.Cancelled ? 0 : goods.Open);
    }
}
