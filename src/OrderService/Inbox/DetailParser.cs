using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>What an order and its lines may say beyond the members that nearly every order has.</summary>
internal ref partial struct CommandParser
{
    private const int MaxPairs = 50;
    private const int MaxDiscounts = 50;
    private const int MaxKeyLength = 40;
    private const int MaxValueLength = 500;
    private const int MaxNameLength = 200;
    private const int MaxChannelLength = 64;

    private const string LineNames = "sku, quantity, unitPrice, lineId, name, discount, tax, attributes";

    /// <summary>The members that an order has beyond its lines; an amendment has them too.</summary>
    internal static CommandMember[] DetailMembers { get; } =
    [
        new("shippingCost", static (ref CommandParser parser, CommandFields fields) => parser.Exact("shippingCost", out var cost) && Set(fields, details => details with { ShippingCost = cost })),
        new("shippingTax", static (ref CommandParser parser, CommandFields fields) => parser.ReadTax("shippingTax", out var tax) && Set(fields, details => details with { ShippingTax = tax })),
        new("discounts", static (ref CommandParser parser, CommandFields fields) => parser.ReadDiscounts(out var discounts) && Set(fields, details => details with { Discounts = discounts ?? [] })),
        new("total", static (ref CommandParser parser, CommandFields fields) => parser.Exact("total", out var total) && Set(fields, details => details with { Total = total })),
        new("attributes", static (ref CommandParser parser, CommandFields fields) => parser.Pairs("attributes", out var pairs) && Set(fields, details => details with { Attributes = pairs ?? [] })),
        new("channel", static (ref CommandParser parser, CommandFields fields) => parser.Text("channel", MaxChannelLength, out var channel) && Set(fields, details => details with { Channel = channel })),
        new("externalReferences", static (ref CommandParser parser, CommandFields fields) => parser.Pairs("externalReferences", out var pairs) && Set(fields, details => details with { ExternalReferences = pairs ?? [] })),
    ];

    /// <summary>A stream's version.</summary>
    internal bool Version(string name, out long? version)
    {
        version = null;
        if (reader.TokenType != JsonTokenType.Number)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "a number");
        }

        if (!reader.TryGetInt64(out var read) || read < 0)
        {
            return WrongType(name, "a whole number of 0 or more");
        }

        version = read;
        return true;
    }

    /// <summary>Text by text; neither keys nor values are rules of ours, so they are bounded and kept.</summary>
    internal bool Pairs(string name, out IReadOnlyList<KeyValuePair<string, string>>? pairs)
    {
        pairs = null;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "an object whose values are strings");
        }

        var read = new List<KeyValuePair<string, string>>();
        var keys = new HashSet<string>(StringComparer.Ordinal);
        while (NextMember())
        {
            if (read.Count == MaxPairs)
            {
                return Reject(RejectionReason.TooManyEntries, $"{Where(name)} has more than {MaxPairs} entries; leave some out.", Pointer(name));
            }

            if (reader.ValueSpan.Length > 6 * MaxKeyLength || !TextRules.IsText(reader.GetString()!, MaxKeyLength))
            {
                return Reject(RejectionReason.TextInvalid, $"A key of {Where(name)} must have 1 to {MaxKeyLength} characters that are not all blank, without control characters.", Pointer(name));
            }

            var key = reader.GetString()!;
            if (!keys.Add(key))
            {
                return Reject(RejectionReason.DuplicateField, $"A key of {Where(name)} appears twice; send it once.", Pointer(name));
            }

            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
            {
                return Reject(RejectionReason.WrongType, $"Every value of {Where(name)} must be a string.", Pointer(name));
            }

            if (reader.ValueSpan.Length > 6 * MaxValueLength || !TextRules.IsText(reader.GetString()!, MaxValueLength))
            {
                return Reject(RejectionReason.TextInvalid, $"A value of {Where(name)} must have 1 to {MaxValueLength} characters that are not all blank; no control characters but line feed and tab.", Pointer(name));
            }

            read.Add(new(key, reader.GetString()!));
        }

        pairs = read;
        return true;
    }

    /// <summary>Pieces of lines, each line once.</summary>
    internal bool Quantities(out IReadOnlyList<LineQuantity>? quantities)
    {
        quantities = null;
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("lines", "an array of objects");
        }

        var read = new List<LineQuantity>();
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            line = read.Count;
            if (read.Count == MaxLines)
            {
                line = -1;
                return Reject(RejectionReason.TooManyLines, $"lines has more than {MaxLines} entries; an order has no more lines.", "/lines");
            }

            if (!ReadQuantity(out var quantity))
            {
                return false;
            }

            if (!names.Add(quantity.LineId))
            {
                return Reject(RejectionReason.IdInvalid, $"{Where("lineId")} names a line that another entry names; add their quantities up.", Pointer("lineId"));
            }

            read.Add(quantity);
        }

        line = -1;
        quantities = read;
        return read.Count > 0 || Reject(RejectionReason.MissingField, "lines is empty; name at least one line, or leave it out where all are meant.", "/lines");
    }

    /// <summary>Lines of an order whose currency is not known here.</summary>
    internal bool AmendedLines(out IReadOnlyList<AmendedLine>? amended)
    {
        amended = null;
        if (!Lines(out var pending, out var count) || pending is null)
        {
            return rejection is null;
        }

        var lines = new AmendedLine[count];
        for (var index = 0; index < count; index++)
        {
            line = index;
            var (sku, quantity, unitPrice, details) = pending[index];
            if (!Exact("unitPrice", unitPrice, out var price))
            {
                return false;
            }

            lines[index] = new AmendedLine(sku, quantity, price, details);
        }

        line = -1;
        amended = lines;
        return true;
    }

    private bool ReadQuantity(out LineQuantity read)
    {
        read = default;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return WrongType("", "an object with lineId and quantity");
        }

        string? lineId = null;
        int? quantity = null;
        var seen = 0;
        while (NextMember())
        {
            var known =
                reader.ValueTextEquals("lineId"u8) ? Once(ref seen, 1, "lineId") && Id("lineId", out lineId)
                : reader.ValueTextEquals("quantity"u8) ? Once(ref seen, 2, "quantity") && Quantity(out quantity)
                : Unknown("lineId, quantity");
            if (!known)
            {
                return false;
            }
        }

        if (lineId is null || quantity is null)
        {
            Missing<OrderCommand>((lineId is null, "lineId"), (quantity is null, "quantity"));
            return false;
        }

        read = new LineQuantity(lineId, quantity.Value);
        return true;
    }

    internal bool ReadTax(string name, out Tax? tax)
    {
        tax = null;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "an object with rate and included");
        }

        inner = name;
        decimal? rate = null, amount = null;
        bool? included = null;
        var seen = 0;
        while (NextMember())
        {
            var known =
                reader.ValueTextEquals("rate"u8) ? Once(ref seen, 1, "rate") && Rate(out rate)
                : reader.ValueTextEquals("amount"u8) ? Once(ref seen, 2, "amount") && Exact("amount", out amount)
                : reader.ValueTextEquals("included"u8) ? Once(ref seen, 4, "included") && Flag("included", out included)
                : Unknown("rate, amount, included");
            if (!known)
            {
                return false;
            }
        }

        if (rate is null || included is null)
        {
            Missing<OrderCommand>((rate is null, "rate"), (included is null, "included"));
            return false;
        }

        inner = null;
        tax = new Tax(rate.Value, amount, included.Value);
        return true;
    }

    internal bool ReadDiscounts(out IReadOnlyList<Discount>? discounts)
    {
        discounts = null;
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("discounts", "an array of objects");
        }

        var read = new List<Discount>();
        list = "discounts";
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            line = read.Count;
            if (read.Count == MaxDiscounts)
            {
                line = -1;
                return Reject(RejectionReason.TooManyEntries, $"discounts has more than {MaxDiscounts} entries; add some up.", "/discounts");
            }

            if (!ReadDiscount(out var discount))
            {
                return false;
            }

            read.Add(discount!);
        }

        (line, list) = (-1, "lines");
        discounts = read;
        return true;
    }

    private static bool Set(CommandFields fields, Func<OrderDetails, OrderDetails> change)
    {
        fields.Details = change(fields.Details ?? OrderDetails.None);
        return true;
    }

    private bool ReadDiscount(out Discount? discount)
    {
        discount = null;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return WrongType("", "an object with amount");
        }

        decimal? amount = null;
        string? code = null, name = null;
        var seen = 0;
        while (NextMember())
        {
            var known =
                reader.ValueTextEquals("amount"u8) ? Once(ref seen, 1, "amount") && Exact("amount", out amount)
                : reader.ValueTextEquals("code"u8) ? Once(ref seen, 2, "code") && Text("code", MaxChannelLength, out code)
                : reader.ValueTextEquals("name"u8) ? Once(ref seen, 4, "name") && Text("name", MaxNameLength, out name)
                : Unknown("amount, code, name");
            if (!known)
            {
                return false;
            }
        }

        if (amount is null)
        {
            Missing<OrderCommand>((true, "amount"));
            return false;
        }

        discount = new Discount(amount.Value, code, name);
        return true;
    }

    /// <summary>A member of a line beyond sku, quantity and price.</summary>
    private bool LineMore(ref int seen, ref LineDetails? details)
    {
        var known = details ?? new LineDetails();
        if (reader.ValueTextEquals("lineId"u8))
        {
            var read = Once(ref seen, 8, "lineId") && Id("lineId", out var lineId) && Keep(known with { LineId = lineId }, ref details);
            return read;
        }

        return reader.ValueTextEquals("name"u8) ? Once(ref seen, 16, "name") && Text("name", MaxNameLength, out var name) && Keep(known with { Name = name }, ref details)
            : reader.ValueTextEquals("discount"u8) ? Once(ref seen, 32, "discount") && Exact("discount", out var discount) && Keep(known with { Discount = discount }, ref details)
            : reader.ValueTextEquals("tax"u8) ? Once(ref seen, 64, "tax") && ReadTax("tax", out var tax) && Keep(known with { Tax = tax }, ref details)
            : reader.ValueTextEquals("attributes"u8) ? Once(ref seen, 128, "attributes") && Pairs("attributes", out var pairs) && Keep(known with { Attributes = pairs ?? [] }, ref details)
            : Unknown(LineNames);
    }

    private static bool Keep(LineDetails read, ref LineDetails? details)
    {
        details = read;
        return true;
    }

    private bool Flag(string name, out bool? flag)
    {
        flag = reader.TokenType switch { JsonTokenType.True => true, JsonTokenType.False => false, _ => null };
        return flag is not null || reader.TokenType == JsonTokenType.Null || WrongType(name, "true or false");
    }

    private bool Rate(out decimal? rate)
    {
        rate = null;
        if (!Amount("rate", out var token) || token is not { } read)
        {
            return rejection is null;
        }

        if (read.Scale > Money.MaxDecimals || read.Coefficient > 1_000_000)
        {
            return Reject(RejectionReason.AmountOutOfRange, $"{Where("rate")} must be a percentage of 0 to 100 with at most {Money.MaxDecimals} decimals, such as 19 or 7.7.", Pointer("rate"));
        }

        rate = new decimal((int)read.Coefficient, 0, 0, false, (byte)read.Scale);
        return rate <= 100 || Reject(RejectionReason.AmountOutOfRange, $"{Where("rate")} must be a percentage of 0 to 100 with at most {Money.MaxDecimals} decimals, such as 19 or 7.7.", Pointer("rate"));
    }
}
