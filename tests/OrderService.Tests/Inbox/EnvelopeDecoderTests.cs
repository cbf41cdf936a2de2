using System.Text;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.Tests.Inbox;

public sealed class EnvelopeDecoderTests
{
    private static readonly byte[] Good = Encoding.UTF8.GetBytes(
        """{"orderId":"A-1001","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"someone@example.org","placedAt":"2026-01-31T12:00:00+01:00"}""");

    /// <summary>What the broker hands out of an AMQP 1.0 message whose body is a text or a list: RabbitMQ 4.0.5, python3-qpid-proton 0.37.</summary>
    [Theory]
    [InlineData("005377A10E7B226F726465724964223A317D", "amqp-1.0")]
    [InlineData("0053 77B10000000E7B226F726465724964223A317D", "amqp-1.0")]
    [InlineData("005376C00A01A1077B2261223A317D", "amqp-1.0")]
    [InlineData("00800000000000000077A1027B7D", "amqp-1.0")]
    [InlineData("005377A1027B7D", "order.place")]
    [InlineData("005377A1027B7D", null)]
    public void An_AMQP_1_0_value_is_called_by_its_name(string hex, string? type)
    {
        var properties = new MessageProperties { Type = type, ContentType = "text/plain" };

        var invalid = Assert.IsType<Decoded.Invalid>(EnvelopeDecoder.Decode(properties, Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal))));

        Assert.Equal((RejectionReason.InvalidEncoding, EnvelopeDecoder.AmqpSectionDetail), (invalid.Rejection.Reason, invalid.Rejection.Detail));
        Assert.Equal("A message is an AMQP 1.0 value instead of bytes", OrderService.DeadLetters.Incident.Of(invalid.Rejection, null).Title);
    }

    [Fact]
    public void An_empty_key_is_absent_as_an_empty_type_is()
    {
        var body = Encoding.UTF8.GetBytes("""{"orderId":"A-1"}""");
        var derived = EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint(CommandType.Deliver, body));

        Assert.Equal(derived, Key(new MessageProperties { Type = CommandType.Deliver, MessageId = "" }));
        Assert.Equal(derived, Key(new MessageProperties { Type = CommandType.Deliver, MessageId = "", Headers = new Dictionary<string, object?> { [EnvelopeDecoder.KeyHeader] = "" } }));
        Assert.Equal("k-1", Key(new MessageProperties { Type = CommandType.Deliver, MessageId = "k-1", Headers = new Dictionary<string, object?> { [EnvelopeDecoder.KeyHeader] = Array.Empty<byte>() } }));

        string Key(MessageProperties properties) => Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, body)).Envelope.Key;
    }

    /// <summary>A command that was added and not taught to the parser or the writer is found here, by its name.</summary>
    [Fact]
    public void Every_command_is_read_as_itself_and_written_as_it_was_read()
    {
        var bodies = new Dictionary<string, byte[]>
        {
            [CommandType.Place] = Good,
            [CommandType.Pay] = """{"orderId":"A-1","paymentReference":"P-1"}"""u8.ToArray(),
            [CommandType.Ship] = """{"orderId":"A-1"}"""u8.ToArray(),
            [CommandType.Deliver] = """{"orderId":"A-1"}"""u8.ToArray(),
            [CommandType.Cancel] = """{"orderId":"A-1","reason":"changed my mind"}"""u8.ToArray(),
            [CommandType.Authorize] = """{"orderId":"A-1","paymentReference":"AUTH-1","amount":1}"""u8.ToArray(),
            [CommandType.Capture] = """{"orderId":"A-1","paymentReference":"AUTH-1"}"""u8.ToArray(),
            [CommandType.Refund] = """{"orderId":"A-1","refundReference":"REF-1","amount":1}"""u8.ToArray(),
            [CommandType.Amend] = """{"orderId":"A-1","attributes":{"gift":"yes"}}"""u8.ToArray(),
            [CommandType.Hold] = """{"orderId":"A-1","reason":"fraud?"}"""u8.ToArray(),
            [CommandType.Release] = """{"orderId":"A-1"}"""u8.ToArray(),
            [CommandType.Return] = """{"orderId":"A-1","returnId":"R-1","lines":[{"lineId":"1","quantity":1}],"reason":"too small"}"""u8.ToArray(),
        };
        Assert.Equal(typeof(OrderCommand).GetNestedTypes().Count(type => type.IsSubclassOf(typeof(OrderCommand))), CommandType.All.Count);
        foreach (var type in CommandType.All)
        {
            var command = Valid(new MessageProperties { Type = type }, bodies[type]).Command;
            Assert.Equal(type, command.Type);
            Assert.Equal(type, Valid(new MessageProperties { Type = type }, CommandWriter.Write(command)).Command.Type);
        }
    }

    [Fact]
    public void The_plainest_producer_is_understood()
    {
        var envelope = Valid(new MessageProperties(), Good);

        var place = Assert.IsType<OrderCommand.Place>(envelope.Command);
        Assert.Equal(("A-1001", "C-7", "EUR"), (place.OrderId, place.CustomerId, place.Currency.Code));
        Assert.Equal([new OrderLine("KB-01", 2, 49_90)], place.Lines);
        Assert.Equal("someone@example.org", place.Personal?.Email);
        Assert.Equal(new DateTimeOffset(2026, 1, 31, 12, 0, 0, TimeSpan.FromHours(1)), place.PlacedAt);
        Assert.Equal(envelope.Key, envelope.CorrelationId);
    }

    [Theory]
    [InlineData(CommandType.Pay, """{"orderId":"A-1","paymentReference":"pi_3N / x","amount":99.8}""")]
    [InlineData(CommandType.Pay, """{"paymentReference":"P","orderId":"A-1","amount":null}""")]
    [InlineData(CommandType.Ship, """{"orderId":"A-1"}""")]
    [InlineData(CommandType.Ship, """{"orderId":"A-1","carrier":"DHL","trackingNumber":"00340434161094042557"}""")]
    [InlineData(CommandType.Deliver, """{"orderId":"A-1"}""")]
    [InlineData(CommandType.Cancel, """ { "orderId" : "A-1" , "reason" : "changed my mind" } """)]
    public void Every_command_is_understood(string type, string body)
    {
        var command = Valid(new MessageProperties { Type = type }, Encoding.UTF8.GetBytes(body)).Command;

        Assert.Equal((type, "A-1"), (command.Type, command.OrderId));
    }

    [Fact]
    public void The_type_is_part_of_what_makes_a_message_the_same()
    {
        var body = """{"orderId":"A-1"}"""u8.ToArray();

        var ship = Valid(new MessageProperties { Type = CommandType.Ship }, body);
        var deliver = Valid(new MessageProperties { Type = CommandType.Deliver }, body);

        Assert.NotEqual(ship.Key, deliver.Key);
    }

    [Fact]
    public void Lines_of_one_order_are_never_those_of_another()
    {
        // More, fewer, and before each one that fails at its last line: what they are read into is used again and again.
        foreach (var count in new[] { 1, 40, 500, 2, 17 })
        {
            var lines = Enumerable.Range(1, count).Select(number => $$"""{"sku":"S-{{count}}-{{number}}","quantity":{{number}},"unitPrice":1}""").ToList();
            var body = $$"""{"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{{string.Join(',', lines)}}]}""";
            var broken = body.Replace($"\"quantity\":{count},", "\"quantity\":0,", StringComparison.Ordinal);

            Assert.IsType<Decoded.Invalid>(EnvelopeDecoder.Decode(new MessageProperties(), Encoding.UTF8.GetBytes(broken)));
            var place = Assert.IsType<OrderCommand.Place>(Valid(new MessageProperties(), Encoding.UTF8.GetBytes(body)).Command);

            Assert.Equal(Enumerable.Range(1, count).Select(number => new OrderLine($"S-{count}-{number}", number, 1_00)), place.Lines);
        }
    }

    [Fact]
    public void An_article_number_that_comes_again_is_the_same_string()
    {
        var first = Assert.IsType<OrderCommand.Place>(Valid(new MessageProperties(), Good).Command);
        var second = Assert.IsType<OrderCommand.Place>(Valid(new MessageProperties(), Good).Command);

        Assert.Same(first.Lines[0].Sku, second.Lines[0].Sku);
        Assert.NotSame(first.CustomerId, second.CustomerId);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    public void No_type_and_the_type_of_a_placed_order_are_the_same(string? type) =>
        Assert.Equal(
            Valid(new MessageProperties { Type = CommandType.Place }, Good).Key, Valid(new MessageProperties { Type = type }, Good).Key);

    [Fact]
    public void The_header_wins_over_the_message_id()
    {
        var headers = new Dictionary<string, object?> { ["idempotency-key"] = Encoding.UTF8.GetBytes("from-header") };

        Assert.Equal("from-header", Valid(new MessageProperties { MessageId = "from-property", Headers = headers }, Good).Key);
        Assert.Equal("from-property", Valid(new MessageProperties { MessageId = "from-property" }, Good).Key);
    }

    [Theory]
    [InlineData("c-1", "c-1")]
    [InlineData("c 1", "k-1")]
    [InlineData("c\u001b", "k-1")]
    [InlineData("", "k-1")]
    [InlineData(null, "k-1")]
    public void A_correlation_id_that_is_of_no_use_is_replaced_by_the_key(string? given, string used) =>
        Assert.Equal(used, Valid(new MessageProperties { MessageId = "k-1", CorrelationId = given }, Good).CorrelationId);

    [Theory]
    [InlineData("17/2", 17, 2)]
    [InlineData("17/0", null, null)]
    [InlineData("17", null, null)]
    [InlineData("/2", null, null)]
    [InlineData("-1/2", null, null)]
    [InlineData("1/2/3", null, null)]
    [InlineData("99999999999999999999/1", null, null)]
    public void A_replay_mark_is_read_or_ignored(string header, int? letter, int? replays)
    {
        foreach (var value in new object[] { header, Encoding.UTF8.GetBytes(header) })
        {
            var mark = Valid(new MessageProperties { Headers = new Dictionary<string, object?> { [ReplayMark.Header] = value } }, Good).Replay;

            Assert.Equal(letter is null ? null : new ReplayMark(letter.Value, replays!.Value), mark);
            Assert.Equal(mark?.ToString(), mark is null ? null : header);
        }
    }

    [Theory]
    [InlineData("""{"orderId":"A-1001","foo":1}""", "A-1001")]
    [InlineData("""{"lines":[{"orderId":"inner"}],"orderId":"A-1001",,,""", "A-1001")]
    [InlineData("""{"orderId":"not an id"}""", null)]
    [InlineData("""{"orderId":17}""", null)]
    [InlineData("""[{"orderId":"A-1001"}]""", null)]
    [InlineData("""garbage""", null)]
    [InlineData("", null)]
    public void A_dead_letter_still_tells_its_order_where_that_can_be_read(string body, string? orderId) =>
        Assert.Equal(orderId, Invalid(new MessageProperties(), Encoding.UTF8.GetBytes(body)).OrderId);

    [Fact]
    public void A_dead_letter_keeps_its_key_and_correlation_id()
    {
        var invalid = Invalid(new MessageProperties { MessageId = "k-1", CorrelationId = "c-1" }, "{}"u8.ToArray());

        Assert.Equal(("k-1", "c-1"), (invalid.Key, invalid.CorrelationId));
        Assert.Equal(("k-1", "k-1"), (Invalid(new MessageProperties { MessageId = "k-1" }, "{}"u8.ToArray()) is var other ? other.Key : "", other.CorrelationId));
    }

    [Fact]
    public void Key_and_fingerprint_can_be_had_without_reading_the_body()
    {
        foreach (var properties in new[] { new MessageProperties(), new MessageProperties { MessageId = "k-1" }, new MessageProperties { MessageId = "not a key" } })
        {
            var (key, fingerprint) = EnvelopeDecoder.Identify(properties, Good);

            var (expectedKey, expectedFingerprint) = EnvelopeDecoder.Decode(properties, Good) switch
            {
                Decoded.Valid valid => (valid.Envelope.Key, valid.Envelope.Fingerprint),
                Decoded.Invalid invalid => (invalid.Key, invalid.Fingerprint),
                _ => throw new InvalidOperationException(),
            };
            Assert.Equal(expectedKey, key);
            Assert.Equal(expectedFingerprint, fingerprint);
        }
    }

    [Fact]
    public void All_that_is_missing_is_named_at_once()
    {
        var rejection = Invalid(new MessageProperties(), """{"currency":"EUR"}"""u8.ToArray()).Rejection;

        Assert.Equal("/orderId", rejection.Field);
        Assert.Equal("/orderId, /customerId, /lines must be there and not null.", rejection.Detail);
    }

    [Fact]
    public void An_unknown_name_is_shown_only_as_far_as_it_looks_like_a_name()
    {
        var name = "<img src=x>someone@example.org" + new string('x', 100);

        var rejection = Invalid(new MessageProperties(), Encoding.UTF8.GetBytes($$"""{"{{name}}":1}""")).Rejection;

        Assert.Equal("", rejection.Field);
        Assert.Contains($"\"?img?src?x?someone?example.org{new string('x', 34)}\"", rejection.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void A_rejection_never_repeats_what_the_body_says()
    {
        const string Secret = "Erika.Mustermann";
        string[] bodies =
        [
            $$"""{"orderId":"{{Secret}}@x"}""", $$"""{"orderId":"A","customerId":"{{Secret}} "}""", $$"""{"email":"{{Secret}}"}""",
            $$"""{"currency":"{{Secret}}"}""", $$"""{"placedAt":"{{Secret}}"}""", $$"""{"lines":"{{Secret}}"}""", $$"""{"orderId":"{{Secret}}" x""",
            $$"""{"orderId":{{Secret}}""",
        ];

        Assert.All(bodies, body => Assert.DoesNotContain(
            Secret, Invalid(new MessageProperties(), Encoding.UTF8.GetBytes(body)).Rejection.Detail, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(CommandType.Deliver, "")]
    [InlineData(CommandType.Deliver, "{}")]
    [InlineData(CommandType.Ship, "")]
    [InlineData(CommandType.Cancel, """{"reason":"x"}""")]
    [InlineData(CommandType.Cancel, """{"orderId":"A-1","reason":"x"}""")]
    public void The_address_may_name_the_order(string type, string body)
    {
        Assert.True(EnvelopeDecoder.TryDecodeBody(type, Encoding.UTF8.GetBytes(body), "A-1", out var command, out _));
        Assert.Equal("A-1", command.OrderId);

        // What is published then says it too.
        Assert.True(EnvelopeDecoder.TryDecodeBody(type, CommandWriter.Write(command), null, out var published, out _));
        Assert.Equal(command, published);
    }

    [Theory]
    [InlineData("A-1", """{"orderId":"A-2"}""", RejectionReason.IdInvalid)]
    [InlineData("../x", "{}", RejectionReason.IdInvalid)]
    [InlineData("", "{}", RejectionReason.IdInvalid)]
    [InlineData("A-1", """{"orderId":"A-1","orderId":"A-1"}""", RejectionReason.DuplicateField)]
    [InlineData("A-1", """{"foo":1}""", RejectionReason.UnknownField)]
    public void Body_and_address_must_not_contradict_each_other(string path, string body, string reason)
    {
        Assert.False(EnvelopeDecoder.TryDecodeBody(CommandType.Deliver, Encoding.UTF8.GetBytes(body), path, out _, out var rejection));
        Assert.Equal(reason, rejection.Reason);
    }

    [Fact]
    public void Without_a_body_what_is_needed_is_missing()
    {
        Assert.False(EnvelopeDecoder.TryDecodeBody(CommandType.Pay, [], "A-1", out _, out var rejection));
        Assert.Equal((RejectionReason.MissingField, "/paymentReference"), (rejection.Reason, rejection.Field));
    }

    private static Envelope Valid(MessageProperties properties, byte[] body) =>
        Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(properties, body)).Envelope;

    private static Decoded.Invalid Invalid(MessageProperties properties, byte[] body) =>
        Assert.IsType<Decoded.Invalid>(EnvelopeDecoder.Decode(properties, body));
}
