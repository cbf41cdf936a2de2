using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace OrderService.DeadLetters;

/// <summary>Writes dead letters as NDJSON (with their bytes) or as CSV (without), page by page.</summary>
internal static partial class LetterExport
{
    private static readonly string[] Columns =
        ["id", "status", "reason", "field", "detail", "fingerprint", "type", "orderId", "customerId", "currency", "amount", "key", "parkedAt", "copies", "replays", "settledAt", "settledBy", "settleReason", "bytes"];

    private static readonly string[] Words =
        ["jan", "feb", "mar", "mär", "apr", "may", "mai", "jun", "jul", "aug", "sep", "oct", "okt", "nov", "dec", "dez", "true", "false", "wahr", "falsch"];

    // What a formula takes as one text.
    private const int LongestFormulaText = 255;

    private static readonly SearchValues<char> Quoted = SearchValues.Create(",\"\r\n;\t'");

    // Where a program may begin a new cell.
    private static readonly SearchValues<char> Separators = SearchValues.Create(";\t\r\n");

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { Encoder = JavaScriptEncoder.Default };

    public static async Task<long> WriteAsync(DeadLetterQueries letters, LetterFilter filter, bool csv, TextWriter writer, CancellationToken cancellationToken)
    {
        long written = 0;
        long? after = null;
        if (csv)
        {
            // Excel takes a file without the mark for the machine's own code page.
            await writer.WriteAsync('\uFEFF' + string.Join(',', Columns) + "\r\n");
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
        var found = await letters.BodyAsync(letter.Id, cancellationToken);
        var body = found is null ? [] : found.Bytes;
        return JsonSerializer.Serialize(
            new
            {
                letter = LetterView.Of(letter),
                body = found is { IsForgotten: true } ? null : Utf8(body),
                bodyBase64 = Utf8(body) is null ? Convert.ToBase64String(body) : null,
                forgotten = found is { IsForgotten: true } ? true : (bool?)null,
            },
            Json) + "\n";
    }

    internal static string? Utf8(byte[] body)
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

    private static string Csv(LetterSummary letter) => string.Join(',',
        Cell(letter.Id.ToString(CultureInfo.InvariantCulture)), Cell(letter.Status), Cell(letter.Reason), Text(letter.Field), Text(letter.Detail), Text(letter.Incident),
        Text(letter.Type), Text(letter.OrderId), Text(letter.CustomerId), Cell(letter.Value?.Currency), Cell(letter.Value?.Amount), Text(letter.Key),
        Cell(letter.ParkedAt.ToString("O", CultureInfo.InvariantCulture)), Cell(letter.Copies.ToString(CultureInfo.InvariantCulture)),
        Cell(letter.Replays.ToString(CultureInfo.InvariantCulture)), Cell(letter.SettledAt?.ToString("O", CultureInfo.InvariantCulture)), Text(letter.SettledBy),
        Text(letter.SettleReason), Cell(letter.BodyBytes.ToString(CultureInfo.InvariantCulture))) + "\r\n";

    /// <summary>
    /// Quoted, and never the start of a formula: a spreadsheet runs what begins with =, +, -, @ or a control character. Where the list separator is ; the line falls apart at each of
    /// them, inside the quotes too, so what comes after one (or a tab or line break) counts as a beginning. A text that it would
    /// take for a number or a day (0007, 3E5, 1-2, MAR-1) is written as the formula that yields the text: quotes do not keep it from that.
    /// </summary>
    internal static string Text(string? value) => value is { Length: > 0 and <= LongestFormulaText } && LooksLikeNumber(value) && !value.AsSpan().ContainsAny(Separators)
        ? Quote($"=\"{value.Replace("\"", "\"\"", StringComparison.Ordinal)}\"")
        : Cell(value);

    /// <summary>What this service writes itself: a number stays one.</summary>
    private static string Cell(string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            return "";
        }
        var text = LaterBeginnings().Replace(value[0] is '=' or '+' or '-' or '@' or '\t' or '\r' or '\n' ? "'" + value : value, "$1'");
        return text.AsSpan().ContainsAny(Quoted) ? Quote(text) : text;
    }

    // Rather once too often: what begins with a digit or a month's name, and the words for true and false.
    private static bool LooksLikeNumber(string value) =>
        char.IsAsciiDigit(value[0]) || (value.Length > 1 && value[0] is '.' or ',' && char.IsAsciiDigit(value[1]))
        || Words.Any(word => value.StartsWith(word, StringComparison.OrdinalIgnoreCase));

    private static string Quote(string text) => $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";

    [GeneratedRegex(@"([;\t\r\n][\s""';]*)(?=[=+\-@])")]
    private static partial Regex LaterBeginnings();
}
