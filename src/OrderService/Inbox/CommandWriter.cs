using System.Diagnostics;
using System.Text.Json;
using OrderService.Domain;
using OrderService.Store;
using static OrderService.Store.OrderJson;

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
                WriteAmount(writer, "amount"u8, pay.Amount);
                break;

            case OrderCommand.Authorize authorize:
                writer.WriteString("paymentReference"u8, authorize.PaymentReference);
                WriteAmount(writer, "amount"u8, authorize.Amount);
                break;

            case OrderCommand.Capture capture:
                writer.WriteString("paymentReference"u8, capture.PaymentReference);
                WriteOptional(writer, "captureReference"u8, capture.CaptureReference);
                WriteAmount(writer, "amount"u8, capture.Amount);
                break;

            case OrderCommand.Refund refund:
                writer.WriteString("refundReference"u8, refund.RefundReference);
                WriteAmount(writer, "amount"u8, refund.Amount);
                WriteOptional(writer, "paymentReference"u8, refund.PaymentReference);
                WriteOptional(writer, "reason"u8, refund.Reason);
                break;

            case OrderCommand.Amend amend:
                WriteAmend(amend, writer);
                break;

            case OrderCommand.Hold hold:
                writer.WriteString("reason"u8, hold.Reason);
                break;

            case OrderCommand.Ship ship:
                WriteOptional(writer, "carrier"u8, ship.Carrier);
                WriteOptional(writer, "trackingNumber"u8, ship.TrackingNumber);
                WriteOptional(writer, "shipmentId"u8, ship.ShipmentId);
                WriteQuantities(writer, ship.Lines);
                break;

            case OrderCommand.Deliver deliver:
                WriteOptional(writer, "shipmentId"u8, deliver.ShipmentId);
                break;

            case OrderCommand.Release:
                break;

            case OrderCommand.Return back:
                writer.WriteString("returnId"u8, back.ReturnId);
                WriteQuantities(writer, back.Lines);
                writer.WriteString("reason"u8, back.Reason);
                break;

            case OrderCommand.Cancel cancel:
                writer.WriteString("reason"u8, cancel.Reason);
                WriteQuantities(writer, cancel.Lines);
                break;

            default:
                throw new UnreachableException($"{command.GetType().Name} is a command and is not written.");
        }

        if (command.ExpectedVersion is { } version)
        {
            writer.WriteNumber("expectedVersion"u8, version);
        }

        writer.WriteEndObject();
        return JsonScratch.End();
    }

    private static void WritePlace(OrderCommand.Place place, Utf8JsonWriter writer)
    {
        writer.WriteString("customerId"u8, place.CustomerId);
        writer.WriteString("currency"u8, place.Currency.Code);
        OrderJson.WriteLines(place.Lines, place.Currency, writer);
        if (place.Personal is { } personal)
        {
            PersonalJson.WriteMembers(writer, personal);
        }

        if (place.PlacedAt is { } placedAt)
        {
            writer.WriteString("placedAt"u8, placedAt);
        }

        if (place.Details is { } details)
        {
            OrderJson.WriteDetails(details, writer);
        }
    }

    private static void WriteAmend(OrderCommand.Amend amend, Utf8JsonWriter writer)
    {
        if (amend.Lines is { } lines)
        {
            writer.WriteStartArray("lines"u8);
            foreach (var line in lines)
            {
                writer.WriteStartObject();
                writer.WriteString("sku"u8, line.Sku);
                writer.WriteNumber("quantity"u8, line.Quantity);
                WriteAmount(writer, "unitPrice"u8, line.UnitPrice);
                if (line.Details is { } details)
                {
                    OrderJson.WriteLineDetails(details, writer);
                }

                writer.WriteEndObject();
            }

            writer.WriteEndArray();
        }

        if (amend.Attributes is { } attributes)
        {
            OrderJson.WritePairs(writer, "attributes"u8, attributes, evenIfEmpty: true);
        }

        WriteAmount(writer, "shippingCost"u8, amend.ShippingCost);
        if (amend.Discounts is { } discounts)
        {
            OrderJson.WriteDiscounts(discounts, writer);
        }

        WriteAmount(writer, "total"u8, amend.Total);
    }

    private static void WriteQuantities(Utf8JsonWriter writer, IReadOnlyList<LineQuantity>? lines)
    {
        if (lines is not null)
        {
            ProgressJson.WriteQuantities(lines, writer);
        }
    }

    // One amount gets one form; the order's currency, which tells the decimals, is not known here.
    private static void WriteAmount(Utf8JsonWriter writer, ReadOnlySpan<byte> name, decimal? amount)
    {
        if (amount is { } given)
        {
            writer.WriteNumber(name, Money.WithoutZeros(given));
        }
    }
}
