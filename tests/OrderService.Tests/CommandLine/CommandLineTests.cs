using OrderService.DeadLetters;
using System.Text;
using OrderService.CommandLine;
using OrderService.Inbox;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.CommandLine;

/// <summary>The commands as a shell sees them: exit codes, one-line reasons, no stack traces.</summary>
public sealed class CommandLineTests(RabbitMqContainerFixture broker) : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-commands-").FullName;

    private static readonly DateTimeOffset Today = new(2026, 5, 4, 10, 0, 0, TimeSpan.Zero);

    [Theory]
    [InlineData("nonsense")]
    [InlineData("serve --password x")]
    [InlineData("publish")]
    [InlineData("publish - --sample 3")]
    [InlineData("publish --smaple")]
    [InlineData("publish --sample 0")]
    [InlineData("publish --sample abc")]
    [InlineData("publish --sample 99999999999")]
    [InlineData("publish --sample 5 --poison lots")]
    [InlineData("publish --sample 5 --early")]
    [InlineData("order show")]
    [InlineData("dlq list --status lost")]
    [InlineData("dlq list --limit 0")]
    [InlineData("dlq list --limit abc")]
    [InlineData("dlq discard 1")]
    [InlineData("dlq discard 1 --because")]
    [InlineData("dlq discard --all --yes --because tests --limit x")]
    [InlineData("dlq discard --all --yes")]
    [InlineData("dlq discard --all --because tests")]
    [InlineData("dlq discard --all --yes --because tests --limit 0")]
    [InlineData("dlq replay")]
    [InlineData("dlq replay --all")]
    [InlineData("dlq replay --all --yes --rate 0")]
    [InlineData("dlq replay --all --yes --limit 0")]
    [InlineData("dlq replay --all --yes --limit x")]
    [InlineData("dlq replay 1 --rate abc")]
    [InlineData("dlq replay 1 --edited-body")]
    [InlineData("dlq job 1 --pause --cancel")]
    [InlineData("dlq replay 1 --edited-body f --ids")]
    [InlineData("dlq job 1 --pause=x")]
    [InlineData("topology --check=x")]
    [InlineData("topology --declare --check")]
    [InlineData("topology --administrator-file f")]
    public async Task A_command_that_can_not_be_understood_ends_with_2_and_says_why(string arguments)
    {
        var result = await Binary.RunAsync(arguments.Split(' '));

        Assert.Equal(2, result.ExitCode);
        Assert.NotEmpty(result.ErrorLines);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("publish --sample 1")]
    [InlineData("topology --check")]
    [InlineData("doctor")]
    public async Task A_broker_out_of_reach_ends_with_69_and_no_credentials(string arguments)
    {
        var result = await Binary.RunAsync(arguments.Split(' '), new() { ["RabbitMq__Uri"] = "amqp://shop:s3cret@127.0.0.1:1/" });

        Assert.Equal(69, result.ExitCode);
        Assert.Contains("127.0.0.1:1", result.Output + result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", result.Output + result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_doctor_names_the_rights_that_the_brokers_user_lacks_and_leaves_nothing_behind()
    {
        var address = await broker.AddVirtualHostAsync();
        Assert.Equal(0, (await Binary.RunAsync(["topology", "--declare"], new() { ["RabbitMq__Uri"] = address })).ExitCode);
        var (host, user) = (new Uri(address).AbsolutePath.TrimStart('/'), $"limited-{Guid.NewGuid():N}");
        await broker.ExecAsync("rabbitmqctl", "add_user", user, "limited-password");
        var environment = new Dictionary<string, string> { ["RabbitMq__Uri"] = address.Replace("tests:tests-password", $"{user}:limited-password", StringComparison.Ordinal) };

        await broker.ExecAsync("rabbitmqctl", "set_permissions", "-p", host, user, "^$", "^order-events$", "^orders$");
        var lacking = await Binary.RunAsync(["doctor"], environment);
        await broker.ExecAsync("rabbitmqctl", "set_permissions", "-p", host, user, "^$", @"^(order-events|orders\.in)$", @"^(orders(\.[0-9]+)?|orders\.dlq)$");
        var enough = await Binary.RunAsync(["doctor"], environment);

        Assert.Equal(1, lacking.ExitCode);
        Assert.Equal(
            ["the user may not consume from the queue orders.dlq", "the user may not publish to the exchange orders.in"],
            lacking.Output.Split('\n').Where(line => line.StartsWith("WRONG", StringComparison.Ordinal)).Select(line => line["WRONG  rights    ".Length..].Split(';')[0]));
        Assert.True(enough.ExitCode == 0, enough.Output);
        Assert.Contains("ok     rights", enough.Output, StringComparison.Ordinal);
        await using var shop = await TestProducer.ConnectAsync(address);
        Assert.Equal((0u, 0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq"), await shop.DepthAsync("order-events.unrouted")));
    }

    [Theory]
    [InlineData("/")]
    [InlineData("/no/such/file")]
    public async Task A_file_that_can_not_be_read_ends_with_1_and_one_line(string path)
    {
        var result = await Binary.RunAsync(["publish", path]);

        Assert.Equal(1, result.ExitCode);
        Assert.Single(result.ErrorLines);
    }

    [Fact]
    public async Task Messages_from_standard_input_are_published_and_confirmed()
    {
        var environment = new Dictionary<string, string> { ["RabbitMq__Uri"] = await broker.AddVirtualHostAsync() };

        var result = await Binary.RunAsync(["publish", "-"], environment, input: $$$"""
            {{{HostedService.Order("A-1")}}}

            this is not JSON
            {"type":"order.ship","messageId":"ship-1","headers":{"x":1},"body":{"orderId":"A-1"}}
            """);

        Assert.Equal(0, result.ExitCode);
        Assert.Contains("3 confirmed, 0 failed", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_sample_has_as_many_of_each_sort_as_asked_for()
    {
        var environment = new Dictionary<string, string> { ["RabbitMq__Uri"] = await broker.AddVirtualHostAsync() };

        var result = await Binary.RunAsync(["publish", "--sample", "100", "--poison", "10", "--duplicates", "20%", "--early", "0.05"], environment);

        Assert.Equal(0, result.ExitCode);
        Assert.Contains("100 confirmed", result.Output, StringComparison.Ordinal);
        Assert.Contains("65  orders", result.Output, StringComparison.Ordinal);
        Assert.Contains("20  repeated", result.Output, StringComparison.Ordinal);
        Assert.Contains("5  shipped before", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Several_letters_are_settled_one_by_one_and_each_is_told_of()
    {
        var result = await Binary.RunAsync(["dlq", "replay", "--ids", "-", "7"], await EmptyStoreAsync(), input: "1\r\n\r\n  2  \r\nx\r\n");

        Assert.Equal(1, result.ExitCode);
        Assert.Contains("7  there is no such dead letter", result.Output, StringComparison.Ordinal);
        Assert.Contains("2  there is no such dead letter", result.Output, StringComparison.Ordinal);
        Assert.Contains("x  not a number", result.Output, StringComparison.Ordinal);
        Assert.Contains("0 done, 4 failed", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Discarding_many_can_be_tried_first()
    {
        var store = await EmptyStoreAsync();
        var tried = await Binary.RunAsync(["dlq", "discard", "--all", "--reason", "unknown_field", "--what-if"], store);
        var done = await Binary.RunAsync(["dlq", "discard", "--all", "--yes", "--because", "tests"], store);

        Assert.Equal((0, "0 dead letters would be discarded. Nothing was changed."), (tried.ExitCode, tried.Output.Trim()));
        Assert.Equal((1, "0 dead letters discarded"), (done.ExitCode, done.Output.Trim()));
    }

    [Fact]
    public async Task An_empty_store_verifies_and_an_unknown_order_is_1()
    {
        var store = await EmptyStoreAsync();
        var verify = await Binary.RunAsync(["verify"], store);
        var show = await Binary.RunAsync(["order", "show", "A-1"], store);

        Assert.Equal(0, verify.ExitCode);
        Assert.Equal(1, show.ExitCode);
        Assert.Single(show.ErrorLines);
    }

    [Theory]
    [InlineData("5", 0.05)]
    [InlineData("5%", 0.05)]
    [InlineData("0.05", 0.05)]
    [InlineData("0.5%", 0.005)]
    [InlineData("0", 0.0)]
    [InlineData("100", 1.0)]
    [InlineData("101", null)]
    [InlineData("-1", null)]
    [InlineData("x", null)]
    public void Shares_are_percent_or_fractions(string text, double? share) => Assert.Equal(share, PublishCommand.Share(text));

    [Fact]
    public async Task Every_sort_of_broken_sample_fails_for_the_reason_it_names()
    {
        var sample = new SampleOrders(200, 1, 0, 0, Today, seed: 1);
        var sorts = new HashSet<string>();
        await foreach (var line in sample.Messages(TestContext.Current.CancellationToken))
        {
            var reason = line.Sort!["broken: ".Length..];
            sorts.Add(reason);
            var decoded = EnvelopeDecoder.Decode(Properties(line), line.Message!.Body);
            Assert.Equal(reason, Assert.IsType<Decoded.Invalid>(decoded).Rejection.Reason);
        }
        Assert.True(sorts.Count >= 15, $"only {sorts.Count} sorts");
    }

    [Fact]
    public async Task Every_good_sample_is_good_and_no_two_orders_share_an_id()
    {
        var sample = new SampleOrders(300, 0, 0, 0.1, Today, seed: 2);
        var placed = new List<string>();
        await foreach (var line in sample.Messages(TestContext.Current.CancellationToken))
        {
            var valid = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(Properties(line), line.Message!.Body));
            if (valid.Envelope.Command.Type == "order.place")
            {
                placed.Add(valid.Envelope.Command.OrderId);
            }
        }
        Assert.Equal(270, placed.Count);
        Assert.Equal(placed.Count, placed.Distinct().Count());
    }

    [Theory]
    [InlineData("""{"type":"order.pay","messageId":"m-1","correlationId":"c-1","body":{"orderId":"A"}}""", "order.pay", "m-1", """{"orderId":"A"}""")]
    [InlineData("""{"body":"plain text"}""", "order.place", null, "plain text")]
    [InlineData("""{"orderId":"A","body":"not an envelope"}""", "order.place", null, """{"orderId":"A","body":"not an envelope"}""")]
    [InlineData("{ broken", "order.place", null, "{ broken")]
    [InlineData("[1]\r", "order.place", null, "[1]")]
    public void A_line_is_a_body_or_an_envelope(string line, string type, string? messageId, string body)
    {
        var message = MessageFile.Parse(Encoding.UTF8.GetBytes(line))!;

        Assert.Equal(type, message.Type);
        Assert.Equal(body, Encoding.UTF8.GetString(message.Body.Span));
        Assert.Equal(messageId ?? EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint(type, message.Body.Span)), message.MessageId);
    }

    [Theory]
    [InlineData("utf-8", "\n")]
    [InlineData("utf-8", "\r\n")]
    [InlineData("utf-8", "\r")]
    [InlineData("utf-16", "\r\n")]
    [InlineData("utf-16BE", "\r")]
    [InlineData("utf-32", "\n")]
    public async Task A_file_with_a_byte_order_mark_and_any_line_break_is_read_as_what_it_says(string encoding, string lineBreak)
    {
        var written = Encoding.GetEncoding(encoding);
        var text = string.Join(lineBreak, """{"type":"order.ship","messageId":"m-1","body":{"orderId":"A"}}""", "", """{"orderId":"Zo\u00eb"}""", """{"orderId":"Ŝ"}""") + lineBreak;

        var lines = await ReadAsync([.. written.GetPreamble(), .. written.GetBytes(text)]);

        Assert.Equal(["""{"orderId":"A"}""", """{"orderId":"Zo\u00eb"}""", """{"orderId":"Ŝ"}"""], lines.Select(line => Encoding.UTF8.GetString(line.Message!.Body.Span)));
        Assert.Equal(("order.ship", "m-1"), (lines[0].Message!.Type, lines[0].Message!.MessageId));
    }

    [Fact]
    public async Task What_is_no_text_is_not_sent()
    {
        var refused = await Assert.ThrowsAsync<IOException>(() => ReadAsync(Encoding.Unicode.GetBytes("{\"orderId\":\"A\"}\n")));
        Assert.Contains("is not UTF-8 text", refused.Message, StringComparison.Ordinal);

        var lines = await ReadAsync(Encoding.Latin1.GetBytes("{\"orderId\":\"A\"}\n{\"orderId\":\"Zoë\"}\n"));
        Assert.NotNull(lines[0].Message);
        Assert.Null(lines[1].Message);
        Assert.Contains("is not UTF-8 text", lines[1].Mistake, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_carriage_return_inside_of_a_line_ends_nothing_where_line_feeds_do()
    {
        var lines = await ReadAsync("{\"orderId\":\r\"A\"}\n{}"u8.ToArray());

        Assert.Equal(["{\"orderId\":\r\"A\"}", "{}"], lines.Select(line => Encoding.UTF8.GetString(line.Message!.Body.Span)));
    }

    private static async Task<List<MessageLine>> ReadAsync(byte[] bytes)
    {
        var lines = new List<MessageLine>();
        await foreach (var line in MessageFile.ReadAsync(new MemoryStream(bytes), TestContext.Current.CancellationToken))
        {
            lines.Add(line);
        }
        return lines;
    }

    [Theory]
    [InlineData("=1+1", "\"'=1+1\"")]
    [InlineData("+1", "\"'+1\"")]
    [InlineData("-1", "\"'-1\"")]
    [InlineData("@x", "\"'@x\"")]
    [InlineData("\tx", "\"'\tx\"")]
    [InlineData("a,\"b\"", "\"a,\"\"b\"\"\"")]
    [InlineData("plain", "plain")]
    [InlineData(null, "")]
    public void A_cell_is_text_and_never_a_formula(string? value, string cell) => Assert.Equal(cell, LetterExport.Text(value));

    /// <summary>A formula that yields the text, which every spreadsheet keeps as it is.</summary>
    [Theory]
    [InlineData("0007", "\"=\"\"0007\"\"\"")]
    [InlineData("3E5", "\"=\"\"3E5\"\"\"")]
    [InlineData("1-2", "\"=\"\"1-2\"\"\"")]
    [InlineData("MAR-1", "\"=\"\"MAR-1\"\"\"")]
    [InlineData("7\"&b", "\"=\"\"7\"\"\"\"&b\"\"\"")]
    [InlineData("7;c", "\"7;c\"")]
    [InlineData("a; b", "\"a; b\"")]
    public void A_text_is_never_a_number_or_a_day(string value, string cell) => Assert.Equal(cell, LetterExport.Text(value));

    [Theory]
    [InlineData("""{"letter":{"id":7,"key":"k-1","type":"order.deliver","correlationId":"c"},"body":"{\"orderId\":\"A-1\"}"}""", null)]
    [InlineData("""{"letter":{"id":7,"key":"k-1","type":"order.deliver"},"bodyBase64":"eyJvcmRlcklkIjoiQS0xIn0="}""", null)]
    [InlineData("""{"letter":{"id":7,"key":"k-1","type":"Shop.OrderPlaced"},"body":"{\"orderId\":\"A-1\"}"}""", "letter 7 would be a dead letter again (unknown_command)")]
    [InlineData("""{"letter":{"id":7,"key":"k-1"},"body":"{"}""", "letter 7 would be a dead letter again (malformed_json)")]
    [InlineData("""{"letter":{"id":7,"key":"k-1"},"body":null}""", "letter 7 lacks its key or its body")]
    [InlineData("""{"letter":{"id":7}}""", "letter 7 lacks its key or its body")]
    public async Task An_exported_letter_is_sent_under_its_own_key_or_not_at_all(string line, string? mistake)
    {
        using var file = new MemoryStream(Encoding.UTF8.GetBytes(line));
        var lines = await MessageFile.ReadAsync(file, TestContext.Current.CancellationToken).ToListAsync(TestContext.Current.CancellationToken);

        var read = Assert.Single(lines);
        if (mistake is not null)
        {
            Assert.Null(read.Message);
            Assert.StartsWith(mistake, read.Mistake, StringComparison.Ordinal);
            return;
        }
        Assert.Equal(("k-1", "order.deliver", """{"orderId":"A-1"}"""), (read.Message!.MessageId, read.Message.Type, Encoding.UTF8.GetString(read.Message.Body.Span)));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);

    /// <returns>The environment of a command that works on it.</returns>
    private async Task<Dictionary<string, string>> EmptyStoreAsync()
    {
        var environment = new Dictionary<string, string> { ["Store__Path"] = Path.Combine(folder, "orders.db") };
        Assert.Equal(0, (await Binary.RunAsync(["migrate"], environment)).ExitCode);
        return environment;
    }

    private static MessageProperties Properties(MessageLine line) => new()
    {
        MessageId = line.Message!.MessageId,
        Type = line.Message.Type,
        ContentType = line.Message.ContentType,
        ContentEncoding = line.Message.ContentEncoding,
    };
}
