using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>
/// Reads one command from JSON, strictly: every member known, none twice, every value in range. Written by hand over the token
/// reader, because this is the hottest code of the service and because a serializer's leniences (last duplicate wins, digits rounded,
/// time without offset) are each a way to take an order that nobody sent.
/// </summary>
internal ref partial struct CommandParser
{
    private const int MaxLines = 500;
    private const int MaxQuantity = 1_000_000;

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
    // Where the reader is, for what is said of a fault: the entry of an array, and the object within it or within the body.
    private int line;
    private string list;
    private string? inner;

    private CommandParser(ReadOnlySpan<byte> body, string? orderIdFromPath)
    {
        reader = new Utf8JsonReader(body, Strict);
        this.orderIdFromPath = orderIdFromPath;
        line = -1;
        list = "lines";
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

        var command = type == CommandType.Place ? Place() : Fields(CommandShapes.Of(type));

        // Reads on to the end of the body: anything but blanks there is an exception.
        return command is not null && !reader.Read() ? command : null;
    }

    private OrderCommand.Place? Place()
    {
        string? orderId = null, customerId = null, email = null, name = null, phone = null;
        PostalAddress? billing = null, shipping = null;
        Currency? currency = null;
        DateTimeOffset? placedAt = null;
        PendingLine[]? pending = null;
        CommandFields? more = null;
        var count = 0;
        var seen = 0;
        var seenMore = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("orderId"u8) ? Once(ref seen, 1, "orderId") && Id("orderId", out orderId)
                : reader.ValueTextEquals("customerId"u8) ? Once(ref seen, 2, "customerId") && Id("customerId", out customerId)
                : reader.ValueTextEquals("currency"u8) ? Once(ref seen, 4, "currency") && ReadCurrency(out currency)
                : reader.ValueTextEquals("lines"u8) ? Once(ref seen, 8, "lines") && Lines(out pending, out count)
                : reader.ValueTextEquals("email"u8) ? Once(ref seen, 16, "email") && Email(out email)
                : reader.ValueTextEquals("placedAt"u8) ? Once(ref seen, 32, "placedAt") && Time("placedAt", out placedAt)
                : reader.ValueTextEquals("name"u8) ? Once(ref seen, 64, "name") && SingleLine("name", MaxPersonNameLength, out name)
                : reader.ValueTextEquals("phone"u8) ? Once(ref seen, 128, "phone") && Phone(out phone)
                : reader.ValueTextEquals("billingAddress"u8) ? Once(ref seen, 256, "billingAddress") && Address(AddressNames.Billing, out billing)
                : reader.ValueTextEquals("shippingAddress"u8) ? Once(ref seen, 512, "shippingAddress") && Address(AddressNames.Shipping, out shipping)
                : Member(CommandShapes.PlaceMore, ref seenMore, more ??= new CommandFields(), CommandShapes.PlaceNames);
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
        var isPlain = more?.Details is null;
        for (var index = 0; index < count; index++)
        {
            line = index;
            var (sku, quantity, unitPrice, details) = pending[index];
            if (!Minor(unitPrice, currency, "unitPrice", out var minor))
            {
                return null;
            }

            lines[index] = new OrderLine(sku, quantity, minor) { Details = details };
            isPlain &= details is null;
        }

        line = -1;
        var command = new OrderCommand.Place(orderId, customerId, currency, lines, PersonalData.Of(name, email, phone, billing, shipping), placedAt) { Details = more?.Details, ExpectedVersion = more?.ExpectedVersion };
        return isPlain ? Plain(command) : Priced(command);
    }

    private OrderCommand.Place? Plain(OrderCommand.Place command)
    {
        if (Money.TryTotal(command.Lines, out _))
        {
            return command;
        }

        Reject(
            RejectionReason.AmountOutOfRange, $"The lines add up to more than {Money.MaxMinor} minor units of the currency; split the order.", Pointer("lines"));
        return null;
    }

    /// <summary>Whether the amounts fit the currency. Whether the total is right is decided with the order: that depends on how the shop rounds taxes.</summary>
    private OrderCommand.Place? Priced(OrderCommand.Place command)
    {
        if (LineIds.Twice(command.Lines) is not null)
        {
            Reject(RejectionReason.IdInvalid, "Two lines have the same lineId (a line without one has its place, counted from 1); give each its own.", "/lines");
            return null;
        }

        Pricing.TryPrice(command.Currency, command.Lines, command.Details, TaxRounding.LineHalfUp, checkTotal: false, out var fault);
        if (fault is null)
        {
            return command;
        }

        Reject(Rejection.ReasonOf(fault.Kind), fault.Detail, fault.Pointer);
        return null;
    }

    /// <summary>Reads a command as its row in the table of commands says.</summary>
    private OrderCommand? Fields(CommandShape shape)
    {
        var fields = new CommandFields();
        var seen = 0;
        while (NextMember())
        {
            if (!Member(shape.Members, ref seen, fields, shape.Names))
            {
                return null;
            }
        }

        if (!OrderId(ref fields.OrderId))
        {
            return null;
        }

        if (shape.Missing(fields) is { Count: > 0 } missing)
        {
            Reject(RejectionReason.MissingField, $"{string.Join(", ", missing.Select(name => "/" + name))} must be there and not null.", "/" + missing[0]);
            return null;
        }

        return shape.Build(fields);
    }

    private bool Member(CommandMember[] members, ref int seen, CommandFields fields, string names)
    {
        for (var index = 0; index < members.Length; index++)
        {
            if (reader.ValueTextEquals(members[index].Utf8Name))
            {
                return Once(ref seen, 1 << index, members[index].Name) && members[index].Read(ref this, fields);
            }
        }

        return Unknown(names);
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
        LineDetails? details = null;
        var seen = 0;
        while (NextMember())
        {
            var known =
                reader.ValueTextEquals("sku"u8) ? Once(ref seen, 1, "sku") && Id("sku", out sku, recurs: true)
                : reader.ValueTextEquals("quantity"u8) ? Once(ref seen, 2, "quantity") && Quantity(out quantity)
                : reader.ValueTextEquals("unitPrice"u8) ? Once(ref seen, 4, "unitPrice") && Amount("unitPrice", out unitPrice)
                : LineMore(ref seen, ref details);
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

        read = new PendingLine(sku, quantity.Value, unitPrice.Value, details);
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
    internal bool Id(string name, out string? id, bool recurs = false)
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

    internal bool Text(string name, int maxLength, out string? text)
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

    /// <summary>An amount above 0; how many decimals it may have is decided with the order, but never more than any currency has.</summary>
    internal bool PaidAmount(string name, out decimal? amount)
    {
        if (!Exact(name, out amount))
        {
            return false;
        }

        return amount is not 0 || Reject(RejectionReason.AmountOutOfRange, $"{Where(name)} must be above 0 and at most {Money.MaxMinor} minor units of the currency.", Pointer(name));
    }

    /// <summary>An amount of 0 or more whose currency is not known yet.</summary>
    internal bool Exact(string name, out decimal? amount)
    {
        amount = null;
        if (!Amount(name, out var token) || token is not { } read)
        {
            return rejection is null;
        }

        var fits = Exact(name, read, out var exact);
        amount = fits ? exact : null;
        return fits;
    }

    private bool Exact(string name, AmountToken read, out decimal amount)
    {
        amount = 0;
        if (read.Scale > Money.MaxDecimals)
        {
            return Reject(
                RejectionReason.AmountPrecision, $"{Where(name)} has more decimals than any currency ({Money.MaxDecimals}); round it.", Pointer(name));
        }

        if (read.Coefficient > Money.MaxMinor)
        {
            return Reject(RejectionReason.AmountOutOfRange, $"{Where(name)} must be at most {Money.MaxMinor} minor units of the currency.", Pointer(name));
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
    private readonly string Where(string name)
    {
        var place = inner is null ? name : name.Length == 0 ? inner : $"{inner}/{name}";
        return line < 0 ? place.Length == 0 ? "The body" : place : $"Entry {line} of {list}{(place.Length == 0 ? "" : $": {place}")}";
    }

    private readonly string Pointer(string name) =>
        $"{(line < 0 ? "" : $"/{list}/{line}")}{(inner is null ? "" : $"/{inner}")}{(name.Length == 0 ? "" : $"/{name}")}";

    private bool Reject(string reason, string detail, string field)
    {
        rejection = new Rejection(reason, detail, field);
        return false;
    }

    private readonly record struct PendingLine(string Sku, int Quantity, AmountToken UnitPrice, LineDetails? Details);
}
