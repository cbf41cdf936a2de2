using System.Text.Json;
using OrderService.Domain;
using static OrderService.Store.OrderJson;

namespace OrderService.Store;

/// <summary>The data of events beyond the plain course from placed to delivered. They are rare, so they share one set of members.</summary>
internal static class ProgressJson
{
    /// <summary>Writes the members of such an event; false for any other.</summary>
    public static bool TryWrite(OrderEvent happened, Utf8JsonWriter writer)
    {
        switch (happened)
        {
            case OrderEvent.PaymentAuthorized authorized:
                writer.WriteString("paymentReference"u8, authorized.PaymentReference);
                writer.WriteNumber("amount"u8, authorized.Amount);
                writer.WriteNumber("authorized"u8, authorized.TotalAuthorized);
                break;

            case OrderEvent.Refunded refunded:
                writer.WriteString("refundReference"u8, refunded.RefundReference);
                writer.WriteNumber("amount"u8, refunded.Amount);
                writer.WriteNumber("refunded"u8, refunded.TotalRefunded);
                WriteOptional(writer, "paymentReference"u8, refunded.PaymentReference);
                WriteOptional(writer, "reason"u8, refunded.Reason);
                break;

            case OrderEvent.PartlyShipped shipped:
                writer.WriteString("shipmentId"u8, shipped.ShipmentId);
                WriteQuantities(shipped.Lines, writer);
                WriteOptional(writer, "carrier"u8, shipped.Carrier);
                WriteOptional(writer, "trackingNumber"u8, shipped.TrackingNumber);
                break;

            case OrderEvent.ShipmentDelivered delivered:
                writer.WriteString("shipmentId"u8, delivered.ShipmentId);
                break;

            case OrderEvent.Returned returned:
                writer.WriteString("returnId"u8, returned.ReturnId);
                WriteQuantities(returned.Lines, writer);
                writer.WriteString("reason"u8, returned.Reason);
                break;

            case OrderEvent.LinesCancelled cancelled:
                WriteQuantities(cancelled.Lines, writer);
                writer.WriteString("reason"u8, cancelled.Reason);
                writer.WriteNumber("amount"u8, cancelled.Amount);
                writer.WriteNumber("total"u8, cancelled.Total);
                break;

            case OrderEvent.Held held:
                writer.WriteString("reason"u8, held.Reason);
                break;

            case OrderEvent.Released:
                break;

            default:
                return false;
        }

        return true;
    }

    /// <summary>Whether this is one of the types of <see cref="TryWrite"/>.</summary>
    public static bool Knows(string type) => type is EventType.PaymentAuthorized or EventType.Refunded or EventType.PartlyShipped or EventType.ShipmentDelivered
        or EventType.Returned or EventType.LinesCancelled or EventType.Held or EventType.Released;

    /// <param name="reader">At the start of the object.</param>
    /// <returns>Null when a member is missing.</returns>
    public static OrderEvent? Read(string type, ref Utf8JsonReader reader)
    {
        var read = ReadMembers(ref reader);
        return type switch
        {
            EventType.PaymentAuthorized when read is { PaymentReference: { } reference, Amount: { } amount, Authorized: { } sum } => new OrderEvent.PaymentAuthorized(reference, amount, sum),
            EventType.Refunded when read is { RefundReference: { } reference, Amount: { } amount, Refunded: { } sum } =>
                new OrderEvent.Refunded(reference, amount, sum, read.PaymentReference, read.Reason),
            EventType.PartlyShipped when read is { ShipmentId: { } id, Lines: { } lines } => new OrderEvent.PartlyShipped(id, lines, read.Carrier, read.TrackingNumber),
            EventType.ShipmentDelivered when read is { ShipmentId: { } id } => new OrderEvent.ShipmentDelivered(id),
            EventType.Returned when read is { ReturnId: { } id, Lines: { } lines, Reason: { } reason } => new OrderEvent.Returned(id, lines, reason),
            EventType.LinesCancelled when read is { Lines: { } lines, Reason: { } reason, Amount: { } amount, Total: { } total } => new OrderEvent.LinesCancelled(lines, reason, amount, total),
            EventType.Held when read is { Reason: { } reason } => new OrderEvent.Held(reason),
            EventType.Released => new OrderEvent.Released(),
            _ => null,
        };
    }

    public static void WriteQuantities(IReadOnlyList<LineQuantity> lines, Utf8JsonWriter writer)
    {
        writer.WriteStartArray("lines"u8);
        foreach (var line in lines)
        {
            writer.WriteStartObject();
            writer.WriteString("lineId"u8, line.LineId);
            writer.WriteNumber("quantity"u8, line.Quantity);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    public static List<LineQuantity> ReadQuantities(ref Utf8JsonReader reader)
    {
        var lines = new List<LineQuantity>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            var id = "";
            var quantity = 0;
            while (NextMember(ref reader))
            {
                if (Is(ref reader, "lineId"u8))
                {
                    id = reader.GetString()!;
                }
                else if (Is(ref reader, "quantity"u8))
                {
                    quantity = reader.GetInt32();
                }
                else
                {
                    reader.Skip();
                }
            }

            lines.Add(new LineQuantity(id, quantity));
        }

        return lines;
    }

    private static Members ReadMembers(ref Utf8JsonReader reader)
    {
        var read = new Members();
        while (NextMember(ref reader))
        {
            var name = reader.GetString();
            reader.Read();
            switch (name)
            {
                case "paymentReference": read.PaymentReference = reader.GetString(); break;
                case "refundReference": read.RefundReference = reader.GetString(); break;
                case "shipmentId": read.ShipmentId = reader.GetString(); break;
                case "returnId": read.ReturnId = reader.GetString(); break;
                case "reason": read.Reason = reader.GetString(); break;
                case "carrier": read.Carrier = reader.GetString(); break;
                case "trackingNumber": read.TrackingNumber = reader.GetString(); break;
                case "amount": read.Amount = reader.GetDecimal(); break;
                case "authorized": read.Authorized = reader.GetDecimal(); break;
                case "refunded": read.Refunded = reader.GetDecimal(); break;
                case "total": read.Total = reader.GetDecimal(); break;
                case "lines": read.Lines = ReadQuantities(ref reader); break;
                default: reader.Skip(); break;
            }
        }

        return read;
    }

    private sealed class Members
    {
        public string? PaymentReference { get; set; }
        public string? RefundReference { get; set; }
        public string? ShipmentId { get; set; }
        public string? ReturnId { get; set; }
        public string? Reason { get; set; }
        public string? Carrier { get; set; }
        public string? TrackingNumber { get; set; }
        public decimal? Amount { get; set; }
        public decimal? Authorized { get; set; }
        public decimal? Refunded { get; set; }
        public decimal? Total { get; set; }
        public List<LineQuantity>? Lines { get; set; }
    }
}
