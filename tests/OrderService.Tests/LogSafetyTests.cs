using Serilog.Events;
using Serilog.Parsing;

namespace OrderService.Tests;

/// <summary>What a line of the log can't be made to do by whoever sends messages and requests.</summary>
public sealed class LogSafetyTests
{
    [Fact]
    public void A_value_moves_no_cursor_and_begins_no_line_of_its_own()
    {
        var safe = ServiceLog.Safe(Event("Message {Id} is late", null, ("Id", "a\r\n12:00:00 INF All is well\u001b[2J\u202e\u2028")));

        Assert.Equal("Message \"a\\u000d\\u000a12:00:00 INF All is well\\u001b[2J\\u202e\\u2028\" is late", safe.RenderMessage(System.Globalization.CultureInfo.InvariantCulture));
        var plain = Event("Message {Id} is late", null, ("Id", "A-1001 é"));
        Assert.Same(plain, ServiceLog.Safe(plain));
    }

    [Fact]
    public void An_exception_that_may_quote_what_failed_is_written_without_its_message()
    {
        var thrown = Thrown(() => throw new InvalidOperationException("the order of anna@example.org", new FormatException("anna@example.org")));
        var safe = ServiceLog.Safe(Event("It failed", thrown)).Exception!.ToString();

        Assert.DoesNotContain("anna", safe, StringComparison.Ordinal);
        Assert.Contains("System.InvalidOperationException", safe, StringComparison.Ordinal);
        Assert.Contains("System.FormatException", safe, StringComparison.Ordinal);
        Assert.Contains(nameof(An_exception_that_may_quote_what_failed_is_written_without_its_message), safe, StringComparison.Ordinal);
        // What the network and this service say quotes nobody's input, and tells what to do.
        Assert.Contains("No space left", ServiceLog.Safe(Event("It failed", new IOException("No space left"))).Exception!.ToString(), StringComparison.Ordinal);
    }

    private static Exception Thrown(Action action)
    {
        try
        {
            action();
            throw new InvalidOperationException("It did not throw.");
        }
        catch (Exception exception)
        {
            return exception;
        }
    }

    private static LogEvent Event(string template, Exception? exception, params (string Name, string Value)[] properties) => new(
        TimeProvider.System.GetUtcNow(), LogEventLevel.Warning, exception, new MessageTemplateParser().Parse(template),
        properties.Select(property => new LogEventProperty(property.Name, new ScalarValue(property.Value))));
}
