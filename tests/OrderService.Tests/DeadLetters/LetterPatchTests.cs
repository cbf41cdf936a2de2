using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using OrderService.DeadLetters;
using OrderService.Inbox;

namespace OrderService.Tests.DeadLetters;

/// <summary>What an operator changes in one letter, applied to others.</summary>
public sealed class LetterPatchTests
{
    private static readonly LetterContent Letter = new(
        7, "A-1", "k-1", "Shop.OrderPlaced, Shop", "text/plain", "gzip", Encoding.UTF8.GetBytes("""{"orderId":"A-1","amount":49.90,"note":"ä"}"""));

    [Theory]
    // RFC 7396: members are set, taken away and merged; numbers keep their spelling.
    [InlineData("""{"body":{"currency":"EUR","note":null}}""", """{"orderId":"A-1","amount":49.90,"currency":"EUR"}""")]
    [InlineData("""{"body":{"deep":{"a":{"b":1}}}}""", """{"orderId":"A-1","amount":49.90,"note":"ä","deep":{"a":{"b":1}}}""")]
    // RFC 6902.
    [InlineData("""{"body":[{"op":"move","from":"/orderId","path":"/id"}]}""", """{"amount":49.90,"note":"ä","id":"A-1"}""")]
    [InlineData("""{"body":[{"op":"test","path":"/amount","value":49.9},{"op":"replace","path":"/amount","value":50}]}""", """{"orderId":"A-1","amount":50,"note":"ä"}""")]
    [InlineData("""{"body":[{"op":"add","path":"/lines","value":[1]},{"op":"add","path":"/lines/0","value":0},{"op":"add","path":"/lines/-","value":2},{"op":"remove","path":"/lines/1"},{"op":"copy","from":"/lines/0","path":"/a~1b"}]}""",
        """{"orderId":"A-1","amount":49.90,"note":"ä","lines":[0,2],"a/b":0}""")]
    // What changes nothing leaves the bytes.
    [InlineData("""{"body":{"orderId":"A-1"}}""", """{"orderId":"A-1","amount":49.90,"note":"ä"}""")]
    public void A_patch_changes_the_body(string patch, string body)
    {
        var patched = Read(patch).Apply(Letter, out _)!;

        Assert.Equal(body, Encoding.UTF8.GetString(patched.Body));
        Assert.Equal(("Shop.OrderPlaced, Shop", "application/json", null, "k-1"), (patched.Type, patched.ContentType, patched.ContentEncoding, patched.Key));
    }

    [Theory]
    [InlineData("""{"body":[{"op":"test","path":"/amount","value":1}]}""", "/amount has another value")]
    [InlineData("""{"body":[{"op":"replace","path":"/nothing","value":1}]}""", "There is no /nothing")]
    [InlineData("""{"body":[{"op":"remove","path":"/amount/0"}]}""", "There is no /amount/0")]
    [InlineData("""{"body":[{"op":"move","from":"/none","path":"/x"}]}""", "There is no /none")]
    public void A_patch_that_is_not_for_a_letter_says_so(string patch, string mistake)
    {
        Assert.Null(Read(patch).Apply(Letter, out var why));
        Assert.StartsWith(mistake, why, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{")]
    [InlineData("""{"a":1,"a":2}""")]
    [InlineData("\u0000S")]
    public void A_body_that_is_no_JSON_is_not_patched(string body)
    {
        var letter = Letter with { Body = Encoding.Latin1.GetBytes(body) };

        Assert.Null(Read("""{"body":{"a":1}}""").Apply(letter, out var why));
        Assert.NotNull(why);
        Assert.NotNull(Read("""{"type":"order.place"}""").Apply(letter, out _));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("""{"typ":"order.place"}""")]
    [InlineData("""{"type":"Shop.OrderPlaced"}""")]
    [InlineData("""{"type":1}""")]
    [InlineData("""{"contentType":"text/plain"}""")]
    [InlineData("""{"body":null}""")]
    [InlineData("""{"body":"x"}""")]
    [InlineData("""{"body":[]}""")]
    [InlineData("""{"body":[{"op":"frob","path":"/a"}]}""")]
    [InlineData("""{"body":[{"op":"add","path":"/a"}]}""")]
    [InlineData("""{"body":[{"op":"add","path":"a","value":1}]}""")]
    [InlineData("""{"body":[{"op":"move","path":"/a"}]}""")]
    [InlineData("""{"key":"the same for all"}""")]
    [InlineData("""{"key":""}""")]
    public void What_is_no_patch_is_refused_in_a_sentence(string patch)
    {
        Assert.Null(LetterPatch.Read(JsonNode.Parse(patch), forMany: true, out _, out var mistake));
        Assert.EndsWith(".", mistake, StringComparison.Ordinal);
    }

    [Fact]
    public void Type_content_type_and_key_are_set_and_what_was_there_is_told()
    {
        var patched = Read("""{"type":"order.place","contentType":null,"key":"mended-{letter}-{orderId}-{key}"}""").Apply(Letter, out _)!;
        Assert.Equal(("order.place", null, "mended-7-A-1-k-1"), (patched.Type, patched.ContentType, patched.Key));
        Assert.Equal(
            """{"type":{"before":"Shop.OrderPlaced, Shop","after":"order.place"},"contentType":{"before":"text/plain","after":null},"contentEncoding":{"before":"gzip","after":null},"key":{"before":"k-1","after":"mended-7-A-1-k-1"}}""",
            LetterPatch.Change(Letter, patched));

        var derived = Read("""{"type":null,"key":"derived"}""").Apply(Letter, out _)!;
        Assert.Equal(EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint("order.place", Letter.Body)), derived.Key);
    }

    [Fact]
    public void An_edited_body_alone_drops_the_type_that_the_broker_made_up()
    {
        var letter = Letter with { Type = EnvelopeDecoder.AmqpType };

        Assert.Null(LetterPatch.Edit("{}"u8.ToArray(), null, null, null)!.Apply(letter, out _)!.Type);
        Assert.Equal("order.pay", LetterPatch.Edit("{}"u8.ToArray(), "order.pay", null, null)!.Apply(letter, out _)!.Type);
        Assert.Equal(EnvelopeDecoder.AmqpType, LetterPatch.Edit(null, null, "application/json", null)!.Apply(letter, out _)!.Type);
    }

    [Fact]
    public void What_was_edited_in_one_letter_fits_letters_with_the_same_mistake_and_no_others()
    {
        var one = Of("""{"order_id":"A-1","currency":"Euro","lines":[{"price":"49.90"}]}""");
        var edited = Encoding.UTF8.GetBytes("""{"orderId":"A-1","currency":"EUR","lines":[{"unitPrice":"49.90"}]}""");
        var patch = LetterPatch.Between(one, edited, "order.place", null)!;

        // Its own order id and price stay, and so does the currency of another mistake.
        Assert.Equal(
            """{"currency":"EUR","lines":[{"unitPrice":"7"}],"orderId":"A-2"}""", Patched("""{"order_id":"A-2","currency":"Euro","lines":[{"price":"7"}]}"""));
        Assert.Null(Patched("""{"order_id":"A-3","currency":"Dollar","lines":[{"price":"7"}]}"""));
        Assert.Null(Patched("""{"order_id":"A-4","currency":"Euro","lines":[]}"""));
        Assert.Equal("order.place", patch.Apply(one, out _)!.Type);

        string? Patched(string body) => patch.Apply(Of(body), out _) is { } found ? Encoding.UTF8.GetString(found.Body) : null;
        static LetterContent Of(string body) => Letter with { Body = Encoding.UTF8.GetBytes(body) };
    }

    [Fact]
    public void The_difference_of_two_documents_leads_from_one_to_the_other()
    {
        var leaf = Gen.OneOf(Gen.Int[0, 3].Select(number => (JsonNode)number), Gen.OneOf("a", "b/~c", "ä").Select(text => (JsonNode)text));
        var names = Gen.OneOf("a", "b", "c/d", "~e");
        var flat = Gen.Select(Gen.Select(names, leaf).Array[0, 4], members => (JsonNode)new JsonObject(
            members.DistinctBy(one => one.Item1).Select(one => KeyValuePair.Create(one.Item1, (JsonNode?)one.Item2))));
        var list = leaf.Array[0, 3].Select(items => (JsonNode)new JsonArray([.. items]));
        var document = Gen.Select(Gen.Select(names, Gen.OneOf(leaf, flat, list)).Array[0, 4], members => new JsonObject(
            members.DistinctBy(one => one.Item1).Select(one => KeyValuePair.Create(one.Item1, (JsonNode?)one.Item2))).ToJsonString());

        Gen.Select(document, document).Sample((before, after) =>
        {
            var difference = JsonPatch.Difference(JsonNode.Parse(before), JsonNode.Parse(after));
            var found = difference.Count == 0 ? JsonNode.Parse(before) : JsonPatch.Apply(JsonNode.Parse(before)!, difference);

            Assert.True(JsonNode.DeepEquals(JsonNode.Parse(after), found), $"{before} -> {after}: {difference.ToJsonString()} gives {found?.ToJsonString()}");
        });
    }

    [Fact]
    public void A_patch_that_makes_the_body_grow_without_end_is_not_applied()
    {
        // Each copy doubles what is there.
        var copies = string.Join(',', Enumerable.Range(0, 20).Select(number => $$"""{"op":"copy","from":"","path":"/c{{number}}"}"""));

        Assert.Null(Read($$"""{"body":[{{copies}}]}""").Apply(Letter, out var why));
        Assert.Contains("1048576 bytes", why, StringComparison.Ordinal);
    }

    [Fact]
    public void A_patch_that_nests_the_body_deeper_and_deeper_is_not_applied()
    {
        var copies = string.Join(',', Enumerable.Range(0, 12).Select(number => $$"""{"op":"copy","from":"","path":"{{string.Concat(Enumerable.Repeat("/a", 1 << number))}}"}"""));

        Assert.Null(Read($$"""{"body":[{{copies}}]}""").Apply(Letter with { Body = "{}"u8.ToArray() }, out var why));
        Assert.Contains("deep", why, StringComparison.Ordinal);
    }

    private static LetterPatch Read(string patch)
    {
        var read = LetterPatch.Read(JsonNode.Parse(patch), forMany: true, out _, out var mistake);
        Assert.True(read is not null, mistake);
        // As it is after a restart.
        return LetterPatch.Parse(read.ToJson());
    }
}
