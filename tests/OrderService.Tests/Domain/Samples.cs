using System.Globalization;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

/// <summary>Small examples of everything the domain has.</summary>
internal static class Samples
{
    public static Currency Euro { get; } = Currency.TryGet("EUR", out var euro) ? euro : throw new InvalidOperationException();

    public static OrderCommand.Place Place { get; } = new(
        "A-1", "C-7", Euro, [new OrderLine("KB-01", 2, 49_90)], new PersonalData { Email = "someone@example.org" }, new DateTimeOffset(2026, 1, 31, 12, 0, 0, TimeSpan.FromHours(1)));

    public static OrderEvent.Placed Placed { get; } = new(Place.CustomerId, Euro, Place.Lines, 99_80, Place.Personal, Place.PlacedAt);

    /// <summary>What <see cref="OrderThatIs"/> paid has been paid by.</summary>
    public static IReadOnlyList<OrderEvent> Payments { get; } =
        [new OrderEvent.PaymentReceived("P-0", 99.80m, 99.80m, 0.00m, null), new OrderEvent.Paid("P-0", 99.80m)];

    public static OrderCommand Command(string type) => type switch
    {
        CommandType.Place => Place,
        CommandType.Pay => new OrderCommand.Pay("A-1", "P-1", 99.80m),
        CommandType.Ship => new OrderCommand.Ship("A-1", "DHL", "T-1"),
        CommandType.Deliver => new OrderCommand.Deliver("A-1"),
        CommandType.Authorize => new OrderCommand.Authorize("A-1", "AUTH-1", 99.80m),
        CommandType.Capture => new OrderCommand.Capture("A-1", "AUTH-1", null, null),
        CommandType.Amend => new OrderCommand.Amend("A-1", null, [new("gift", "yes")], null, null, null),
        CommandType.Hold => new OrderCommand.Hold("A-1", "fraud?"),
        CommandType.Release => new OrderCommand.Release("A-1"),
        CommandType.Return => new OrderCommand.Return("A-1", "R-1", [new("1", 1)], "too small"),
        CommandType.Refund => new OrderCommand.Refund("A-1", "REF-1", 1m, null, null),
        CommandType.Cancel => new OrderCommand.Cancel("A-1", "changed my mind"),
        _ => throw new ArgumentOutOfRangeException(nameof(type), type, "There is no such command."),
    };

    public static Order OrderThatIs(string status) => Order.Fold("A-1", status switch
    {
        "none" => [],
        "placed" => [Placed],
        "paid" => [Placed, .. Payments],
        "shipped" => [Placed, new OrderEvent.Shipped("DHL", "T-1")],
        "delivered" => [Placed, new OrderEvent.Shipped(null, null), new OrderEvent.Delivered()],
        _ => new OrderEvent[] { Placed, new OrderEvent.Cancelled("changed my mind") },
    });

    public static decimal Decimal(string text) => decimal.Parse(text, CultureInfo.InvariantCulture);

    public static string? Text(decimal? amount) => amount?.ToString(CultureInfo.InvariantCulture);
}
