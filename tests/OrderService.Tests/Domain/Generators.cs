using CsCheck;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

/// <summary>Everything valid that there is, for the property tests.</summary>
internal static class Generators
{
    public static Gen<string> Id { get; } =
        Gen.Char["ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"].Array[1, 64].Select(letters => new string(letters));

    /// <summary>Free text in several scripts, with what JSON has to escape.</summary>
    public static Gen<string> Text { get; } = Gen
        .OneOf(
            Gen.Char['a', 'z'].Select(letter => letter.ToString()),
            Gen.OneOf("\"", "\\", "/", "<", "&", "+", "'", "\n", "\t", " ", "ä", "ß", "日", "ה", "\u200f", "😀", "\u2028", "\uffff"))
        .Array[0, 20]
        .Select(parts => "x" + string.Concat(parts));

    public static Gen<Currency> AnyCurrency { get; } = Gen.Int[0, Currency.All.Count - 1].Select(index => Currency.All[index]);

    public static Gen<DateTimeOffset?> Time { get; } = Gen.Select(
        Gen.Long[0, (new DateTime(2100, 12, 30) - new DateTime(2000, 1, 2)).Ticks], Gen.Int[-14 * 60, 14 * 60], Gen.Bool,
        (ticks, offset, absent) => absent
            ? (DateTimeOffset?)null
            : new DateTimeOffset(new DateTime(2000, 1, 2).AddTicks(ticks), TimeSpan.FromMinutes(offset)));

    public static Gen<OrderLine> Line { get; } = Gen.Select(
        Id, Gen.Int[1, 1_000_000], Gen.Long[0, 1_000_000], (sku, quantity, price) => new OrderLine(sku, quantity, price));

    /// <summary>What somebody says about himself, or does not.</summary>
    public static Gen<PersonalData?> Personal => Gen.Select(
        Email, Optional(Text), Address, Address, (email, name, billing, shipping) => PersonalData.Of(name?.Replace('\n', ' ').Replace('\t', ' '), email, email is null ? null : "+49 30 1234567", billing, shipping));

    public static Gen<PostalAddress?> Address => Gen.Select(
        Gen.OneOf("Am Ring 7", "Bâtiment C, 3ᵉ étage", "〒100-8111 千代田1-1"), Gen.Int[0, 4], Gen.OneOf<string?>(null, "BY"), Gen.OneOf("DE", "FR", "JP"),
        (line, lines, region, country) => lines == 0 ? null : new PostalAddress(
            region is null ? "Anna Muster" : null, region, [.. Enumerable.Repeat(line, lines)], "Köln", region, region is null ? "50667" : null, country));

    public static Gen<string?> Email { get; } = Gen.OneOf<string?>(null, "someone@example.org", "o'neil+shop@mail.example.co.uk", "jürgen@bücher.example");

    /// <summary>What a command says about one of two orders, so that commands meet.</summary>
    public static Gen<OrderCommand> Command { get; } = CommandFor(Gen.OneOf(Gen.Const("A-1"), Id));

    public static Gen<OrderCommand.Place> Place { get; } = PlaceFor(Id);

    public static Gen<OrderEvent> Event { get; } = Gen.OneOf<OrderEvent>(
        PlaceFor(Id).Select(OrderEvent (place) =>
            new OrderEvent.Placed(place.CustomerId, place.Currency, place.Lines, Total(place.Lines), place.Personal, place.PlacedAt)),
        DetailedPlaceFor(Id).Select(Priced),
        Gen.Select(Text, Amount(), OrderEvent (reference, amount) => new OrderEvent.Paid(reference, amount)),
        Gen.Select(Text, Amount(), Amount(), OrderEvent (reference, amount, overpaid) =>
            new OrderEvent.PaymentReceived(reference, amount ?? 0m, amount ?? 0m, overpaid ?? 0.10m, overpaid)),
        Gen.Select(Optional(Text), Optional(Text), OrderEvent (carrier, tracking) => new OrderEvent.Shipped(carrier, tracking)),
        Gen.Const<OrderEvent>(new OrderEvent.Delivered()),
        Gen.Select(Text, Amount(), OrderEvent (reference, amount) => new OrderEvent.PaymentAuthorized(reference, amount ?? 0m, amount ?? 1m)),
        Gen.Select(Text, Amount(), Optional(Text), OrderEvent (reference, amount, other) => new OrderEvent.Refunded(reference, amount ?? 0m, amount ?? 1m, other, other)),
        Gen.Select(Id, Quantities(), Optional(Text), OrderEvent (id, lines, text) => new OrderEvent.PartlyShipped(id, lines, text, text)),
        Gen.Select(Id, Quantities(), Optional(Text), OrderEvent (id, lines, text) => new OrderEvent.Shipped(text, text) { ShipmentId = id, Lines = lines }),
        Id.Select(OrderEvent (id) => new OrderEvent.ShipmentDelivered(id)),
        Id.Select(OrderEvent (id) => new OrderEvent.Delivered { ShipmentId = id }),
        Gen.Select(Id, Quantities(), Text, OrderEvent (id, lines, text) => new OrderEvent.Returned(id, lines, text)),
        Gen.Select(Quantities(), Text, Amount(), OrderEvent (lines, text, amount) => new OrderEvent.LinesCancelled(lines, text, amount ?? 0m, amount ?? 1m)),
        DetailedPlaceFor(Id).Select(OrderEvent (place) => Priced(place) is OrderEvent.Placed placed ? new OrderEvent.Amended(placed.Currency, placed.Lines, placed.TotalMinor, placed.Details) : throw new InvalidOperationException()),
        Text.Select(OrderEvent (reason) => new OrderEvent.Held(reason)),
        Gen.Const<OrderEvent>(new OrderEvent.Released()),
        Text.Select(OrderEvent (reason) => new OrderEvent.Cancelled(reason)));

    /// <summary>An order with everything that it may have beyond its lines; amounts fit every currency.</summary>
    public static Gen<OrderCommand.Place> DetailedPlace { get; } = DetailedPlaceFor(Id);

    private static Gen<OrderCommand.Place> DetailedPlaceFor(Gen<string> orderId) => Gen.Select(
        PlaceFor(orderId), Optional(Text), Gen.Int[0, 9].Nullable(), Rate().Array[9], Pairs(), Gen.Bool.Array[9], Gen.Long[0, 9].Nullable(),
        (place, text, whole, rates, pairs, flags, version) => place with
        {
            Lines = [.. place.Lines.Select((line, index) => line with
            {
                Quantity = line.Quantity % 1000 + 1,
                UnitPriceMinor = line.UnitPriceMinor + 100_000,
                Details = flags[index % 9] ? null : new LineDetails
                {
                    LineId = flags[(index + 1) % 9] ? $"line-{index}" : null,
                    Name = text,
                    Discount = whole,
                    Tax = flags[(index + 2) % 9] ? null : new Tax(rates[index % 9], flags[(index + 3) % 9] ? null : whole ?? 1, flags[(index + 4) % 9]),
                    Attributes = pairs,
                },
            })],
            Details = flags[0] ? null : new OrderDetails
            {
                ShippingCost = whole + 3,
                ShippingTax = whole is null ? null : new Tax(rates[0], null, flags[1]),
                Discounts = flags[2] ? [] : [new Discount(1, null, text), new Discount(0, text, null)],
                Channel = text,
                Attributes = pairs,
                ExternalReferences = pairs,
            },
            ExpectedVersion = version,
        });

    private static Gen<IReadOnlyList<KeyValuePair<string, string>>> Pairs() => Gen.Select(Text, Text.Array[0, 3],
        (_, values) => (IReadOnlyList<KeyValuePair<string, string>>)[.. values.Select((value, index) => new KeyValuePair<string, string>($"key {index} <&ä", value))]);

    // Without zeros at the end: that is how a number is written.
    private static Gen<decimal> Rate() => Gen.OneOf(0m, 5.5m, 7m, 7.7m, 8.875m, 19m, 20m, 100m);

    private static Gen<OrderCommand> CommandFor(Gen<string> orderId) => Gen.OneOf<OrderCommand>(
        PlaceFor(orderId).Select(OrderCommand (place) => place),
        DetailedPlaceFor(orderId).Select(OrderCommand (place) => place),
        RareCommandFor(orderId),
        Gen.Select(orderId, Text, Amount(), OrderCommand (id, reference, amount) => new OrderCommand.Pay(id, reference, amount)),
        Gen.Select(orderId, Optional(Text), Optional(Text), OrderCommand (id, carrier, tracking) => new OrderCommand.Ship(id, carrier, tracking)),
        orderId.Select(OrderCommand (id) => new OrderCommand.Deliver(id)),
        Gen.Select(orderId, Text, OrderCommand (id, reason) => new OrderCommand.Cancel(id, reason)));

    private static Gen<IReadOnlyList<LineQuantity>> Quantities() => Gen.Select(Id, Gen.Int[1, 1_000_000], Gen.Bool, (id, quantity, two) =>
        (IReadOnlyList<LineQuantity>)(two ? [new(id, quantity), new(id.Length > 60 ? "second" : id + "-2", 1)] : [new("1", quantity)]));

    private static Gen<OrderCommand> RareCommandFor(Gen<string> orderId) => Gen.OneOf<OrderCommand>(
        Gen.Select(orderId, Text, Amount(), OrderCommand (id, reference, amount) => new OrderCommand.Authorize(id, reference, amount ?? 1m)),
        Gen.Select(orderId, Text, Optional(Text), Amount(), OrderCommand (id, reference, capture, amount) => new OrderCommand.Capture(id, reference, capture, amount)),
        Gen.Select(orderId, Text, Amount(), Optional(Text), OrderCommand (id, reference, amount, text) => new OrderCommand.Refund(id, reference, amount ?? 1m, text, text)),
        Gen.Select(orderId, Optional(Id), Quantities(), Optional(Text), OrderCommand (id, shipment, lines, text) => new OrderCommand.Ship(id, text, text, shipment, lines)),
        Gen.Select(orderId, Id, OrderCommand (id, shipment) => new OrderCommand.Deliver(id, shipment)),
        Gen.Select(orderId, Id, Quantities(), Text, OrderCommand (id, back, lines, text) => new OrderCommand.Return(id, back, lines, text)),
        Gen.Select(orderId, Quantities(), Text, OrderCommand (id, lines, text) => new OrderCommand.Cancel(id, text, lines)),
        Gen.Select(orderId, Text, OrderCommand (id, text) => new OrderCommand.Hold(id, text)),
        orderId.Select(OrderCommand (id) => new OrderCommand.Release(id)),
        Gen.Select(orderId, DetailedPlaceFor(Id), Pairs(), Gen.Bool, OrderCommand (id, place, pairs, other) => new OrderCommand.Amend(
            id, other ? null : [.. place.Lines.Select((line, index) => new AmendedLine(line.Sku, line.Quantity, line.UnitPriceMinor, line.Details))], other ? pairs : null, other ? 4.9m : null, other ? [] : null, other ? null : 7m)));

    private static Gen<OrderCommand.Place> PlaceFor(Gen<string> orderId) => Gen.Select(
        orderId, Id, AnyCurrency, Line.Array[1, 8], Personal, Time,
        (id, customer, currency, lines, personal, time) => new OrderCommand.Place(id, customer, currency, lines, personal, time));

    private static Gen<decimal?> Amount() => Gen.Select(
        Gen.Long[1, Money.MaxMinor], Gen.Int[0, Money.MaxDecimals], Gen.Bool,
        (minor, decimals, absent) => absent ? (decimal?)null : new decimal((int)minor, (int)(minor >> 32), 0, false, (byte)decimals));

    private static Gen<string?> Optional(Gen<string> text) => Gen.Select(text, Gen.Bool, (value, absent) => absent ? null : value);

    private static OrderEvent Priced(OrderCommand.Place place) =>
        OrderDecider.Decide(Order.None(place.OrderId), place with { ExpectedVersion = null }, OrderRules.Default) is Decision.Accepted accepted
            ? accepted.Event
            : throw new InvalidOperationException("The generated order can't be priced.");

    private static long Total(IReadOnlyList<OrderLine> lines) => Money.TryTotal(lines, out var total) ? total : 0;
}
