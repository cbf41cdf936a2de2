using System.Diagnostics;
using System.Text.Json;
using OrderService.Domain;
using static OrderService.Store.OrderJson;

namespace OrderService.Store;

/// <summary>An event's <c>data</c> as JSON: camelCase, amounts as numbers with exactly the currency's decimals, absent values left out.</summary>
/// <remarks>The same event always gives the same bytes: streams are chained by hashes over them.</remarks>
public static class EventSerializer
{
    /// <summary>Personal data as it is stored: sealed under the customer's key, in base64; empty where it was taken out of an event of before. Never published.</summary>
    internal static ReadOnlySpan<byte> PersonalMember => "personal"u8;

    /// <summary>The one personal member that versions before the keys stored as it was; never published either.</summary>
    internal static ReadOnlySpan<byte> PlainMember => "email"u8;

    /// <summary>The data as it is stored.</summary>
    /// <param name="keyOf">Needed where there is personal data.</param>
    public static byte[] Serialize(OrderEvent happened, KeyOfCustomer? keyOf = null)
    {
        var personal = happened is OrderEvent.Placed { Personal: { IsForgotten: false } data } placed
            ? SealedBytes.Seal((keyOf ?? throw new InvalidOperationException("Personal data is stored under a key."))(placed.CustomerId), PersonalJson.Write(data))
            : null;
        WriteData(happened, JsonScratch.Begin(), personal);
        return JsonScratch.End();
    }

    /// <summary>Writes the data as one JSON object, without what is personal.</summary>
    /// <param name="happened">The event.</param>
    /// <param name="writer">Where a value may be written.</param>
    /// <param name="personal">For the store: the personal data, sealed.</param>
    /// <param name="more">Adds members at the end.</param>
    public static void WriteData(OrderEvent happened, Utf8JsonWriter writer, byte[]? personal = null, Action<Utf8JsonWriter>? more = null)
    {
        ArgumentNullException.ThrowIfNull(happened);
        ArgumentNullException.ThrowIfNull(writer);

        writer.WriteStartObject();
        switch (happened)
        {
            case OrderEvent.Placed placed:
                WritePlaced(placed, writer, personal);
                break;

            case OrderEvent.PaymentReceived payment:
                writer.WriteString("paymentReference"u8, payment.PaymentReference);
                writer.WriteNumber("amount"u8, payment.Amount);
                writer.WriteNumber("paid"u8, payment.TotalPaid);
                writer.WriteNumber("due"u8, payment.Due);
                if (payment.Overpaid is { } overpaid)
                {
                    writer.WriteNumber("overpaid"u8, overpaid);
                }

                WriteOptional(writer, "authorization"u8, payment.Authorization);

                break;

            case OrderEvent.Paid paid:
                writer.WriteString("paymentReference"u8, paid.PaymentReference);
                if (paid.Amount is { } amount)
                {
                    writer.WriteNumber("amount"u8, amount);
                }

                break;

            case OrderEvent.Shipped shipped:
                WriteOptional(writer, "carrier"u8, shipped.Carrier);
                WriteOptional(writer, "trackingNumber"u8, shipped.TrackingNumber);
                WriteOptional(writer, "shipmentId"u8, shipped.ShipmentId);
                if (shipped.Lines is { } lines)
                {
                    ProgressJson.WriteQuantities(lines, writer);
                }

                break;

            case OrderEvent.Delivered delivered:
                WriteOptional(writer, "shipmentId"u8, delivered.ShipmentId);
                break;

            case OrderEvent.Cancelled cancelled:
                writer.WriteString("reason"u8, cancelled.Reason);
                break;

            case OrderEvent.Amended amended:
                writer.WriteString("currency"u8, amended.Currency.Code);
                OrderJson.WriteLines(amended.Lines, amended.Currency, writer);
                writer.WriteNumber("total"u8, Money.ToDecimal(amended.TotalMinor, amended.Currency));
                if (amended.Details is { } details)
                {
                    OrderJson.WriteDetails(details, writer);
                }

                break;

            default:
                if (!ProgressJson.TryWrite(happened, writer))
                {
                    throw new UnreachableException($"{happened.GetType().Name} is an event and is not written.");
                }

                break;
        }

        more?.Invoke(writer);
        writer.WriteEndObject();
    }

    /// <summary>The stored data of an event of before without what is personal in plain; null where there is nothing.</summary>
    internal static byte[]? WithoutPlainData(ReadOnlySpan<byte> data)
    {
        using var document = JsonDocument.Parse(data.ToArray());
        if (!document.RootElement.TryGetProperty(PlainMember, out var plain) || plain.ValueKind != JsonValueKind.String)
        {
            return null;
        }
        var writer = JsonScratch.Begin();
        writer.WriteStartObject();
        foreach (var member in document.RootElement.EnumerateObject().Where(member => !member.NameEquals(PlainMember)))
        {
            writer.WritePropertyName(member.Name);
            // Amounts keep their digits.
            writer.WriteRawValue(member.Value.GetRawText(), skipInputValidation: true);
        }
        writer.WriteString(PersonalMember, "");
        writer.WriteEndObject();
        return JsonScratch.End();
    }

    /// <summary>Reads stored data back. Members it does not know are skipped: a newer version may have written them.</summary>
    /// <param name="open">For those who may see personal data.</param>
    /// <exception cref="InvalidDataException">The type is unknown, or the data is not what this type has.</exception>
    public static OrderEvent Read(string type, ReadOnlySpan<byte> data, OpenSealed? open = null)
    {
        try
        {
            var reader = new Utf8JsonReader(data);
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
            {
                throw new InvalidDataException($"The data of an event {type} is not a JSON object.");
            }

            return type switch
            {
                EventType.Placed or EventType.Amended => ReadOrder(type, ref reader, open),
                EventType.PaymentReceived => ReadPaymentReceived(ref reader),
                EventType.Paid => ReadPaid(ref reader),
                EventType.Shipped => ReadShipped(ref reader),
                EventType.Delivered => new OrderEvent.Delivered { ShipmentId = ReadShipped(ref reader).ShipmentId },
                EventType.Cancelled => ReadCancelled(ref reader),
                _ when ProgressJson.Knows(type) => ProgressJson.Read(type, ref reader) ?? throw Incomplete(type),
                _ => throw new InvalidDataException($"There is no event type {type}; a newer version may have written it."),
            };
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException or FormatException)
        {
            throw new InvalidDataException($"The data of an event {type} cannot be read.", exception);
        }
    }

    private static void WritePlaced(OrderEvent.Placed placed, Utf8JsonWriter writer, byte[]? personal)
    {
        writer.WriteString("customerId"u8, placed.CustomerId);
        writer.WriteString("currency"u8, placed.Currency.Code);
        OrderJson.WriteLines(placed.Lines, placed.Currency, writer);
        writer.WriteNumber("total"u8, Money.ToDecimal(placed.TotalMinor, placed.Currency));
        if (placed.PlacedAt is { } placedAt)
        {
            writer.WriteString("placedAt"u8, placedAt);
        }

        if (placed.Details is { } details)
        {
            OrderJson.WriteDetails(details, writer);
        }

        if (personal is not null)
        {
            writer.WriteBase64String(PersonalMember, personal);
        }
    }

    /// <summary>An order as it was placed, or as it is after an amendment.</summary>
    private static OrderEvent ReadOrder(string type, ref Utf8JsonReader reader, OpenSealed? open)
    {
        string? customerId = null;
        PersonalData? personal = null;
        Currency? currency = null;
        decimal? total = null;
        DateTimeOffset? placedAt = null;
        OrderDetails? details = null;
        var lines = new List<(string Sku, int Quantity, decimal UnitPrice, LineDetails? Details)>();

        while (NextMember(ref reader))
        {
            if (Is(ref reader, "customerId"u8))
            {
                customerId = reader.GetString();
            }
            else if (Is(ref reader, "currency"u8))
            {
                Currency.TryGet(reader.GetString(), out currency);
            }
            else if (Is(ref reader, "lines"u8))
            {
                ReadLines(ref reader, lines);
            }
            else if (Is(ref reader, "total"u8))
            {
                total = reader.GetDecimal();
            }
            else if (Is(ref reader, PersonalMember))
            {
                personal = open is null ? null : Open(reader.GetBytesFromBase64(), open);
            }
            else if (Is(ref reader, PlainMember))
            {
                personal = open is null ? null : PersonalData.Of(null, reader.GetString(), null, null, null);
            }
            else if (Is(ref reader, "placedAt"u8))
            {
                placedAt = reader.TokenType == JsonTokenType.Null ? null : reader.GetDateTimeOffset();
            }
            else if (!OrderJson.TryReadDetail(ref reader, ref details))
            {
                SkipMember(ref reader);
            }
        }

        if ((customerId is null && type == EventType.Placed) || currency is null || total is null)
        {
            throw Incomplete(type);
        }

        if (type == EventType.Amended)
        {
            return new OrderEvent.Amended(currency, Exact(lines, currency), ToMinor(total.Value, currency), details);
        }

        return new OrderEvent.Placed(customerId!, currency, Exact(lines, currency), ToMinor(total.Value, currency), personal, placedAt) { Details = details };
    }

    // The members may come in any order, so the prices wait for the currency.
    private static OrderLine[] Exact(List<(string Sku, int Quantity, decimal UnitPrice, LineDetails? Details)> lines, Currency currency)
    {
        var exact = new OrderLine[lines.Count];
        for (var index = 0; index < exact.Length; index++)
        {
            var (sku, quantity, unitPrice, details) = lines[index];
            exact[index] = new OrderLine(sku, quantity, ToMinor(unitPrice, currency)) { Details = details };
        }

        return exact;
    }

    private static PersonalData Open(byte[] personal, OpenSealed open) =>
        personal.Length > 0 && open(personal) is { } json ? PersonalJson.Read(json) : PersonalData.Forgotten;

    private static void ReadLines(ref Utf8JsonReader reader, List<(string Sku, int Quantity, decimal UnitPrice, LineDetails? Details)> lines)
    {
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            string? sku = null;
            int? quantity = null;
            decimal? unitPrice = null;
            LineDetails? details = null;
            while (NextMember(ref reader))
            {
                if (Is(ref reader, "sku"u8))
                {
                    sku = reader.GetString();
                }
                else if (Is(ref reader, "quantity"u8))
                {
                    quantity = reader.GetInt32();
                }
                else if (Is(ref reader, "unitPrice"u8))
                {
                    unitPrice = reader.GetDecimal();
                }
                else if (!OrderJson.TryReadLineDetail(ref reader, ref details))
                {
                    SkipMember(ref reader);
                }
            }

            if (sku is null || quantity is null || unitPrice is null)
            {
                throw Incomplete(EventType.Placed);
            }

            lines.Add((sku, quantity.Value, unitPrice.Value, details));
        }
    }

    private static OrderEvent.PaymentReceived ReadPaymentReceived(ref Utf8JsonReader reader)
    {
        string? paymentReference = null, authorization = null;
        decimal? amount = null, paid = null, due = null, overpaid = null;
        while (NextMember(ref reader))
        {
            if (Is(ref reader, "paymentReference"u8))
            {
                paymentReference = reader.GetString();
            }
            else if (Is(ref reader, "amount"u8))
            {
                amount = reader.GetDecimal();
            }
            else if (Is(ref reader, "paid"u8))
            {
                paid = reader.GetDecimal();
            }
            else if (Is(ref reader, "due"u8))
            {
                due = reader.GetDecimal();
            }
            else if (Is(ref reader, "overpaid"u8))
            {
                overpaid = reader.GetDecimal();
            }
            else if (Is(ref reader, "authorization"u8))
            {
                authorization = reader.GetString();
            }
            else
            {
                SkipMember(ref reader);
            }
        }

        return paymentReference is not null && amount is not null && paid is not null && due is not null
            ? new OrderEvent.PaymentReceived(paymentReference, amount.Value, paid.Value, due.Value, overpaid) { Authorization = authorization }
            : throw Incomplete(EventType.PaymentReceived);
    }

    private static OrderEvent.Paid ReadPaid(ref Utf8JsonReader reader)
    {
        string? paymentReference = null;
        decimal? amount = null;
        while (NextMember(ref reader))
        {
            if (Is(ref reader, "paymentReference"u8))
            {
                paymentReference = reader.GetString();
            }
            else if (Is(ref reader, "amount"u8))
            {
                amount = reader.TokenType == JsonTokenType.Null ? null : reader.GetDecimal();
            }
            else
            {
                SkipMember(ref reader);
            }
        }

        return new OrderEvent.Paid(paymentReference ?? throw Incomplete(EventType.Paid), amount);
    }

    private static OrderEvent.Shipped ReadShipped(ref Utf8JsonReader reader)
    {
        string? carrier = null, trackingNumber = null, shipmentId = null;
        List<LineQuantity>? lines = null;
        while (NextMember(ref reader))
        {
            if (Is(ref reader, "carrier"u8))
            {
                carrier = reader.GetString();
            }
            else if (Is(ref reader, "trackingNumber"u8))
            {
                trackingNumber = reader.GetString();
            }
            else if (Is(ref reader, "shipmentId"u8))
            {
                shipmentId = reader.GetString();
            }
            else if (Is(ref reader, "lines"u8))
            {
                lines = ProgressJson.ReadQuantities(ref reader);
            }
            else
            {
                SkipMember(ref reader);
            }
        }

        return new OrderEvent.Shipped(carrier, trackingNumber) { ShipmentId = shipmentId, Lines = lines };
    }

    private static OrderEvent.Cancelled ReadCancelled(ref Utf8JsonReader reader)
    {
        string? reason = null;
        while (NextMember(ref reader))
        {
            if (Is(ref reader, "reason"u8))
            {
                reason = reader.GetString();
            }
            else
            {
                SkipMember(ref reader);
            }
        }

        return new OrderEvent.Cancelled(reason ?? throw Incomplete(EventType.Cancelled));
    }

    private static void SkipMember(ref Utf8JsonReader reader) => reader.Skip();

    private static long ToMinor(decimal amount, Currency currency) => Money.TryToMinor(amount, currency, out var minor)
        ? minor
        : throw new InvalidDataException($"A stored amount does not fit the currency {currency.Code}.");

    private static InvalidDataException Incomplete(string type) => new($"The data of an event {type} lacks a member that it must have.");
}
