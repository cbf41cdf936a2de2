using System.Diagnostics.CodeAnalysis;

namespace OrderService.Domain;

/// <summary>An active ISO 4217 currency: its three letters and the number of decimals its amounts have.</summary>
/// <remarks>
/// One instance per currency, so reference equality is equality. Codes without a minor unit (XXX, XTS, XDR, precious metals and
/// bond units) are left out: an amount in them has no defined precision. When a currency is withdrawn its row must stay readable
/// for as long as any stream names it.
/// </remarks>
public sealed class Currency
{
    // Every code is three capital letters, so a table of 26^3 slots finds one without hashing and without a string.
    private static readonly Currency?[] ByLetters = Build();

    private Currency(string code, int decimals) => (Code, Decimals) = (code, decimals);

    /// <summary>The three capital letters, for example <c>EUR</c>.</summary>
    public string Code { get; }

    /// <summary>How many decimals an amount has: 0 (JPY), 2 (EUR), 3 (KWD) or 4 (CLF).</summary>
    public int Decimals { get; }

    /// <summary>Every currency that is accepted, by code.</summary>
    public static IReadOnlyList<Currency> All { get; } = [.. ByLetters.OfType<Currency>()];

    /// <summary>Finds a currency by its exact code; lower case, blanks and unknown codes are not found.</summary>
    public static bool TryGet(string? code, [NotNullWhen(true)] out Currency? currency)
    {
        currency = code is { Length: 3 } ? Find(code[0], code[1], code[2]) : null;
        return currency is not null;
    }

    /// <summary>The same for a code that is still UTF-8 bytes.</summary>
    public static bool TryGet(ReadOnlySpan<byte> code, [NotNullWhen(true)] out Currency? currency)
    {
        currency = code.Length == 3 ? Find((char)code[0], (char)code[1], (char)code[2]) : null;
        return currency is not null;
    }

    public override string ToString() => Code;

    private static Currency? Find(char first, char second, char third) =>
        char.IsAsciiLetterUpper(first) && char.IsAsciiLetterUpper(second) && char.IsAsciiLetterUpper(third)
            ? ByLetters[Slot(first, second, third)]
            : null;

    private static int Slot(char first, char second, char third) =>
        (((first - 'A') * 26) + (second - 'A')) * 26 + (third - 'A');

    private static Currency?[] Build()
    {
        // ISO 4217 list one as of 2026, grouped by minor unit.
        (int Decimals, string Codes)[] list =
        [
            (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
            (2, """
                AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
                CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
                IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
                MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
                SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
                YER ZAR ZMW ZWG
                """),
            (3, "BHD IQD JOD KWD LYD OMR TND"),
            (4, "CLF UYW"),
        ];

        var table = new Currency?[26 * 26 * 26];
        foreach (var (decimals, codes) in list)
        {
            foreach (var code in codes.Split([' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries))
            {
                table[Slot(code[0], code[1], code[2])] = new Currency(code, decimals);
            }
        }

        return table;
    }
}
