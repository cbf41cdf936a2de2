using System.Diagnostics;
using System.Text.Json;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>A command's canonical body: what <see cref="EnvelopeDecoder"/> reads back to the same command, byte for byte the same each time.</summary>
public static class CommandWriter
{
    /// <summary>The body to publish, order id included; personal data too, since it is the message itself.</summary>
    public static byte[] Write(OrderCommand command)
    {
        ArgumentNullException.ThrowIfNull(command);

        var writer = JsonScratch.Begin();
        writer.WriteStartObject();
        writer.WriteString("orderId"u8, command.OrderId);
        switch (command)
        {
            case OrderCommand.Place place:
                WritePlace(place, writer);
                break;

            case OrderCommand.Pay pay:
                writer.WriteString("paymentReference"u8, pay.PaymentReference);
                if (pay.Amount is { } amount)
                {
                    // 49.90 and 49.9 are one amount and get one form; the order's currency, which tells the decimals, is not known here.
                    writer.WriteNumber("amount"u8, amount / 1.0000000000000000000000000000m);
                }

                break;

            case OrderCommand.Ship ship:
                WriteOptional(writer, "carrier"u8, ship.Carrier);
                WriteOptional(writer, "trackingNumber"u8, ship.TrackingNumber);
                break;

            case OrderCommand.Deliver:
                break;

            case OrderCommand.Cancel cancel:
                writer.WriteString("reason"u8, cancel.Reason);
                break;

            default:
                throw new UnreachableException($"{command.GetType().Name} is a command and is not written.");
        }

        writer.WriteEndObject();
        return JsonScratch.End();
    }

    private static void WritePlace(OrderCommand.Place place, Utf8JsonWriter writer)
    {
        writer.WriteString("customerId"u8, place.CustomerId);
        writer.WriteString("currency"u8, place.Currency.Code);
        writer.WriteStartArray("lines"u8);
        for (var index = 0; index < place.Lines.Count; index++)
        {
            var line = place.Lines[index];
            writer.WriteStartObject();
            writer.WriteString("sku"u8, line.Sku);
            writer.WriteNumber("quantity"u8, line.Quantity);
            writer.WriteNumber("unitPrice"u8, Money.ToDecimal(line.UnitPriceMinor, place.Currency));
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        WriteOptional(writer, "email"u8, place.Email);
        if (place.PlacedAt is { } placedAt)
        {
            writer.WriteString("placedAt"u8, placedAt);
        }
    }

    private static void WriteOptional(Utf8JsonWriter writer, ReadOnlySpan<byte> name, string? value)
    {
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }
}
