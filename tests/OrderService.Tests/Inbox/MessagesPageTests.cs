using OrderService.Tests.Infrastructure;
using System.Reflection;
using System.Text;
using System.Text.RegularExpressions;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;

namespace OrderService.Tests.Inbox;

/// <summary>docs/messages.md promises what the code does: its examples are run, its lists are complete.</summary>
public sealed partial class MessagesPageTests
{
    private static readonly string Page = File.ReadAllText(Path.Combine(Repository.Root, "docs", "messages.md"));

    private static readonly Dictionary<string, string> Examples =
        Example().Matches(Page).ToDictionary(match => match.Groups["name"].Value, match => match.Groups["json"].Value);

    public static TheoryData<string> Commands { get; } = [.. CommandType.All];

    public static TheoryData<string, OrderEvent> Events { get; } = new()
    {
        { "1", new OrderEvent.Placed("C-7", Tests.Domain.Samples.Euro, [new OrderLine("KB-01", 2, 49_90)], 99_80, new PersonalData { Email = "someone@example.org" }, new DateTimeOffset(2026, 1, 31, 12, 0, 0, TimeSpan.FromHours(1))) },
        { "2", new OrderEvent.PaymentReceived("PAY-2026-0042", 99.80m, 99.80m, 0.00m, null) },
        { "3", new OrderEvent.Paid("PAY-2026-0042", 99.80m) },
        { "4", new OrderEvent.Shipped("DHL", "00340434161094042557") },
        { "5", new OrderEvent.Delivered() },
        { "6", new OrderEvent.Cancelled("changed my mind") },
        { "2", new OrderEvent.PaymentAuthorized("AUTH-1", 99.80m, 99.80m) },
        { "3", new OrderEvent.PartlyShipped("1", [new("1", 1)], "DHL", "00340434161094042557") },
        { "4", new OrderEvent.ShipmentDelivered("1") },
        { "5", new OrderEvent.Returned("R-1", [new("1", 1)], "too small") },
        { "6", new OrderEvent.Refunded("REF-1", 49.90m, 49.90m, "PAY-2026-0042", "one piece came back") },
        { "2", new OrderEvent.LinesCancelled([new("1", 1)], "sold out", 49.90m, 49.90m) },
        { "2", new OrderEvent.Amended(Tests.Domain.Samples.Euro, [new OrderLine("KB-01", 1, 49_90)], 49_90, null) },
        { "2", new OrderEvent.Held("the address is checked") },
        { "3", new OrderEvent.Released() },
    };

    [Theory]
    [MemberData(nameof(Commands))]
    public void Every_command_on_the_page_is_understood_as_it_stands(string type)
    {
        Assert.True(EnvelopeDecoder.TryDecodeBody(type, Encoding.UTF8.GetBytes(Examples[type]), null, out var command, out var rejection), rejection?.Detail);
        Assert.Equal("A-1001", command.OrderId);
    }

    [Theory]
    [MemberData(nameof(Events))]
    public void Every_event_on_the_page_is_what_is_published(string version, OrderEvent happened) =>
        Assert.Equal(Examples[happened.Type], Encoding.UTF8.GetString(CloudEventWriter.Write(Head(happened.Type, $"A-1001.{version}", version[0] - '0'), happened)));

    [Fact]
    public void The_refusal_on_the_page_is_what_is_published()
    {
        var cancelled = Tests.Domain.Samples.OrderThatIs("cancelled");
        var refused = (Decision.Refused)OrderDecider.Decide(cancelled, new OrderCommand.Ship("A-1", null, null), OrderRules.Default);

        Assert.Equal(
            Examples[EventType.CommandRefused],
            Encoding.UTF8.GetString(CloudEventWriter.WriteRefusal(
                Head(EventType.CommandRefused, "A-1001.refused.1", null), CommandType.Ship, refused, cancelled.Status)));
    }

    [Fact]
    public void Every_reason_code_event_and_routing_key_is_on_the_page()
    {
        Assert.Equal(Constants(typeof(RejectionReason)).Order(), RejectionReason.All.Order());
        Assert.All(
            [.. RejectionReason.All, .. Constants(typeof(RefusalCode)), .. Constants(typeof(EventType)), .. Constants(typeof(EventRoutingKey)), .. CommandType.All],
            word => Assert.Contains($"`{word}`", Page, StringComparison.Ordinal));
    }

    private static CloudEventHead Head(string type, string id, long? version) => new(
        id, type, "A-1001", version, new DateTimeOffset(2026, 1, 31, 11, 0, 0, 7, TimeSpan.Zero), "c-1", "k-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

    private static IEnumerable<string> Constants(Type type) => type
        .GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(field => field.IsLiteral)
        .Select(field => (string)field.GetRawConstantValue()!);

    [GeneratedRegex("""^```json (?<name>\S+)\n(?<json>.*?)\n```$""", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Example();
}
