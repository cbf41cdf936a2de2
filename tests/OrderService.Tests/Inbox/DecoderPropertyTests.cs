using System.Globalization;
using System.Numerics;
using System.Text;
using CsCheck;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Tests.Domain;

namespace OrderService.Tests.Inbox;

/// <summary>What holds for every input, valid or not.</summary>
public sealed class DecoderPropertyTests
{
    private static readonly Gen<string> AnyType = Gen.OneOf(Gen.OneOf<string>([.. CommandType.All, ""]), Gen.String);

    /// <summary>A valid body with some bytes changed, removed, doubled or cut off.</summary>
    private static readonly Gen<(string Type, byte[] Body)> Mutated = Gen.Select(
        Generators.Command, Gen.Select(Gen.Int[0, 4], Gen.Int[0, 1_000_000], Gen.Byte, Gen.Int[1, 12]).Array[1, 4],
        (command, mutations) =>
        {
            var body = CommandWriter.Write(command).ToList();
            foreach (var (kind, place, value, length) in mutations)
            {
                var at = place % Math.Max(1, body.Count);
                var count = Math.Min(length, body.Count - at);
                switch (kind)
                {
                    case 0 when body.Count > 0:
                        body[at] = value;
                        break;
                    case 1:
                        body.Insert(at, value);
                        break;
                    case 2:
                        body.RemoveRange(at, count);
                        break;
                    case 3:
                        body.InsertRange(at, body.GetRange(at, count));
                        break;
                    default:
                        body.RemoveRange(at, body.Count - at);
                        break;
                }
            }

            return (command.Type, body.ToArray());
        });

    /// <summary>Pieces of JSON in any order: closer to valid than bytes, further from it than mutations.</summary>
    private static readonly Gen<byte[]> Pieces = Gen
        .OneOf(
            "{", "}", "[", "]", ",", ":", "\"", "\"orderId\"", "\"A-1\"", "\"lines\"", "\"sku\"", "\"quantity\"", "\"unitPrice\"", "\"currency\"", "\"EUR\"",
            "\"email\"", "\"reason\"", "null", "true", "1", "-0.0", "1e400", "1e-400", "0.1", "\\u0000", "\\ud800", "\\", " ", "\n", "\ufeff", "é", "/*", "{\"orderId\":\"A-1\"}")
        .Array[0, 30]
        .Select(pieces => Encoding.UTF8.GetBytes(string.Concat(pieces)));

    private static readonly Gen<object?> HeaderValue = Gen.OneOf(
        Gen.Const((object?)null), Gen.String.Select(object? (text) => text), Gen.Byte.Array[0, 80].Select(object? (bytes) => bytes),
        Gen.Long.Select(object? (number) => number), Gen.Const<object?>(new List<object?>()), Gen.Const<object?>(new Dictionary<string, object?>()));

    private static readonly Gen<MessageProperties> AnyProperties = Gen.Select(
        AnyType, Gen.String, Gen.String, HeaderValue.Array[4],
        (type, id, content, headers) => new MessageProperties
        {
            Type = type,
            MessageId = id.Length % 2 == 0 ? null : id,
            CorrelationId = content,
            ContentType = content.Length % 2 == 0 ? null : content,
            ContentEncoding = content.Length % 3 == 0 ? null : content,
            Headers = new Dictionary<string, object?>
            {
                ["idempotency-key"] = headers[0], ["traceparent"] = headers[1], ["tracestate"] = headers[2], [ReplayMark.Header] = headers[3],
            },
        });

    [Fact]
    public void Any_bytes_give_a_command_or_a_known_reason() =>
        Gen.Select(AnyType, Gen.Byte.Array[0, 200]).Sample((type, body) => Check(new MessageProperties { Type = type }, body), iter: 20_000);

    [Fact]
    public void Any_pieces_of_JSON_give_a_command_or_a_known_reason() =>
        Gen.Select(Gen.OneOf<string>([.. CommandType.All]), Pieces).Sample((type, body) => Check(new MessageProperties { Type = type }, body), iter: 20_000);

    [Fact]
    public void Any_mutation_of_a_valid_body_gives_a_command_or_a_known_reason() =>
        Mutated.Sample((type, body) => Check(new MessageProperties { Type = type }, body), iter: 20_000);

    [Fact]
    public void Any_properties_give_a_command_or_a_known_reason() =>
        Gen.Select(AnyProperties, Generators.Command).Sample((properties, command) => Check(properties, CommandWriter.Write(command)), iter: 5_000);

    [Fact]
    public void What_is_written_is_read_back_the_same() =>
        Generators.Command.Sample(command =>
        {
            var body = CommandWriter.Write(command);

            var accepted = EnvelopeDecoder.TryDecodeBody(command.Type, body, null, out var back, out var rejection);

            // A total beyond the limit is the one thing a generated order can have wrong.
            if (command is OrderCommand.Place place && !Money.TryTotal(place.Lines, out _))
            {
                Assert.Equal(RejectionReason.AmountOutOfRange, rejection?.Reason);
                return;
            }

            Assert.True(accepted, rejection?.Detail);
            Assert.Equal(body, CommandWriter.Write(back!));
            if (command is OrderCommand.Place { IsPlain: false } or { NeedsStream: true })
            {
                // The bytes say it all: lists are not compared item by item.
                return;
            }

            if (command is OrderCommand.Place sent)
            {
                var read = Assert.IsType<OrderCommand.Place>(back);
                Assert.Equal(sent.Lines, read.Lines);
                Assert.Equal(sent with { Lines = read.Lines }, read);
                Assert.Equal(sent.PlacedAt?.Offset, read.PlacedAt?.Offset);
            }
            else
            {
                Assert.Equal(command, back);
            }
        });

    [Fact]
    public void Amounts_agree_with_arithmetic_that_has_no_limits() =>
        Gen.Select(Gen.Int[0, 3], Digits(0, 25), Digits(0, 25), Gen.Int[-40, 40], Generators.AnyCurrency)
            .Sample((form, integer, fraction, exponent, currency) =>
            {
                integer = integer.TrimStart('0') is { Length: > 0 } trimmed ? trimmed : "0";
                var token = integer
                    + (fraction.Length > 0 && form >= 1 ? "." + fraction : "")
                    + (form >= 2 ? "e" + (exponent >= 0 && form == 3 ? "+" : "") + exponent.ToString(CultureInfo.InvariantCulture) : "");

                // value = coefficient / 10^scale, exactly
                var coefficient = BigInteger.Parse(integer + (form >= 1 ? fraction : ""), CultureInfo.InvariantCulture);
                var scale = (form >= 1 ? fraction.Length : 0) - (form >= 2 ? exponent : 0);
                var scaled = coefficient * BigInteger.Pow(10, currency.Decimals + 100);
                var (minor, rest) = (BigInteger.Divide(scaled, BigInteger.Pow(10, 100 + scale)), BigInteger.Remainder(scaled, BigInteger.Pow(10, 100 + scale)));

                var body = Encoding.UTF8.GetBytes(
                    $$"""{"orderId":"A","customerId":"C","lines":[{"sku":"S","quantity":1,"unitPrice":{{token}}}],"currency":"{{currency.Code}}"}""");
                var accepted = EnvelopeDecoder.TryDecodeBody(CommandType.Place, body, null, out var command, out var rejection);

                if (!rest.IsZero)
                {
                    Assert.Equal((token, RejectionReason.AmountPrecision), (token, rejection?.Reason));
                }
                else if (minor > Money.MaxMinor)
                {
                    Assert.Equal((token, RejectionReason.AmountOutOfRange), (token, rejection?.Reason));
                }
                else
                {
                    Assert.True(accepted, $"{token}: {rejection?.Detail}");
                    Assert.Equal((token, minor), (token, ((OrderCommand.Place)command!).Lines[0].UnitPriceMinor));
                }
            });

    private static Gen<string> Digits(int from, int to) => Gen.Frequency((3, Gen.Char['0', '9']), (2, Gen.Const('0'))).Array[from, to].Select(digits => new string(digits));

    private static void Check(MessageProperties properties, byte[] body)
    {
        switch (EnvelopeDecoder.Decode(properties, body))
        {
            case Decoded.Valid { Envelope: var envelope }:
                Assert.True(EnvelopeDecoder.IsKey(envelope.Key) && EnvelopeDecoder.IsKey(envelope.CorrelationId));

                // Whatever was understood can be written down and is then the same command.
                var canonical = CommandWriter.Write(envelope.Command);
                Assert.True(EnvelopeDecoder.TryDecodeBody(envelope.Command.Type, canonical, null, out var again, out _));
                Assert.Equal(canonical, CommandWriter.Write(again));
                break;

            case Decoded.Invalid invalid:
                Assert.Contains(invalid.Rejection.Reason, RejectionReason.All);
                Assert.NotEqual(RejectionReason.InternalError, invalid.Rejection.Reason);
                Assert.True(EnvelopeDecoder.IsKey(invalid.Key));
                Assert.DoesNotContain(invalid.Rejection.Detail, char.IsControl);
                break;

            default:
                Assert.Fail("There is no third way.");
                break;
        }
    }
}
