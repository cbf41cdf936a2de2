namespace OrderService.Domain;

/// <summary>Where an order stands. <see cref="None"/> is the order nobody has placed yet.</summary>
public enum OrderStatus
{
    None,
    Placed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
}

/// <summary>The statuses as they are written in JSON, in the store and in queries: lower case, one word.</summary>
public static class OrderStatusNames
{
    public const string None = "none";
    public const string Placed = "placed";
    public const string Paid = "paid";
    public const string Shipped = "shipped";
    public const string Delivered = "delivered";
    public const string Cancelled = "cancelled";

    /// <summary>The written name of <paramref name="status"/>, for example <c>placed</c>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the statuses.</exception>
    public static string ToWire(this OrderStatus status) => status switch
    {
        OrderStatus.None => None,
        OrderStatus.Placed => Placed,
        OrderStatus.Paid => Paid,
        OrderStatus.Shipped => Shipped,
        OrderStatus.Delivered => Delivered,
        OrderStatus.Cancelled => Cancelled,
        _ => throw new ArgumentOutOfRangeException(nameof(status), status, "Not an order status."),
    };

    /// <summary>Reads a written name back; false for anything else, other letter cases included.</summary>
    public static bool TryParse(string? name, out OrderStatus status)
    {
        OrderStatus? found = name switch
        {
            None => OrderStatus.None,
            Placed => OrderStatus.Placed,
            Paid => OrderStatus.Paid,
            Shipped => OrderStatus.Shipped,
            Delivered => OrderStatus.Delivered,
            Cancelled => OrderStatus.Cancelled,
            _ => null,
        };
        status = found ?? OrderStatus.None;
        return found is not null;
    }
}
