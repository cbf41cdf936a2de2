using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using OrderService.DeadLetters;

namespace OrderService.Admin;

/// <summary>Writes dead letters as NDJSON (with their bytes) or as CSV (without), page by page.</summary>
internal static class LetterExport
{
    private static readonly string[] Columns =
        ["id", "status", "reason", "field", "detail", "fingerprint", "type", "orderId", "customerId", "currency", "amount", "key", "parkedAt", "copies", "replays", "settledAt", "settledBy", "settleReason", "bytes"];

    private static readonly SearchValues<char> Quoted = SearchValues.Create(",\"\r\n;\t'");

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { Encoder = JavaScriptEncoder.Default };

    public static async Task<long> WriteAsync(DeadLetterQueries letters, LetterFilter filter, bool csv, TextWriter writer, CancellationToken cancellationToken)
    {
        long written = 0;
        long? after = null;
        if (csv)
        {
            await writer.WriteAsync(string.Join(',', Columns) + "\r\n");
        }
        while (true)
        {
            var page = await letters.ListAsync(filter, after, DeadLetterQueries.MostRows, cancellationToken);
            foreach (var letter in page)
            {
                await writer.WriteAsync(csv ? Csv(letter) : await NdjsonAsync(letters, letter, cancellationToken));
                written++;
            }
            await writer.FlushAsync(cancellationToken);
            if (page.Count < DeadLetterQueries.MostRows)
            {
                return written;
            }
            after = page[^1].Id;
        }
    }

    private static async Task<string> NdjsonAsync(DeadLetterQueries letters, LetterSummary letter, CancellationToken cancellationToken)
    {
        var body = await letters.BodyAsync(letter.Id, cancellationToken) ?? [];
        return JsonSerializer.Serialize(new { letter = LetterView.Of(letter), body = Text(body), bodyBase64 = Text(body) is null ? Convert.ToBase64String(body) : null }, Json) + "\n";
    }

    private static string? Text(byte[] body)
    {
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(body);
        }
        catch (DecoderFallbackException)
        {
            return null;
        }
    }

    private static string Csv(LetterSummary letter) => string.Join(',', new[]
    {
        letter.Id.ToString(CultureInfo.InvariantCulture), letter.Status, letter.Reason, letter.Field, letter.Detail, letter.Incident, letter.Type, letter.OrderId, letter.CustomerId,
        letter.Value?.Currency, letter.Value?.Amount, letter.Key, letter.ParkedAt.ToString("O", CultureInfo.InvariantCulture), letter.Copies.ToString(CultureInfo.InvariantCulture),
        letter.Replays.ToString(CultureInfo.InvariantCulture), letter.SettledAt?.ToString("O", CultureInfo.InvariantCulture), letter.SettledBy, letter.SettleReason,
        letter.BodyBytes.ToString(CultureInfo.InvariantCulture),
    }.Select(Cell)) + "\r\n";

    /// <summary>Quoted, and never the start of a formula: a spreadsheet runs what begins with =, +, -, @ or a control character.</summary>
    internal static string Cell(string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            return "";
        }
        var text = value[0] is '=' or '+' or '-' or '@' or '\t' or '\r' or '\n' ? "'" + value : value;
        return text.AsSpan().ContainsAny(Quoted) ? $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"" : text;
    }
}
