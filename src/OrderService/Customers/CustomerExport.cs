using System.Text.Json;
using OrderService.DeadLetters;
using OrderService.Notifications;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.Store;

namespace OrderService.Customers;

/// <summary>Everything that is held about one customer, as JSON that he can read.</summary>
public sealed class CustomerExport(IDatabase database, EventQueries events, TimeProvider clock)
{
    private const int PageSize = 100;
    private const int MostLines = 1000;

    private static readonly JsonWriterOptions Readable = new() { Indented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>How many orders and letters there are, whether he is held and when he was forgotten.</summary>
    public Task<CustomerSummary> SummaryAsync(string customerId, CancellationToken cancellationToken) => database.ReadAsync(
        async connection => new CustomerSummary(
            customerId,
            await OrderQueries.CountOfCustomerAsync(connection, customerId),
            await LettersTable.CountOfCustomerAsync(connection, customerId),
            await CustomersTable.HoldOfAsync(connection, customerId),
            await CustomersTable.ForgottenAsync(connection, customerId)),
        cancellationToken);

    /// <summary>Writes it order by order, so that it needs little memory however much there is.</summary>
    public async Task WriteAsync(string customerId, Stream output, CancellationToken cancellationToken)
    {
        var summary = await SummaryAsync(customerId, cancellationToken);
        await using var writer = new Utf8JsonWriter(output, Readable);
        writer.WriteStartObject();
        writer.WriteString("customerId", customerId);
        writer.WriteString("exportedAt", clock.GetUtcNow());
        if (summary.Hold is { } hold)
        {
            writer.WriteStartObject("hold");
            writer.WriteString("reason", hold.Reason);
            writer.WriteString("by", hold.HeldBy);
            writer.WriteString("since", Time(hold.HeldAt));
            writer.WriteEndObject();
        }
        writer.WriteStartArray("forgotten");
        foreach (var at in summary.ForgottenAt)
        {
            writer.WriteStringValue(Time(at));
        }
        writer.WriteEndArray();
        writer.WriteStartArray("orders");
        await WriteOrdersAsync(customerId, writer, cancellationToken);
        writer.WriteEndArray();
        writer.WriteStartArray("deadLetters");
        await WriteLettersAsync(customerId, writer, cancellationToken);
        writer.WriteEndArray();
        writer.WriteEndObject();
        await writer.FlushAsync(cancellationToken);
    }

    private async Task WriteOrdersAsync(string customerId, Utf8JsonWriter writer, CancellationToken cancellationToken)
    {
        long after = 0;
        while (true)
        {
            var orders = await database.ReadAsync(connection => OrderQueries.OfCustomerAsync(connection, customerId, after, PageSize), cancellationToken);
            foreach (var (seq, orderId) in orders)
            {
                after = seq;
                await WriteOrderAsync(orderId, writer, cancellationToken);
                await writer.FlushAsync(cancellationToken);
            }
            if (orders.Count < PageSize)
            {
                return;
            }
        }
    }

    private async Task WriteOrderAsync(string orderId, Utf8JsonWriter writer, CancellationToken cancellationToken)
    {
        var stream = await events.StreamAsync(orderId, cancellationToken);
        var (history, refusals, mails) = await database.ReadAsync(
            async connection => (
                await HistoryTable.OfOrderAsync(connection, orderId, MostLines),
                await RefusedPaymentsTable.OfOrderAsync(connection, orderId),
                await OrderMailsTable.OfOrderAsync(connection, orderId)),
            cancellationToken);
        writer.WriteStartObject();
        writer.WriteString("orderId", orderId);
        writer.WriteStartArray("events");
        foreach (var recorded in stream)
        {
            using var rendered = JsonDocument.Parse(PublishedEvent.RenderWithPersonal(recorded, database.Keys.Open, isMasked: false));
            rendered.RootElement.WriteTo(writer);
        }
        writer.WriteEndArray();
        writer.WriteStartArray("history");
        foreach (var line in history)
        {
            writer.WriteStartObject();
            writer.WriteString("at", Time(line.At));
            writer.WriteString("kind", line.Kind);
            writer.WriteString("detail", line.Detail);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteStartArray("refusedPayments");
        foreach (var refused in refusals)
        {
            writer.WriteStartObject();
            writer.WriteString("at", Time(refused.RefusedAt));
            writer.WriteString("paymentReference", refused.PaymentReference);
            writer.WriteString("amount", refused.Amount);
            writer.WriteString("code", refused.Code);
            writer.WriteString("reason", refused.Reason);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteNumber("mailsWaiting", mails);
        writer.WriteEndObject();
    }

    private async Task WriteLettersAsync(string customerId, Utf8JsonWriter writer, CancellationToken cancellationToken)
    {
        long after = 0;
        while (true)
        {
            var ids = await database.ReadAsync(connection => LettersTable.OfCustomerAsync(connection, customerId, long.MaxValue, after, PageSize), cancellationToken);
            foreach (var id in ids)
            {
                after = id;
                await WriteLetterAsync(id, writer, cancellationToken);
                await writer.FlushAsync(cancellationToken);
            }
            if (ids.Count < PageSize)
            {
                return;
            }
        }
    }

    private async Task WriteLetterAsync(long id, Utf8JsonWriter writer, CancellationToken cancellationToken)
    {
        var (letter, body) = await database.ReadAsync(
            async connection => (await LettersTable.GetAsync(connection, id), await LettersTable.BodyAsync(connection, id)), cancellationToken);
        if (letter is null || body is null)
        {
            return;
        }
        writer.WriteStartObject();
        writer.WriteNumber("id", id);
        writer.WriteString("status", letter.Status);
        writer.WriteString("reason", letter.Reason);
        writer.WriteString("detail", letter.Detail);
        writer.WriteString("orderId", letter.OrderId);
        writer.WriteString("parkedAt", Time(letter.ParkedAt));
        if (body.IsForgotten)
        {
            writer.WriteBoolean("forgotten", true);
        }
        else if (LetterExport.Utf8(body.Bytes) is { } text)
        {
            writer.WriteString("body", text);
        }
        else
        {
            writer.WriteBase64String("bodyBase64", body.Bytes);
        }
        writer.WriteEndObject();
    }

    private static DateTimeOffset Time(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
}

/// <summary>A customer at a glance.</summary>
/// <param name="ForgottenAt">Unix milliseconds, oldest first.</param>
public sealed record CustomerSummary(string CustomerId, long Orders, long Letters, CustomerHold? Hold, IReadOnlyList<long> ForgottenAt);
