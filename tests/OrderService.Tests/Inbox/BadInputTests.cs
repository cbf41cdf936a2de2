using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.Tests.Inbox;

/// <summary>
/// The catalogue of bad inputs of the message surface, B1 to B54, each with the reason its dead letter gets. What a decoder alone cannot
/// show is tested elsewhere: B36 to B40 (same key again, other bytes, one order under two keys) with the inbox, B42 to B46 (forged death
/// headers, user id, CC, expiration, transient) and B51 to B53 (foreign letters, superseded ones, the delivery limit) in the journeys with a broker.
/// </summary>
public sealed class BadInputTests
{
    private const string Good =
        """{"orderId":"A-1001","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""";

    private const string Malformed = RejectionReason.MalformedJson;
    private const string Wrong = RejectionReason.WrongType;
    private const string Range = RejectionReason.AmountOutOfRange;
    private const string Precision = RejectionReason.AmountPrecision;

    /// <summary>Bodies of order.place: number, body, reason, field.</summary>
    public static TheoryData<string, string, string, string?> Bodies { get; } = new()
    {
        { "B1", "", RejectionReason.BodyEmpty, null },
        { "B1 only a byte order mark", "\ufeff", RejectionReason.BodyEmpty, null },
        { "B2", "null", Malformed, "" },
        { "B2 blanks", " \n\t", Malformed, null },
        { "B3 array", "[]", Wrong, "" },
        { "B3 string", "\"x\"", Wrong, "" },
        { "B3 number", "42", Wrong, "" },
        { "B3 true", "true", Wrong, "" },
        { "B4 truncated", Good[..^1], Malformed, null },
        { "B4 truncated early", "{\"orderId\":\"A-1", Malformed, null },
        { "B4 trailing object", Good + "{}", Malformed, null },
        { "B4 trailing comma", Good[..^1] + ",}", Malformed, null },
        { "B4 comment", Good + "//", Malformed, null },
        { "B4 comment inside", Good.Insert(1, "/* */"), Malformed, null },
        { "B4 single quotes", "{'orderId':1}", Malformed, null },
        { "B4 a raw line feed in a string", With("orderId", "\"A\n1\""), Malformed, null },
        { "B4 malformed after an unknown member", "{\"foo\":1,", Malformed, null },
        { "B4 NaN", WithPrice("NaN"), Malformed, null },
        { "B4 a leading zero", WithPrice("01"), Malformed, null },
        { "B5 two byte order marks", "\ufeff\ufeff" + Good, Malformed, null },
        { "B7 lone high surrogate", With("email", "\"\\ud800\""), RejectionReason.InvalidEncoding, null },
        { "B7 lone low surrogate", With("email", "\"\\udc00x\""), RejectionReason.InvalidEncoding, null },
        { "B7 two high surrogates", With("email", "\"\\ud83d\\ud83d\""), RejectionReason.InvalidEncoding, null },
        { "B7 in an id", With("orderId", "\"\\uD800\""), RejectionReason.InvalidEncoding, null },
        { "B7 in a name", Good.Insert(1, "\"\\ud800\":1,"), RejectionReason.InvalidEncoding, null },
        { "B7 in an overlong text", With("email", $"\"{new string('x', 5000)}\\ud800\""), RejectionReason.InvalidEncoding, null },
        { "B8 NUL in an id", With("orderId", "\"A\\u0000\""), RejectionReason.TextInvalid, "/orderId" },
        { "B8 NUL in a text", With("email", "\"a\\u0000@example.org\""), RejectionReason.TextInvalid, "/email" },
        { "B9 ESC in an id", With("orderId", "\"A\\u001b[31m\""), RejectionReason.TextInvalid, "/orderId" },
        { "B9 direction override in an id", With("customerId", "\"C\u202e7\""), RejectionReason.TextInvalid, "/customerId" },
        { "B9 zero width in an id", WithLine("""{"sku":"KB\u200b01","quantity":1,"unitPrice":1}"""), RejectionReason.TextInvalid, "/lines/0/sku" },
        { "B9 line feed in an address", With("email", "\"a@example.org\\r\\nBcc: b@example.org\""), RejectionReason.TextInvalid, "/email" },
        { "B10 65 deep", new string('[', 65) + new string(']', 65), RejectionReason.DepthExceeded, null },
        { "B10 33 deep", With("lines", new string('[', 32) + new string(']', 32)), RejectionReason.DepthExceeded, null },
        { "B10 32 deep is only wrong", With("lines", new string('[', 31) + new string(']', 31)), Wrong, "/lines/0" },
        { "B10 10,000 deep", string.Concat(Enumerable.Repeat("{\"a\":", 10_000)), RejectionReason.DepthExceeded, null },
        { "B11", Good.Insert(1, "\"orderId\":\"A-1001\","), RejectionReason.DuplicateField, "/orderId" },
        { "B11 written with an escape", Good.Insert(1, "\"order\\u0049d\":\"A-1001\","), RejectionReason.DuplicateField, "/orderId" },
        { "B11 in a line", WithLine("""{"sku":"A","quantity":1,"quantity":2,"unitPrice":1}"""), RejectionReason.DuplicateField, "/lines/0/quantity" },
        { "B11 null and value", Good.Insert(1, "\"email\":null,\"email\":null,"), RejectionReason.DuplicateField, "/email" },
        { "B12", Good.Insert(1, "\"OrderId\":\"A-1001\","), RejectionReason.UnknownField, "" },
        { "B13", Good.Insert(1, "\"isAdmin\":true,"), RejectionReason.UnknownField, "" },
        { "B13 in a line", WithLine("""{"sku":"A","quantity":1,"unitPrice":1,"rebate":1}"""), RejectionReason.UnknownField, "/lines/0" },
        { "B13 an empty name", Good.Insert(1, "\"\":1,"), RejectionReason.UnknownField, "" },
        { "B14 missing", "{}", RejectionReason.MissingField, "/orderId" },
        { "B14 one missing", Good.Replace("\"customerId\":\"C-7\",", "", StringComparison.Ordinal), RejectionReason.MissingField, "/customerId" },
        { "B14 null", With("currency", "null"), RejectionReason.MissingField, "/currency" },
        { "B14 null lines", With("lines", "null"), RejectionReason.MissingField, "/lines" },
        { "B14 no lines", With("lines", "[]"), RejectionReason.MissingField, "/lines" },
        { "B14 in a line", WithLine("""{"sku":"A","quantity":null}"""), RejectionReason.MissingField, "/lines/0/quantity" },
        { "B15 quantity", WithQuantity("\"10\""), Wrong, "/lines/0/quantity" },
        { "B15 price", WithPrice("\"10\""), Wrong, "/lines/0/unitPrice" },
        { "B15 id as number", With("orderId", "1001"), Wrong, "/orderId" },
        { "B15 lines as object", With("lines", "{}"), Wrong, "/lines" },
        { "B15 line as null", With("lines", "[null]"), Wrong, "/lines/0" },
        { "B15 address as list", With("email", "[\"a@example.org\"]"), Wrong, "/email" },
        { "B15 time as number", With("placedAt", "1769860800"), Wrong, "/placedAt" },
        { "B15 currency as number", With("currency", "978"), Wrong, "/currency" },
        { "B16 35 digits after the point", WithPrice("0.12345678901234567890123456789012345"), Precision, "/lines/0/unitPrice" },
        { "B16 35 digits around the point", WithPrice("1234567890123456789012345678901.2345"), Precision, "/lines/0/unitPrice" },
        { "B16 a digit that a decimal would lose", WithPrice("49.90000000000000000000000000000001"), Precision, "/lines/0/unitPrice" },
        { "B16 35 digits of an integer", WithPrice("12345678901234567890123456789012345"), Range, "/lines/0/unitPrice" },
        { "B17", WithPrice("1e-30"), Precision, "/lines/0/unitPrice" },
        { "B17 far", WithPrice("1e-99999999999999999999"), Precision, "/lines/0/unitPrice" },
        { "B18", WithPrice("1e400"), Range, "/lines/0/unitPrice" },
        { "B18 far", WithPrice("1E+99999999999999999999"), Range, "/lines/0/unitPrice" },
        { "B18 beyond decimal", WithPrice("79228162514264337593543950336"), Range, "/lines/0/unitPrice" },
        { "B18 beyond the limit", WithPrice("10000000000000"), Range, "/lines/0/unitPrice" },
        { "B19 minus zero", WithPrice("-0.0"), Range, "/lines/0/unitPrice" },
        { "B19 negative", WithPrice("-1"), Range, "/lines/0/unitPrice" },
        { "B20", WithLine("""{"sku":"A","quantity":1000000,"unitPrice":9999999999999.99}"""), Range, "/lines" },
        { "B22", With("currency", "\"JPY\""), Precision, "/lines/0/unitPrice" },
        { "B22 the currency comes last", """{"orderId":"A","customerId":"C","lines":[{"sku":"S","quantity":1,"unitPrice":1},{"sku":"S","quantity":1,"unitPrice":1.5}],"currency":"JPY"}""", Precision, "/lines/1/unitPrice" },
        { "B23 lower case", With("currency", "\"usd\""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B23 sign", With("currency", "\"US$\""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B23 no currency", With("currency", "\"XXX\""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B23 blank", With("currency", "\"EUR \""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B23 empty", With("currency", "\"\""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B23 escaped", With("currency", "\"usd\\u0000\""), RejectionReason.CurrencyUnknown, "/currency" },
        { "B24 zero", WithQuantity("0"), RejectionReason.QuantityOutOfRange, "/lines/0/quantity" },
        { "B24 negative", WithQuantity("-1"), RejectionReason.QuantityOutOfRange, "/lines/0/quantity" },
        { "B24 beyond int", WithQuantity("2147483648"), RejectionReason.QuantityOutOfRange, "/lines/0/quantity" },
        { "B24 a million and one", WithQuantity("1000001"), RejectionReason.QuantityOutOfRange, "/lines/0/quantity" },
        { "B24 1.0", WithQuantity("1.0"), Wrong, "/lines/0/quantity" },
        { "B24 1.5", WithQuantity("1.5"), Wrong, "/lines/0/quantity" },
        { "B24 1e1", WithQuantity("1e1"), Wrong, "/lines/0/quantity" },
        { "B25 501", WithLines(501), RejectionReason.TooManyLines, "/lines" },
        { "B25 20,000", WithLines(20_000), RejectionReason.TooManyLines, "/lines" },
        { "B25 100,001", WithLines(100_001), RejectionReason.BodyTooLarge, null },
        { "B27 no such day", With("placedAt", "\"2026-02-30T00:00:00Z\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 no offset", With("placedAt", "\"2026-01-31T00:00:00\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 year 1", With("placedAt", "\"0001-01-01T00:00:00+14:00\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 year 9999", With("placedAt", "\"9999-12-31T23:59:59-14:00\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 year 1999", With("placedAt", "\"1999-12-31T23:59:59Z\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 offset too far", With("placedAt", "\"2026-01-31T00:00:00+14:01\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 leap second", With("placedAt", "\"2016-12-31T23:59:60Z\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 a date alone", With("placedAt", "\"2026-01-31\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 a blank for the T", With("placedAt", "\"2026-01-31 00:00:00Z\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 no digits in the fraction", With("placedAt", "\"2026-01-31T00:00:00.Z\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B27 empty", With("placedAt", "\"\""), RejectionReason.TimeInvalid, "/placedAt" },
        { "B28", WithPrice("1e999"), Range, "/lines/0/unitPrice" },
        { "B29 Cyrillic", With("orderId", "\"\u0410-1001\""), RejectionReason.IdInvalid, "/orderId" },
        { "B29 full width", With("orderId", "\"A-\uff11\""), RejectionReason.IdInvalid, "/orderId" },
        { "B29 Arabic digits", With("orderId", "\"A-\u0661\""), RejectionReason.IdInvalid, "/orderId" },
        { "B29 trailing line feed", With("orderId", "\"A-1\\n\""), RejectionReason.TextInvalid, "/orderId" },
        { "B30 65 characters", With("orderId", $"\"{new string('a', 65)}\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 10,000 characters", With("orderId", $"\"{new string('a', 10_000)}\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 empty", With("orderId", "\"\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 path", With("orderId", "\"../../x\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 SQL", With("orderId", "\"' or 1=1--\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 script", With("customerId", "\"<script>\""), RejectionReason.IdInvalid, "/customerId" },
        { "B30 percent", With("orderId", "\"%00\""), RejectionReason.IdInvalid, "/orderId" },
        { "B30 template", With("orderId", "\"{{7*7}}\""), RejectionReason.IdInvalid, "/orderId" },
        { "B31", Good + new string(' ', EnvelopeDecoder.MaxBodyBytes + 1 - Good.Length), RejectionReason.BodyTooLarge, null },
        { "B80 no address", With("email", "\"someone\""), RejectionReason.TextInvalid, "/email" },
        { "B80 two addresses", With("email", "\"a@example.org,b@example.org\""), RejectionReason.TextInvalid, "/email" },
        { "B80 two signs", With("email", "\"a@b@example.org\""), RejectionReason.TextInvalid, "/email" },
        { "B80 display name", With("email", "\"A <a@example.org>\""), RejectionReason.TextInvalid, "/email" },
        { "B80 255 characters", With("email", $"\"a@{string.Join('.', Enumerable.Repeat(new string('x', 62), 4))}.x\""), RejectionReason.TextInvalid, "/email" },
        { "B80 empty", With("email", "\"\""), RejectionReason.TextInvalid, "/email" },
    };

    /// <summary>Bodies of the other commands: number, type, body, reason, field.</summary>
    public static TheoryData<string, string, string, string, string?> OtherBodies { get; } = new()
    {
        { "B8 text", CommandType.Cancel, """{"orderId":"A","reason":"a\u0000b"}""", RejectionReason.TextInvalid, "/reason" },
        { "B9 ESC in a text", CommandType.Cancel, """{"orderId":"A","reason":"\u001b[2J"}""", RejectionReason.TextInvalid, "/reason" },
        { "B9 carriage return in a text", CommandType.Cancel, """{"orderId":"A","reason":"a\r\nb"}""", RejectionReason.TextInvalid, "/reason" },
        { "B13", CommandType.Deliver, """{"orderId":"A","at":1}""", RejectionReason.UnknownField, "" },
        { "B14 pay", CommandType.Pay, """{"orderId":"A"}""", RejectionReason.MissingField, "/paymentReference" },
        { "B14 cancel", CommandType.Cancel, """{"reason":"x"}""", RejectionReason.MissingField, "/orderId" },
        { "B14 ship", CommandType.Ship, "{}", RejectionReason.MissingField, "/orderId" },
        { "B14 deliver", CommandType.Deliver, """{"orderId":null}""", RejectionReason.MissingField, "/orderId" },
        { "B15 pay", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":"1"}""", Wrong, "/amount" },
        { "B16 pay", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":1.00001}""", Precision, "/amount" },
        { "B17 pay", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":1e-30}""", Precision, "/amount" },
        { "B18 pay", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":1e400}""", Range, "/amount" },
        { "B19 zero", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":0.00}""", Range, "/amount" },
        { "B19 negative", CommandType.Pay, """{"orderId":"A","paymentReference":"P","amount":-1}""", Range, "/amount" },
        { "B30 text too long", CommandType.Cancel, $$"""{"orderId":"A","reason":"{{new string('x', 501)}}"}""", RejectionReason.TextInvalid, "/reason" },
        { "B30 text far too long", CommandType.Ship, $$"""{"orderId":"A","carrier":"{{new string('x', 100_000)}}"}""", RejectionReason.TextInvalid, "/carrier" },
        { "B30 text blank", CommandType.Cancel, """{"orderId":"A","reason":" \n"}""", RejectionReason.TextInvalid, "/reason" },
        { "B30 text empty", CommandType.Ship, """{"orderId":"A","trackingNumber":""}""", RejectionReason.TextInvalid, "/trackingNumber" },
        { "B48 version", "v999", """{"orderId":"A"}""", RejectionReason.UnknownCommand, null },
        { "B48 line feed", "order.place\n", Good, RejectionReason.UnknownCommand, null },
        { "B48 case", "Order.Place", Good, RejectionReason.UnknownCommand, null },
    };

    [Theory]
    [MemberData(nameof(Bodies))]
    public void A_bad_order_is_named_and_pointed_at(string number, string body, string reason, string? field)
    {
        _ = number;

        AssertInvalid(new MessageProperties(), Encoding.UTF8.GetBytes(body), reason, field);
    }

    [Theory]
    [MemberData(nameof(OtherBodies))]
    public void Another_bad_command_is_named_and_pointed_at(string number, string type, string body, string reason, string? field)
    {
        _ = number;

        AssertInvalid(new MessageProperties { Type = type }, Encoding.UTF8.GetBytes(body), reason, field);
    }

    [Fact]
    public void B5_one_byte_order_mark_is_no_content() =>
        Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(new MessageProperties(), Encoding.UTF8.GetBytes("\ufeff" + Good)));

    [Theory]
    [InlineData("utf-16")]
    [InlineData("utf-16BE")]
    [InlineData("utf-32")]
    [InlineData("utf-32BE")]
    public void B6_another_encoding_is_not_guessed(string encoding)
    {
        var bytes = Encoding.GetEncoding(encoding).GetBytes(Good);

        AssertInvalid(new MessageProperties(), bytes, RejectionReason.InvalidEncoding, null);
        AssertInvalid(new MessageProperties(), [.. Encoding.GetEncoding(encoding).GetPreamble(), .. bytes], RejectionReason.InvalidEncoding, null);
    }

    [Theory]
    [InlineData(new byte[] { 0xE4 })]
    [InlineData(new byte[] { 0xC0, 0x80 })]
    [InlineData(new byte[] { 0xED, 0xA0, 0x80 })]
    [InlineData(new byte[] { 0xF4, 0x90, 0x80, 0x80 })]
    [InlineData(new byte[] { 0xFF })]
    public void B6_bytes_that_are_not_UTF8_are_refused(byte[] wrong)
    {
        byte[] body = [.. "{\"orderId\":\"A\",\"reason\":\""u8, .. wrong, .. "\"}"u8];

        AssertInvalid(new MessageProperties { Type = CommandType.Cancel }, body, RejectionReason.InvalidEncoding, null);
    }

    [Theory]
    [InlineData("\\n\\t")]
    [InlineData("\\ud83d\\ude00")]
    [InlineData("\\uD83D\\uDE00 \\u00e4 \\\\ud800 \\\" \\/ <script> '; drop table")]
    [InlineData("\u202eright to left\u202c, zero\u200dwidth")]
    public void B9_free_text_may_be_anything_that_people_write(string reason)
    {
        var decoded = Decode(CommandType.Cancel, $$"""{"orderId":"A","reason":"x{{reason}}"}""");

        Assert.IsType<OrderCommand.Cancel>(Assert.IsType<Decoded.Valid>(decoded).Envelope.Command);
    }

    [Theory]
    [InlineData("0", 0)]
    [InlineData("0.00", 0)]
    [InlineData("0e400", 0)]
    [InlineData("49.9", 4990)]
    [InlineData("49.900000000000000000000000000000000000", 4990)]
    [InlineData("4.99e1", 4990)]
    [InlineData("4990e-2", 4990)]
    [InlineData("5E3", 500000)]
    [InlineData("100.0", 10000)]
    [InlineData("9999999999999.99", Money.MaxMinor)]
    public void B16_what_is_exact_is_taken_however_it_is_written(string price, long minor)
    {
        var decoded = Decode(CommandType.Place, WithLine($$"""{"sku":"KB-01","quantity":1,"unitPrice":{{price}}}"""));

        var place = Assert.IsType<OrderCommand.Place>(Assert.IsType<Decoded.Valid>(decoded).Envelope.Command);
        Assert.Equal(minor, place.Lines[0].UnitPriceMinor);
    }

    [Fact]
    public void B25_500_lines_are_an_order() =>
        Assert.Equal(500, Assert.IsType<OrderCommand.Place>(Assert.IsType<Decoded.Valid>(Decode(CommandType.Place, WithLines(500))).Envelope.Command).Lines.Count);

    [Theory]
    [InlineData("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.0000000+00:00")]
    [InlineData("2024-02-29t23:59:59.5z", "2024-02-29T23:59:59.5000000+00:00")]
    [InlineData("2026-01-31T12:00:00.123456789+01:00", "2026-01-31T12:00:00.1234567+01:00")]
    [InlineData("2026-01-31T12:00:00\\u002B05:45", "2026-01-31T12:00:00.0000000+05:45")]
    [InlineData("2100-12-31T23:59:59-14:00", "2100-12-31T23:59:59.0000000-14:00")]
    public void B27_times_are_read_with_their_offset(string written, string read)
    {
        var decoded = Decode(CommandType.Place, With("placedAt", $"\"{written}\""));

        var place = Assert.IsType<OrderCommand.Place>(Assert.IsType<Decoded.Valid>(decoded).Envelope.Command);
        Assert.Equal(read, place.PlacedAt?.ToString("O", System.Globalization.CultureInfo.InvariantCulture));
    }

    [Fact]
    public void B31_a_body_of_exactly_one_mebibyte_is_read() =>
        Assert.IsType<Decoded.Valid>(Decode(CommandType.Place, Good + new string(' ', EnvelopeDecoder.MaxBodyBytes - Good.Length)));

    [Theory]
    [InlineData(null, true)]
    [InlineData("", true)]
    [InlineData("application/json", true)]
    [InlineData("Application/JSON; charset=UTF-8", true)]
    [InlineData("application/json;charset=\"utf-8\"", true)]
    [InlineData("application/json;", true)]
    [InlineData("text/plain", false)]
    [InlineData("application/xml", false)]
    [InlineData("application/json; charset=utf-16", false)]
    [InlineData("application/json; version=2", false)]
    [InlineData("application/vnd.order+json", false)]
    [InlineData("application/jsonx", false)]
    public void B32_only_JSON_in_UTF8_is_a_content_type(string? contentType, bool accepted)
    {
        var properties = new MessageProperties { ContentType = contentType };
        if (accepted)
        {
            Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, Encoding.UTF8.GetBytes(Good)));
        }
        else
        {
            AssertInvalid(properties, Encoding.UTF8.GetBytes(Good), RejectionReason.UnsupportedContentType, null);
        }
    }

    [Theory]
    [InlineData(null, true)]
    [InlineData("", true)]
    [InlineData("identity", true)]
    [InlineData("UTF-8", true)]
    [InlineData("gzip", false)]
    [InlineData("br", false)]
    [InlineData("identity, gzip", false)]
    public void B33_nothing_is_unpacked(string? contentEncoding, bool accepted)
    {
        var properties = new MessageProperties { ContentEncoding = contentEncoding };
        if (accepted)
        {
            Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, Encoding.UTF8.GetBytes(Good)));
        }
        else
        {
            AssertInvalid(properties, Encoding.UTF8.GetBytes(Good), RejectionReason.UnsupportedContentEncoding, null);
        }
    }

    [Fact]
    public void B34_without_a_key_the_content_is_the_key()
    {
        var bytes = Encoding.UTF8.GetBytes(Good);
        var hash = System.Security.Cryptography.SHA256.HashData([.. "order.place\n"u8, .. bytes]);

        var envelope = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(new MessageProperties(), bytes)).Envelope;

        Assert.Equal("sha256:" + Convert.ToHexStringLower(hash), envelope.Key);
        Assert.Equal(hash, envelope.Fingerprint);
    }

    [Theory]
    [InlineData(" ")]
    [InlineData("a b")]
    [InlineData("a\0")]
    [InlineData("a\n")]
    [InlineData("schlüssel")]
    [InlineData("\u007f")]
    public void B35_a_key_is_visible_ASCII(string key)
    {
        AssertInvalid(new MessageProperties { MessageId = key }, Encoding.UTF8.GetBytes(Good), RejectionReason.KeyInvalid, null);
        AssertInvalid(WithHeader(key), Encoding.UTF8.GetBytes(Good), RejectionReason.KeyInvalid, null);
        AssertInvalid(WithHeader(Encoding.UTF8.GetBytes(key)), Encoding.UTF8.GetBytes(Good), RejectionReason.KeyInvalid, null);
    }

    [Fact]
    public void B35_a_key_has_at_most_255_bytes()
    {
        AssertInvalid(new MessageProperties { MessageId = new string('k', 256) }, Encoding.UTF8.GetBytes(Good), RejectionReason.KeyInvalid, null);
        Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(new MessageProperties { MessageId = new string('k', 255) }, Encoding.UTF8.GetBytes(Good)));
    }

    [Fact]
    public void B41_a_key_that_is_no_text_is_refused_and_not_cast()
    {
        object?[] headers =
        [
            null, 42, 42L, true, 1.5, new List<object> { "a" }, new Dictionary<string, object?> { ["a"] = 1 }, new byte[] { 0xFF, 0xFE }, DateTimeOffset.UnixEpoch,
        ];

        Assert.All(headers, header => AssertInvalid(WithHeader(header), Encoding.UTF8.GetBytes(Good), RejectionReason.PropertyInvalid, null));
    }

    [Fact]
    public void B42_to_B50_what_else_comes_with_a_message_is_ignored()
    {
        var properties = new MessageProperties
        {
            MessageId = "k-1",
            ReplyTo = "amq.rabbitmq.reply-to",
            Expiration = "abc",
            Timestamp = long.MaxValue,
            Priority = 255,
            DeliveryMode = 1,
            UserId = "somebody",
            AppId = new string('x', 255),
            Headers = new Dictionary<string, object?>
            {
                ["x-delivery-count"] = 999L,
                ["x-death"] = new List<object?> { new Dictionary<string, object?> { ["queue"] = "orders" } },
                ["CC"] = new List<object?> { "other" },
                ["baggage"] = new byte[64 * 1024],
                [ReplayMark.Header] = "1/x",
            },
        };

        var envelope = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, Encoding.UTF8.GetBytes(Good))).Envelope;

        Assert.Equal("k-1", envelope.Key);
        Assert.Null(envelope.Replay);
    }

    [Theory]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true)]
    [InlineData("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false)]
    [InlineData("00-00000000000000000000000000000000-b7ad6b7169203331-01", false)]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false)]
    [InlineData("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false)]
    [InlineData("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", false)]
    [InlineData("nonsense", false)]
    [InlineData("", false)]
    public void B49_a_malformed_trace_context_is_ignored(string traceParent, bool kept)
    {
        foreach (var header in new object[] { traceParent, Encoding.UTF8.GetBytes(traceParent) })
        {
            var properties = new MessageProperties
            {
                Headers = new Dictionary<string, object?> { ["traceparent"] = header, ["tracestate"] = "vendor=1" },
            };

            var envelope = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, Encoding.UTF8.GetBytes(Good))).Envelope;

            Assert.Equal(kept ? traceParent : null, envelope.TraceParent);
            Assert.Equal(kept ? "vendor=1" : null, envelope.TraceState);
        }
    }

    [Fact]
    public void B49_a_trace_state_of_8_KB_is_ignored()
    {
        var properties = new MessageProperties
        {
            Headers = new Dictionary<string, object?>
            {
                ["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ["tracestate"] = new byte[8 * 1024],
            },
        };

        var envelope = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, Encoding.UTF8.GetBytes(Good))).Envelope;

        Assert.NotNull(envelope.TraceParent);
        Assert.Null(envelope.TraceState);
    }

    /// <summary>Bodies of nearly 1 MiB that make careless parsers slow.</summary>
    public static TheoryData<string> SlowBodies { get; } = ["arrays", "objects", "long number", "long exponent", "escapes", "unknown escapes", "blanks", "lines", "long name", "surrogates"];

    [Theory]
    [MemberData(nameof(SlowBodies))]
    public void B54_no_body_is_slow(string kind)
    {
        const int Size = EnvelopeDecoder.MaxBodyBytes - 1024;
        var body = Encoding.UTF8.GetBytes(kind switch
        {
            "arrays" => new string('[', Size / 2) + new string(']', Size / 2),
            "objects" => string.Concat(Enumerable.Repeat("{\"orderId\":", Size / 11)),
            "long number" => WithPrice(new string('9', Size)),
            "long exponent" => WithPrice("0." + new string('0', Size / 2) + "1e" + new string('9', Size / 2)),
            "escapes" => With("email", '"' + string.Concat(Enumerable.Repeat("\\u0041", Size / 6)) + '"'),
            "unknown escapes" => Good.Insert(1, '"' + string.Concat(Enumerable.Repeat("\\n", Size / 2)) + "\":1,"),
            "blanks" => Good + new string('\n', Size - Good.Length),
            "lines" => WithLines(Size / 48),
            "long name" => Good.Insert(1, '"' + new string('a', Size - Good.Length) + "\":1,"),
            _ => With("email", '"' + string.Concat(Enumerable.Repeat("\\ud83d\\ude00", Size / 12)) + '"'),
        });
        EnvelopeDecoder.Decode(new MessageProperties(), body);

        // The best of several, in processor time of this thread: the machine may be busy with other things.
        var best = Enumerable.Range(0, 5).Min(_ =>
        {
            var started = ThreadTime();
            EnvelopeDecoder.Decode(new MessageProperties(), body);
            return ThreadTime() - started;
        });

        Assert.True(best < TimeSpan.FromMilliseconds(100), $"{kind} took {best.TotalMilliseconds} ms.");
    }

    private static TimeSpan ThreadTime()
    {
        const int ThreadCpuClock = 3;
        return OperatingSystem.IsLinux() && clock_gettime(ThreadCpuClock, out var time) == 0
            ? TimeSpan.FromSeconds(time.Seconds) + TimeSpan.FromMicroseconds(time.Nanoseconds / 1_000)
            : Stopwatch.GetElapsedTime(0);
    }

    [DllImport("libc")]
    private static extern int clock_gettime(int clock, out ClockTime time);

    private readonly record struct ClockTime(nint Seconds, nint Nanoseconds);

    private static Decoded Decode(string type, string body) =>
        EnvelopeDecoder.Decode(new MessageProperties { Type = type }, Encoding.UTF8.GetBytes(body));

    private static MessageProperties WithHeader(object? key) =>
        new() { MessageId = "other", Headers = new Dictionary<string, object?> { [EnvelopeDecoder.KeyHeader] = key } };

    private static void AssertInvalid(MessageProperties properties, byte[] body, string reason, string? field)
    {
        var invalid = Assert.IsType<Decoded.Invalid>(EnvelopeDecoder.Decode(properties, body));
        Assert.Equal(reason, invalid.Rejection.Reason);
        Assert.Equal(field, invalid.Rejection.Field);
        Assert.EndsWith(".", invalid.Rejection.Detail, StringComparison.Ordinal);
        Assert.True(EnvelopeDecoder.IsKey(invalid.Key));
        Assert.Equal(32, invalid.Fingerprint.Length);
    }

    /// <summary>The good order with one member replaced, or added.</summary>
    private static string With(string member, string json)
    {
        string[] parts = ["\"orderId\":\"A-1001\"", "\"customerId\":\"C-7\"", "\"currency\":\"EUR\"", "\"lines\":[{\"sku\":\"KB-01\",\"quantity\":2,\"unitPrice\":49.90}]"];
        var index = Array.FindIndex(parts, part => part.StartsWith($"\"{member}\":", StringComparison.Ordinal));
        var changed = $"\"{member}\":{json}";
        return "{" + string.Join(',', index < 0 ? [.. parts, changed] : parts.Select((part, at) => at == index ? changed : part)) + "}";
    }

    private static string WithLine(string line) => With("lines", $"[{line}]");

    private static string WithPrice(string price) => WithLine($$"""{"sku":"KB-01","quantity":2,"unitPrice":{{price}}}""");

    private static string WithQuantity(string quantity) => WithLine($$"""{"sku":"KB-01","quantity":{{quantity}},"unitPrice":49.90}""");

    private static string WithLines(int count) =>
        With("lines", "[" + string.Join(',', Enumerable.Repeat("""{"sku":"KB-01","quantity":2,"unitPrice":49.90}""", count)) + "]");
}
