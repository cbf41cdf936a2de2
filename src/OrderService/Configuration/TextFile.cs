using System.Text;

namespace OrderService.Configuration;

/// <summary>Reads text that people's editors and shells write: with a byte order mark or without, in UTF-8 or UTF-16, with any line break.</summary>
internal static class TextFile
{
    // In Windows, a shell's > writes the third.
    private static readonly Encoding[] Marked =
    [
        new UTF8Encoding(encoderShouldEmitUTF8Identifier: true, throwOnInvalidBytes: true),
        new UTF32Encoding(bigEndian: false, byteOrderMark: true, throwOnInvalidCharacters: true),
        new UnicodeEncoding(bigEndian: false, byteOrderMark: true, throwOnInvalidBytes: true),
        new UnicodeEncoding(bigEndian: true, byteOrderMark: true, throwOnInvalidBytes: true),
    ];

    private static readonly UTF8Encoding Plain = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>The text without its byte order mark.</summary>
    /// <exception cref="FormatException">It is no text, in words that go on from "it ".</exception>
    public static string Read(ReadOnlySpan<byte> bytes)
    {
        try
        {
            var mark = MarkOf(bytes);
            var text = mark is null ? Plain.GetString(bytes) : mark.GetString(bytes[mark.Preamble.Length..]);
            return text.Contains('\0', StringComparison.Ordinal)
                ? throw new FormatException("is not UTF-8 text: it holds zero bytes, as UTF-16 without a byte order mark does. Save it as UTF-8")
                : text;
        }
        catch (DecoderFallbackException)
        {
            throw new FormatException("is not UTF-8 text. Save it as UTF-8");
        }
    }

    /// <summary>The encoding whose byte order mark stands at the beginning; null where there is none.</summary>
    public static Encoding? MarkOf(ReadOnlySpan<byte> bytes)
    {
        foreach (var encoding in Marked)
        {
            if (bytes.StartsWith(encoding.Preamble))
            {
                return encoding;
            }
        }
        return null;
    }

    /// <summary>The lines that say something, whatever ends them.</summary>
    public static string[] Lines(string text) => text.Split(['\n', '\r'], StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
}
