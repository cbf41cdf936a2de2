using System.Text;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Inbox;

public sealed class CommandMappingTests
{
    [Fact]
    public void An_order_as_shopify_writes_it_is_placed()
    {
        var place = Assert.IsType<OrderCommand.Place>(Decoded(Samples, With("x-shopify-topic", "orders/create"), File.ReadAllBytes(Sample("shopify-order.json"))));

        Assert.Equal(("SH-1001", "SH-115310627314723954", "EUR"), (place.OrderId, place.CustomerId, place.Currency.Code));
        Assert.Equal([("KB-01", 2, 4990L), ("CB-07", 1, 750L)], place.Lines.Select(line => (line.Sku, line.Quantity, line.UnitPriceMinor)));
        Assert.Equal(DateTimeOffset.Parse("2026-11-27T09:12:31+01:00", System.Globalization.CultureInfo.InvariantCulture), place.PlacedAt);
    }

    [Fact]
    public void An_order_as_woocommerce_writes_it_is_placed()
    {
        var place = Assert.IsType<OrderCommand.Place>(Decoded(Samples, new MessageProperties { Type = "woocommerce.order.created" }, File.ReadAllBytes(Sample("woocommerce-order.json"))));

        Assert.Equal(("WC-727", "WC-26"), (place.OrderId, place.CustomerId));
        Assert.Equal([("KB-01-93", 4990L), ("22", 750L)], place.Lines.Select(line => (line.Sku, line.UnitPriceMinor)));
        Assert.Equal(TimeSpan.Zero, place.PlacedAt!.Value.Offset);
    }

    [Theory]
    [InlineData("""{ "from": "/v", "as": "amount" }""", "\"49.9000\"", "49.9")]
    [InlineData("""{ "from": "/v", "as": "amount" }""", "7", "7")]
    [InlineData("""{ "from": "/v", "as": "minor" }""", "4990", "49.9")]
    [InlineData("""{ "from": "/v", "as": "minor", "decimals": 0 }""", "\"4990\"", "4990")]
    [InlineData("""{ "from": "/v", "as": "integer" }""", "\"2\"", "2")]
    [InlineData("""{ "from": "/v", "as": "text", "prefix": "C-" }""", "17", "\"C-17\"")]
    [InlineData("""{ "from": "/v", "remove": "#", "values": { "a": "b" } }""", "\"#a\"", "\"b\"")]
    [InlineData("""{ "from": "/v", "as": "time", "offset": "+01:00" }""", "\"2026-11-27 10:00:00\"", "\"2026-11-27T10:00:00+01:00\"")]
    [InlineData("""{ "from": "/v", "as": "time" }""", "\"2026-11-27T10:00:00-05:00\"", "\"2026-11-27T10:00:00-05:00\"")]
    [InlineData("""{ "from": "/none", "as": "text", "default": "web" }""", "1", "\"web\"")]
    [InlineData("""{ "join": ["/first", "/none", "/v"], "with": "_" }""", "\"x\"", "\"a~/b_x\"")]
    [InlineData("\"/a~1b/0\"", "1", "[true]")]
    [InlineData("""{ "value": null }""", "1", "null")]
    [InlineData("""{ "members": { "x": "/v" } }""", "1", """{"x":1}""")]
    [InlineData("""{ "each": "/many", "members": { "n": "/n" } }""", "1", """[{"n":1},{}]""")]
    public void A_value_becomes_what_the_rule_wants_of_it(string rule, string value, string expected)
    {
        var mapped = Mapped(rule, value);

        Assert.Null(mapped.Rejection);
        Assert.Equal($$"""{"currency":"EUR","it":{{expected}}}""", Encoding.UTF8.GetString(mapped.Body.Span));
    }

    [Theory]
    [InlineData("""{ "from": "/none", "as": "amount" }""", "1")]
    [InlineData("\"/none\"", "1")]
    [InlineData("""{ "from": "/v", "as": "text" }""", "null")]
    [InlineData("""{ "from": "/v", "as": "amount" }""", "\"\"")]
    public void A_value_that_is_not_there_leaves_the_member_out(string rule, string value) =>
        Assert.Equal("""{"currency":"EUR"}""", Encoding.UTF8.GetString(Mapped(rule, value).Body.Span));

    [Theory]
    [InlineData("""{ "from": "/v", "as": "amount" }""", "\"secret\"", "/v is not a number such as 49.90")]
    [InlineData("""{ "from": "/v", "as": "amount" }""", "\"1e400\"", "/v is not a number such as 49.90")]
    [InlineData("""{ "from": "/v", "as": "integer" }""", "1.5", "/v is not a whole number")]
    [InlineData("""{ "from": "/v", "as": "text" }""", "{}", "/v is an object or an array")]
    [InlineData("""{ "each": "/v", "members": { "n": "/n" } }""", "1", "/v is not an array")]
    public void A_value_that_can_not_become_that_is_a_wrong_type_and_the_place_is_named(string rule, string value, string expected)
    {
        var rejection = Mapped(rule, value).Rejection;

        Assert.Equal(RejectionReason.WrongType, rejection?.Reason);
        Assert.StartsWith(expected + ".", rejection!.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", rejection.Detail, StringComparison.Ordinal);
        Assert.Contains("orderservice map", rejection.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("", RejectionReason.BodyEmpty)]
    [InlineData("{", RejectionReason.MalformedJson)]
    [InlineData("null", RejectionReason.MissingField)]
    public void What_is_no_message_at_all_is_refused_in_the_parsers_own_words(string body, string reason)
    {
        var mapped = Samples.Map(With("x-shopify-topic", "orders/create"), Encoding.UTF8.GetBytes(body))!;

        EnvelopeDecoder.TryDecodeBody(mapped.Rule.Command, mapped.Body.Span, null, out _, out var rejection);
        Assert.Equal(reason, (mapped.Rejection ?? rejection)?.Reason);
    }

    [Fact]
    public void A_message_that_no_rule_is_for_is_taken_as_it_is()
    {
        Assert.Null(Samples.Map(MessageProperties.Empty, "{}"u8.ToArray()));
        Assert.Null(Samples.Map(With("x-shopify-topic", "orders/Create"), "{}"u8.ToArray()));
        Assert.Null(CommandMapping.None.Map(new MessageProperties { Type = "woocommerce.order.created" }, "{}"u8.ToArray()));
    }

    [Theory]
    [InlineData("{", "is no JSON (line 1, byte 2)")]
    [InlineData("[]", "the file must be an object", "/rules must be an array with one rule at least")]
    [InlineData("""{ "rules": [ { "name": "n", "when": {}, "command": "order.plaze", "members": { "a": "b", "c": { "from": "/c", "as": "cents" }, "d": 1, "e": { "form": "/e" } } } ] }""",
        "/rules/0/command must be one of", "/rules/0/when must name a type or headers", "/rules/0/members/a must be a JSON pointer", "/rules/0/members/c/as must be one of text, amount, minor, integer, time",
        "/rules/0/members/d must be a JSON pointer", "/rules/0/members/e/form is unknown")]
    public void All_that_is_wrong_in_the_file_is_said_at_once_with_its_place(string file, params string[] expected)
    {
        var path = Path.GetTempFileName();
        File.WriteAllText(path, file);

        MappingFile.Read(path, out var mistakes);
        File.Delete(path);

        Assert.Equal(expected.Length, mistakes.Count);
        Assert.All(expected.Zip(mistakes), pair => Assert.StartsWith(pair.First, pair.Second, StringComparison.Ordinal));
    }

    private static CommandMapping Samples { get; } = Read(Sample("mapping.json"));

    private static MappedBody Mapped(string rule, string value)
    {
        var path = Path.GetTempFileName();
        File.WriteAllText(path, $$"""{ "rules": [ { "name": "r", "when": { "type": "t" }, "command": "order.place", "members": { "currency": { "value": "EUR" }, "it": {{rule}} } } ] }""");
        var mapping = Read(path);
        File.Delete(path);
        return mapping.Map(
            new MessageProperties { Type = "t" },
            Encoding.UTF8.GetBytes($$"""{ "v": {{value}}, "first": "a~/b", "a/b": [[true]], "many": [{ "n": 1 }, {}] }"""))!;
    }

    private static CommandMapping Read(string path)
    {
        var mapping = MappingFile.Read(path, out var mistakes);
        Assert.Empty(mistakes);
        return mapping;
    }

    private static OrderCommand Decoded(CommandMapping mapping, MessageProperties properties, byte[] body)
    {
        var mapped = mapping.Map(properties, body);
        Assert.NotNull(mapped);
        Assert.True(EnvelopeDecoder.TryDecodeBody(mapped.Rule.Command, mapped.Body.Span, null, out var command, out var rejection), (mapped.Rejection ?? rejection)?.Detail);
        return command;
    }

    private static MessageProperties With(string header, string value) => new() { Headers = new Dictionary<string, object?> { [header] = value } };

    internal static string Sample(string name) => Repository.PathOf($"samples/mappings/{name}");
}
