using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Store;

/// <summary>An order's lines and what it has beyond them, as JSON: the same in commands, events and the store. A plain order has only the members it always had.</summary>
internal static class OrderJson
{
    public static void WriteLines(IReadOnlyList<OrderLine> lines, Currency currency, Utf8JsonWriter writer)
    {
        writer.WriteStartArray("lines"u8);
        for (var index = 0; index < lines.Count; index++)
        {
            var line = lines[index];
            writer.WriteStartObject();
            writer.WriteString("sku"u8, line.Sku);
            writer.WriteNumber("quantity"u8, line.Quantity);
            writer.WriteNumber("unitPrice"u8, Money.ToDecimal(line.UnitPriceMinor, currency));
            if (line.Details is { } details)
            {
                WriteLineDetails(details, writer);
            }

            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    public static void WriteLineDetails(LineDetails details, Utf8JsonWriter writer)
    {
        WriteOptional(writer, "lineId"u8, details.LineId);
        WriteOptional(writer, "name"u8, details.Name);
        WriteOptional(writer, "discount"u8, details.Discount);
        WriteTax(writer, "tax"u8, details.Tax);
        WritePairs(writer, "attributes"u8, details.Attributes);
    }

    /// <summary>The members that stand beside the others of the order.</summary>
    public static void WriteDetails(OrderDetails details, Utf8JsonWriter writer)
    {
        WriteOptional(writer, "shippingCost"u8, details.ShippingCost);
        WriteTax(writer, "shippingTax"u8, details.ShippingTax);
        if (details.Discounts.Count > 0)
        {
            WriteDiscounts(details.Discounts, writer);
        }

        if (details.Taxes.Count > 0)
        {
            writer.WriteStartArray("taxes"u8);
            foreach (var tax in details.Taxes)
            {
                writer.WriteStartObject();
                writer.WriteNumber("rate"u8, tax.Rate);
                writer.WriteBoolean("included"u8, tax.Included);
                writer.WriteNumber("amount"u8, tax.Amount);
                writer.WriteEndObject();
            }

            writer.WriteEndArray();
        }

        WriteOptional(writer, "total"u8, details.Total);
        WriteOptional(writer, "channel"u8, details.Channel);
        WritePairs(writer, "attributes"u8, details.Attributes);
        WritePairs(writer, "externalReferences"u8, details.ExternalReferences);
    }

    public static void WriteDiscounts(IReadOnlyList<Discount> discounts, Utf8JsonWriter writer)
    {
        writer.WriteStartArray("discounts"u8);
        foreach (var discount in discounts)
        {
            writer.WriteStartObject();
            writer.WriteNumber("amount"u8, discount.Amount);
            WriteOptional(writer, "code"u8, discount.Code);
            WriteOptional(writer, "name"u8, discount.Name);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    /// <summary>Reads one of the members of a line's details; false for any other, which is left unread.</summary>
    /// <param name="reader">At a member's name; afterwards at the end of its value.</param>
    public static bool TryReadLineDetail(ref Utf8JsonReader reader, ref LineDetails? details)
    {
        var known = details ?? new LineDetails();
        if (Is(ref reader, "lineId"u8))
        {
            details = known with { LineId = reader.GetString() };
        }
        else if (Is(ref reader, "name"u8))
        {
            details = known with { Name = reader.GetString() };
        }
        else if (Is(ref reader, "discount"u8))
        {
            details = known with { Discount = reader.GetDecimal() };
        }
        else if (Is(ref reader, "tax"u8))
        {
            details = known with { Tax = ReadTax(ref reader) };
        }
        else if (Is(ref reader, "attributes"u8))
        {
            details = known with { Attributes = ReadPairs(ref reader) };
        }
        else
        {
            return false;
        }

        return true;
    }

    /// <summary>Reads one of the members of <see cref="WriteDetails"/> but the total; false for any other, which is left unread.</summary>
    /// <param name="reader">At a member's name; afterwards at the end of its value.</param>
    public static bool TryReadDetail(ref Utf8JsonReader reader, ref OrderDetails? details)
    {
        var known = details ?? OrderDetails.None;
        if (Is(ref reader, "shippingCost"u8))
        {
            details = known with { ShippingCost = reader.GetDecimal() };
        }
        else if (Is(ref reader, "shippingTax"u8))
        {
            details = known with { ShippingTax = ReadTax(ref reader) };
        }
        else if (Is(ref reader, "discounts"u8))
        {
            details = known with { Discounts = ReadDiscounts(ref reader) };
        }
        else if (Is(ref reader, "taxes"u8))
        {
            details = known with { Taxes = ReadTaxes(ref reader) };
        }
        else if (Is(ref reader, "channel"u8))
        {
            details = known with { Channel = reader.GetString() };
        }
        else if (Is(ref reader, "attributes"u8))
        {
            details = known with { Attributes = ReadPairs(ref reader) };
        }
        else if (Is(ref reader, "externalReferences"u8))
        {
            details = known with { ExternalReferences = ReadPairs(ref reader) };
        }
        else
        {
            return false;
        }

        return true;
    }

    public static void WriteOptional(Utf8JsonWriter writer, ReadOnlySpan<byte> name, string? value)
    {
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }

    public static void WriteOptional(Utf8JsonWriter writer, ReadOnlySpan<byte> name, decimal? value)
    {
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
    }

    /// <summary>Moves to the next member's name; false at the object's end.</summary>
    internal static bool NextMember(ref Utf8JsonReader reader) => reader.Read() && reader.TokenType == JsonTokenType.PropertyName;

    /// <summary>Whether the reader is at the member <paramref name="name"/>; if so it moves on to the value.</summary>
    internal static bool Is(ref Utf8JsonReader reader, ReadOnlySpan<byte> name) => reader.ValueTextEquals(name) && reader.Read();

    private static void WriteTax(Utf8JsonWriter writer, ReadOnlySpan<byte> name, Tax? tax)
    {
        if (tax is null)
        {
            return;
        }

        writer.WriteStartObject(name);
        writer.WriteNumber("rate"u8, tax.Rate);
        writer.WriteBoolean("included"u8, tax.Included);
        WriteOptional(writer, "amount"u8, tax.Amount);
        writer.WriteEndObject();
    }

    public static void WritePairs(Utf8JsonWriter writer, ReadOnlySpan<byte> name, IReadOnlyList<KeyValuePair<string, string>> pairs, bool evenIfEmpty = false)
    {
        if (pairs.Count == 0 && !evenIfEmpty)
        {
            return;
        }

        writer.WriteStartObject(name);
        foreach (var (key, value) in pairs)
        {
            writer.WriteString(key, value);
        }

        writer.WriteEndObject();
    }

    private static Tax ReadTax(ref Utf8JsonReader reader)
    {
        decimal rate = 0;
        decimal? amount = null;
        var included = false;
        while (NextMember(ref reader))
        {
            if (Is(ref reader, "rate"u8))
            {
                rate = reader.GetDecimal();
            }
            else if (Is(ref reader, "amount"u8))
            {
                amount = reader.GetDecimal();
            }
            else if (Is(ref reader, "included"u8))
            {
                included = reader.GetBoolean();
            }
            else
            {
                reader.Skip();
            }
        }

        return new Tax(rate, amount, included);
    }

    private static List<TaxSum> ReadTaxes(ref Utf8JsonReader reader)
    {
        var taxes = new List<TaxSum>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            var tax = ReadTax(ref reader);
            taxes.Add(new TaxSum(tax.Rate, tax.Included, tax.Amount ?? 0));
        }

        return taxes;
    }

    private static List<Discount> ReadDiscounts(ref Utf8JsonReader reader)
    {
        var discounts = new List<Discount>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            decimal amount = 0;
            string? code = null, name = null;
            while (NextMember(ref reader))
            {
                if (Is(ref reader, "amount"u8))
                {
                    amount = reader.GetDecimal();
                }
                else if (Is(ref reader, "code"u8))
                {
                    code = reader.GetString();
                }
                else if (Is(ref reader, "name"u8))
                {
                    name = reader.GetString();
                }
                else
                {
                    reader.Skip();
                }
            }

            discounts.Add(new Discount(amount, code, name));
        }

        return discounts;
    }

    private static List<KeyValuePair<string, string>> ReadPairs(ref Utf8JsonReader reader)
    {
        var pairs = new List<KeyValuePair<string, string>>();
        while (NextMember(ref reader))
        {
            var key = reader.GetString()!;
            reader.Read();
            pairs.Add(new(key, reader.GetString()!));
        }

        return pairs;
    }
}
