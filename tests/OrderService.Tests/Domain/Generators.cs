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

    public static Gen<string?> Email { get; } = Gen.OneOf<string?>(null, "someone@example.org", "o'neil+shop@mail.example.co.uk", "jürgen@bücher.example");

    /// <summary>What a command says about one of two orders, so that commands meet.</summary>
    public static Gen<OrderCommand> Command { get; } = CommandFor(Gen.OneOf(Gen.Const("A-1"), Id));

    public static Gen<OrderCommand.Place> Place { get; } = PlaceFor(Id);

    public static Gen<OrderEvent> Event { get; } = Gen.OneOf<OrderEvent>(
        PlaceFor(Id).Select(OrderEvent (place) =>
            new OrderEvent.Placed(place.CustomerId, place.Currency, place.Lines, Total(place.Lines), place.Email, place.PlacedAt)),
        Gen.Select(Text, Amount(), OrderEvent (reference, amount) => new OrderEvent.Paid(reference, amount)),
        Gen.Select(Text, Amount(), Amount(), OrderEvent (reference, amount, overpaid) =>
            new OrderEvent.PaymentReceived(reference, amount ?? 0m, amount ?? 0m, overpaid ?? 0.10m, overpaid)),
        Gen.Select(Optional(Text), Optional(Text), OrderEvent (carrier, tracking) => new OrderEvent.Shipped(carrier, tracking)),
        Gen.Const<OrderEvent>(new OrderEvent.Delivered()),
        Text.Select(OrderEvent (reason) => new OrderEvent.Cancelled(reason)));

    private static Gen<OrderCommand> CommandFor(Gen<string> orderId) => Gen.OneOf<OrderCommand>(
        PlaceFor(orderId).Select(OrderCommand (place) => place),
        Gen.Select(orderId, Text, Amount(), OrderCommand (id, reference, amount) => new OrderCommand.Pay(id, reference, amount)),
        Gen.Select(orderId, Optional(Text), Optional(Text), OrderCommand (id, carrier, tracking) => new OrderCommand.Ship(id, carrier, tracking)),
        orderId.Select(OrderCommand (id) => new OrderCommand.Deliver(id)),
        Gen.Select(orderId, Text, OrderCommand (id, reason) => new OrderCommand.Cancel(id, reason)));

    private static Gen<OrderCommand.Place> PlaceFor(Gen<string> orderId) => Gen.Select(
        orderId, Id, AnyCurrency, Line.Array[1, 8], Email, Time,
        (id, customer, currency, lines, email, time) => new OrderCommand.Place(id, customer, currency, lines, email, time));

    private static Gen<decimal?> Amount() => Gen.Select(
        Gen.Long[1, Money.MaxMinor], Gen.Int[0, Money.MaxDecimals], Gen.Bool,
        (minor, decimals, absent) => absent ? (decimal?)null : new decimal((int)minor, (int)(minor >> 32), 0, false, (byte)decimals));

    private static Gen<string?> Optional(Gen<string> text) => Gen.Select(text, Gen.Bool, (value, absent) => absent ? null : value);

    private static long Total(IReadOnlyList<OrderLine> lines) => Money.TryTotal(lines, out var total) ? total : 0;
}
