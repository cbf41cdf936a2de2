using System.Diagnostics;
using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>
/// Reads one command from JSON, strictly: every member known, none twice, every value in range. Written by hand over the token
/// reader, because this is the hottest code of the service and because a serializer's leniences (last duplicate wins, digits rounded,
/// time without offset) are each a way to take an order that nobody sent.
/// </summary>
internal ref struct CommandParser
{
    private const int MaxLines = 500;
    private const int MaxQuantity = 1_000_000;
    private const int MaxReferenceLength = 128;
    private const int MaxCarrierLength = 64;
    private const int MaxTrackingNumberLength = 128;
    private const int MaxReasonLength = 500;

    private static readonly JsonReaderOptions Strict = new()
    {
        MaxDepth = EnvelopeDecoder.MaxDepth,
        CommentHandling = JsonCommentHandling.Disallow,
        AllowTrailingCommas = false,
    };

    // One a thread: nearly every command has lines, and what is read into it is used up before the next one is parsed.
    [ThreadStatic]
    private static PendingLine[]? pendingLines;

    private readonly string? orderIdFromPath;
    private Utf8JsonReader reader;
    private Rejection? rejection;
    private int line;

    private CommandParser(ReadOnlySpan<byte> body, string? orderIdFromPath)
    {
        reader = new Utf8JsonReader(body, Strict);
        this.orderIdFromPath = orderIdFromPath;
        line = -1;
    }

    /// <param name="type">A known command.</param>
    /// <param name="body">Valid UTF-8, not empty.</param>
    /// <param name="orderIdFromPath">A valid id or null.</param>
    /// <param name="rejection">Set when the result is null.</param>
    public static OrderCommand? Parse(string type, ReadOnlySpan<byte> body, string? orderIdFromPath, out Rejection? rejection)
    {
        var parser = new CommandParser(body, orderIdFromPath);
        OrderCommand? command = null;
        try
        {
            command = parser.Document(type);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // The reader's way to say malformed, too deep or half a surrogate; the diagnosis below tells which.
        }

        rejection = command is null
            ? BodySyntax.Diagnose(body) ?? parser.rejection
                ?? new Rejection(RejectionReason.InternalError, "The decoder found no command and no fault; this is a mistake in the order service, please report it.", null)
            : null;
        return command;
    }

    private OrderCommand? Document(string type)
    {
        reader.Read();
        if (reader.TokenType == JsonTokenType.Null)
        {
            Reject(RejectionReason.MalformedJson, "The body is null; send one JSON object.", "");
            return null;
        }

        if (reader.TokenType != JsonTokenType.StartObject)
        {
            WrongType("", "one JSON object");
            return null;
        }

        OrderCommand? command = type switch
        {
            CommandType.Place => Place(),
            CommandType.Pay => Pay(),
            CommandType.Ship => Ship(),
            CommandType.Deliver => Deliver(),
            CommandType.Cancel => Cancel(),
            _ => throw new UnreachableException($"{type} is a command and is not parsed."),
        };

        // Reads on to the end of the body: anything but blanks there is an exception.
        return command is not null && !reader.Read() ? command : null;
    }

    private OrderCommand.Place? Place()
    {
        string? orderId = null, customerId = null, email = null;
        Currency? currency = null;
        DateTimeOffset? placedAt = null;
        PendingLine[]? pending = null;
        var count = 0;
        var seen = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("orderId"u8) ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : reader.ValueTextEquals("customerId"u8) ? Once(ref seen, 2, "customerId") && Id("customerId", out customerId)
                : reader.ValueTextEquals("currency"u8) ? Once(ref seen, 4, "currency") && ReadCurrency(out currency)
                : reader.ValueTextEquals("lines"u8) ? Once(ref seen, 8, "lines") && Lines(out pending, out count)
                : reader.ValueTextEquals("email"u8) ? Once(ref seen, 16, "email") && Email(out email)
                : reader.ValueTextEquals("placedAt"u8) ? Once(ref seen, 32, "placedAt") && Time("placedAt", out placedAt)
                : Unknown("orderId, customerId, currency, lines, email, placedAt");
            if (!read)
            {
                return null;
            }
        }

        if (!OrderId(ref orderId)
            || orderId is null || customerId is null || currency is null || pending is null)
        {
            return Missing<OrderCommand.Place>(
                (orderId is null, "orderId"), (customerId is null, "customerId"), (currency is null, "currency"), (pending is null, "lines"));
        }

        // The currency may come after the lines, so the prices wait until here.
        var lines = new OrderLine[count];
        for (var index = 0; index < count; index++)
        {
            line = index;
            var (sku, quantity, unitPrice) = pending[index];
            if (!Minor(unitPrice, currency, "unitPrice", out var minor))
            {
                return null;
            }

            lines[index] = new OrderLine(sku, quantity, minor);
        }

        line = -1;
        if (!Money.TryTotal(lines, out _))
        {
            Reject(
                RejectionReason.AmountOutOfRange, $"The lines add up to more than {Money.MaxMinor} minor units of the currency; split the order.", Pointer("lines"));
            return null;
        }

        return new OrderCommand.Place(orderId, customerId, currency, lines, email, placedAt);
    }

    private OrderCommand.Pay? Pay()
    {
        string? orderId = null, paymentReference = null;
        decimal? amount = null;
        var seen = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("orderId"u8) ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : reader.ValueTextEquals("paymentReference"u8) ? Once(ref seen, 2, "paymentReference") && Text("paymentReference", MaxReferenceLength, out paymentReference)
                : reader.ValueTextEquals("amount"u8) ? Once(ref seen, 4, "amount") && PaidAmount(out amount)
                : Unknown("orderId, paymentReference, amount");
            if (!read)
            {
                return null;
            }
        }

        return OrderId(ref orderId) && orderId is not null && paymentReference is not null
            ? new OrderCommand.Pay(orderId, paymentReference, amount)
            : Missing<OrderCommand.Pay>((orderId is null, "orderId"), (paymentReference is null, "paymentReference"));
    }

    private OrderCommand.Ship? Ship()
    {
        string? orderId = null, carrier = null, trackingNumber = null;
        var seen = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("orderId"u8) ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : reader.ValueTextEquals("carrier"u8) ? Once(ref seen, 2, "carrier") && Text("carrier", MaxCarrierLength, out carrier)
                : reader.ValueTextEquals("trackingNumber"u8) ? Once(ref seen, 4, "trackingNumber") && Text("trackingNumber", MaxTrackingNumberLength, out trackingNumber)
                : Unknown("orderId, carrier, trackingNumber");
            if (!read)
            {
                return null;
            }
        }

        return OrderId(ref orderId) && orderId is not null
            ? new OrderCommand.Ship(orderId, carrier, trackingNumber)
            : Missing<OrderCommand.Ship>((orderId is null, "orderId"));
    }

    private OrderCommand.Deliver? Deliver()
    {
        string? orderId = null;
        var seen = 0;
        while (NextMember())
        {
            var read = reader.ValueTextEquals("orderId"u8)
                ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : Unknown("orderId");
            if (!read)
            {
                return null;
            }
        }

        return OrderId(ref orderId) && orderId is not null
            ? new OrderCommand.Deliver(orderId)
            : Missing<OrderCommand.Deliver>((orderId is null, "orderId"));
    }

    private OrderCommand.Cancel? Cancel()
    {
        string? orderId = null, reason = null;
        var seen = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("orderId"u8) ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : reader.ValueTextEquals("reason"u8) ? Once(ref seen, 2, "reason") && Text("reason", MaxReasonLength, out reason)
                : Unknown("orderId, reason");
            if (!read)
            {
                return null;
            }
        }

        return OrderId(ref orderId) && orderId is not null && reason is not null
            ? new OrderCommand.Cancel(orderId, reason)
            : Missing<OrderCommand.Cancel>((orderId is null, "orderId"), (reason is null, "reason"));
    }

    private bool Lines(out PendingLine[]? pending, out int count)
    {
        pending = null;
        count = 0;
        if (reader.TokenType == JsonTokenType.Null)
        {
            return true;
        }

        if (reader.TokenType != JsonTokenType.StartArray)
        {
            return WrongType("lines", "an array of objects");
        }

        var lines = pendingLines ??= new PendingLine[16];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (count == MaxLines)
            {
                line = -1;
                return Reject(RejectionReason.TooManyLines, $"lines has more than {MaxLines} entries; split the order.", Pointer("lines"));
            }

            if (count == lines.Length)
            {
                Array.Resize(ref lines, Math.Min(lines.Length * 4, MaxLines));
                pendingLines = lines;
            }

            line = count;
            if (!Line(out lines[count]))
            {
                return false;
            }

            count++;
        }

        line = -1;
        if (count == 0)
        {
            return Reject(RejectionReason.MissingField, "lines is empty; an order has at least one line.", Pointer("lines"));
        }

        pending = lines;
        return true;
    }

    private bool Line(out PendingLine read)
    {
        read = default;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return WrongType("", "an object with sku, quantity and unitPrice");
        }

        string? sku = null;
        int? quantity = null;
        AmountToken? unitPrice = null;
        var seen = 0;
        while (NextMember())
        {
            var known =
                reader.ValueTextEquals("sku"u8) ? Once(ref seen, 1, "sku") && Id("sku", out sku, recurs: true)
                : reader.ValueTextEquals("quantity"u8) ? Once(ref seen, 2, "quantity") && Quantity(out quantity)
                : reader.ValueTextEquals("unitPrice"u8) ? Once(ref seen, 4, "unitPrice") && Amount("unitPrice", out unitPrice)
                : Unknown("sku, quantity, unitPrice");
            if (!known)
            {
                return false;
            }
        }

        if (sku is null || quantity is null || unitPrice is null)
        {
            Missing<OrderCommand.Place>((sku is null, "sku"), (quantity is null, "quantity"), (unitPrice is null, "unitPrice"));
            return false;
        }

        read = new PendingLine(sku, quantity.Value, unitPrice.Value);
        return true;
    }

    /// <summary>Moves to the next member's name; false at the object's end.</summary>
    private bool NextMember() => reader.Read() && reader.TokenType == JsonTokenType.PropertyName;

    /// <summary>Moves to the value of a member that must not have been there before.</summary>
    private bool Once(ref int seen, int member, string name)
    {
        if ((seen & member) != 0)
        {
            return Reject(RejectionReason.DuplicateField, $"{Where(name)} appears twice; send it once.", Pointer(name));
        }

        seen |= member;
        return reader.Read();
    }

    // Every reader below leaves null for a JSON null: for an optional member that is "absent", for a required one "missing".

    /// <param name="recurs">Many commands have the same one.</param>
    private bool Id(string name, out string? id, bool recurs = false)
    {
        id = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "a string");
        }

        if (!reader.ValueIsEscaped && TextRules.IsId(reader.ValueSpan))
        {
            id = recurs ? RecurringText.Of(reader.ValueSpan) : reader.GetString();
            return true;
        }

        // An id that is far too long is not worth unescaping.
        if (reader.ValueSpan.Length <= 16 * TextRules.MaxIdLength)
        {
            var text = reader.GetString()!;
            if (TextRules.IsId(text))
            {
                id = text;
                return true;
            }

            if (TextRules.HasInvisible(text))
            {
                return Reject(
                    RejectionReason.TextInvalid, $"{Where(name)} holds a control or invisible character; an id has {TextRules.IdRule}.", Pointer(name));
            }
        }

        return Reject(RejectionReason.IdInvalid, $"{Where(name)} must be {TextRules.IdRule}.", Pointer(name));
    }

    /// <summary>Settles the order id between the body and the address.</summary>
    private bool OrderId(ref string? orderId)
    {
        if (orderIdFromPath is not null && orderId is not null && orderId != orderIdFromPath)
        {
            return Reject(RejectionReason.IdInvalid, "orderId differs from the order id in the address; leave it out or make both equal.", Pointer("orderId"));
        }

        orderId ??= orderIdFromPath;
        return true;
    }

    private bool Text(string name, int maxLength, out string? text)
    {
        text = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "a string");
        }

        // At most six bytes a character, as \u0000: what is longer than that is not worth unescaping.
        if (reader.ValueSpan.Length <= 6 * maxLength)
        {
            var given = reader.GetString()!;
            if (TextRules.HasForbiddenControl(given))
            {
                return Reject(
                    RejectionReason.TextInvalid, $"{Where(name)} holds a control character other than line feed and tab; remove it.", Pointer(name));
            }

            if (given.Length <= maxLength && !string.IsNullOrWhiteSpace(given))
            {
                text = given;
                return true;
            }
        }

        return Reject(RejectionReason.TextInvalid, $"{Where(name)} must have 1 to {maxLength} characters that are not all blank.", Pointer(name));
    }

    private bool Email(out string? email)
    {
        email = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("email", "a string");
        }

        if (reader.ValueSpan.Length <= 6 * TextRules.MaxEmailLength)
        {
            var given = reader.GetString()!;
            if (TextRules.IsEmail(given))
            {
                email = given;
                return true;
            }
        }

        return Reject(
            RejectionReason.TextInvalid, $"email must be one address (name@domain) of at most {TextRules.MaxEmailLength} characters, or be left out.", Pointer("email"));
    }

    private bool ReadCurrency(out Currency? currency)
    {
        currency = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("currency", "a string");
        }

        var found = reader.ValueIsEscaped
            ? reader.ValueSpan.Length <= 3 * 6 && Currency.TryGet(reader.GetString(), out currency)
            : Currency.TryGet(reader.ValueSpan, out currency);
        return found || Reject(
            RejectionReason.CurrencyUnknown, "currency must be an active ISO 4217 code in capital letters, such as EUR.", Pointer("currency"));
    }

    private bool Quantity(out int? quantity)
    {
        quantity = null;
        if (reader.TokenType != JsonTokenType.Number)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("quantity", "a number");
        }

        if (reader.ValueSpan.IndexOfAny((byte)'.', (byte)'e', (byte)'E') >= 0)
        {
            return WrongType("quantity", "an integer without decimals or exponent");
        }

        if (!reader.TryGetInt32(out var pieces) || pieces is < 1 or > MaxQuantity)
        {
            return Reject(RejectionReason.QuantityOutOfRange, $"{Where("quantity")} must be 1 to {MaxQuantity}.", Pointer("quantity"));
        }

        quantity = pieces;
        return true;
    }

    private bool Amount(string name, out AmountToken? amount)
    {
        amount = null;
        if (reader.TokenType != JsonTokenType.Number)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "a number (not a string)");
        }

        if (!AmountToken.TryParse(reader.ValueSpan, out var token))
        {
            return Reject(RejectionReason.AmountOutOfRange, $"{Where(name)} must not be negative.", Pointer(name));
        }

        amount = token;
        return true;
    }

    /// <summary>A payment's amount: positive; how many decimals it may have is decided with the order, but never more than any currency has.</summary>
    private bool PaidAmount(out decimal? amount)
    {
        amount = null;
        if (!Amount("amount", out var token) || token is not { } read)
        {
            return rejection is null;
        }

        if (read.Scale > Money.MaxDecimals)
        {
            return Reject(
                RejectionReason.AmountPrecision, $"amount has more decimals than any currency ({Money.MaxDecimals}); round it.", Pointer("amount"));
        }

        if (read.Coefficient is 0 or > Money.MaxMinor)
        {
            return Reject(RejectionReason.AmountOutOfRange, $"amount must be above 0 and at most {Money.MaxMinor} minor units of the currency.", Pointer("amount"));
        }

        amount = new decimal((int)read.Coefficient, (int)(read.Coefficient >> 32), 0, false, (byte)read.Scale);
        return true;
    }

    private bool Minor(AmountToken amount, Currency currency, string name, out long minor)
    {
        if (Money.TryToMinor(amount.Coefficient, amount.Scale, currency.Decimals, out minor))
        {
            return true;
        }

        return amount.Scale > currency.Decimals
            ? Reject(
                RejectionReason.AmountPrecision, $"{Where(name)} has more decimals than {currency.Code} has ({currency.Decimals}); round it.", Pointer(name))
            : Reject(RejectionReason.AmountOutOfRange, $"{Where(name)} must be at most {Money.MaxMinor} minor units of the currency.", Pointer(name));
    }

    private bool Time(string name, out DateTimeOffset? time)
    {
        time = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "a string");
        }

        // Some serializers escape the plus sign of an offset.
        Span<byte> buffer = stackalloc byte[256];
        var raw = reader.ValueSpan;
        if (raw.Length <= buffer.Length)
        {
            var text = reader.ValueIsEscaped ? buffer[..reader.CopyString(buffer)] : raw;
            if (TextRules.TryTime(text, out var read))
            {
                time = read;
                return true;
            }
        }

        return Reject(
            RejectionReason.TimeInvalid,
            $"{Where(name)} must be an RFC 3339 time with offset of the years 2000 to 2100, such as 2026-01-31T12:00:00Z.",
            Pointer(name));
    }

    private bool Unknown(string known)
    {
        // The name is chosen by the sender, so it is shown only as far as it looks like a name.
        var raw = reader.ValueSpan;
        Span<char> shown = stackalloc char[64];
        var length = Math.Min(raw.Length, shown.Length);
        for (var index = 0; index < length; index++)
        {
            var letter = (char)raw[index];
            shown[index] = char.IsAsciiLetterOrDigit(letter) || letter is '_' or '-' or '.' ? letter : '?';
        }

        return Reject(
            RejectionReason.UnknownField, $"There is no member \"{shown[..length]}\" here; the members are {known}, in exactly this spelling.", Pointer(""));
    }

    private bool WrongType(string name, string expected) => Reject(RejectionReason.WrongType, $"{Where(name)} must be {expected}.", Pointer(name));

    private T? Missing<T>(params ReadOnlySpan<(bool IsMissing, string Name)> members)
        where T : OrderCommand
    {
        if (rejection is null)
        {
            var names = new List<string>();
            foreach (var (isMissing, name) in members)
            {
                if (isMissing)
                {
                    names.Add(Pointer(name));
                }
            }

            Reject(RejectionReason.MissingField, $"{string.Join(", ", names)} must be there and not null.", names[0]);
        }

        return null;
    }

    /// <summary>The field in words; the pointer where there is no name.</summary>
    private readonly string Where(string name) => line < 0
        ? name.Length == 0 ? "The body" : name
        : $"Entry {line} of lines{(name.Length == 0 ? "" : $": {name}")}";

    private readonly string Pointer(string name) => (line, name.Length) switch
    {
        ( < 0, 0) => "",
        ( < 0, _) => "/" + name,
        (_, 0) => $"/lines/{line}",
        _ => $"/lines/{line}/{name}",
    };

    private bool Reject(string reason, string detail, string field)
    {
        rejection = new Rejection(reason, detail, field);
        return false;
    }

    private readonly record struct PendingLine(string Sku, int Quantity, AmountToken UnitPrice);
}
