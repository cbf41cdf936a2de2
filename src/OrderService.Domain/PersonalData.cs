namespace OrderService.Domain;

/// <summary>What an order says about a person: stored under a key of the customer's own, never logged, published only where the operator says so.</summary>
public sealed record PersonalData
{
    /// <summary>There was some, and its key is destroyed.</summary>
    public static PersonalData Forgotten { get; } = new() { IsForgotten = true };

    public string? Name { get; init; }

    public string? Email { get; init; }

    public string? Phone { get; init; }

    public PostalAddress? BillingAddress { get; init; }

    public PostalAddress? ShippingAddress { get; init; }

    public bool IsForgotten { get; private init; }

    /// <summary>Null where there is nothing to keep.</summary>
    public static PersonalData? Of(string? name, string? email, string? phone, PostalAddress? billing, PostalAddress? shipping) =>
        name is null && email is null && phone is null && billing is null && shipping is null
            ? null
            : new PersonalData { Name = name, Email = email, Phone = phone, BillingAddress = billing, ShippingAddress = shipping };

    /// <summary>Says nothing: a record that is printed ends in logs and errors.</summary>
    public override string ToString() => IsForgotten ? "forgotten" : "***";
}

/// <summary>Where something is sent to.</summary>
/// <param name="Lines">1 to 4: street, number, floor, as the country writes them.</param>
/// <param name="Country">ISO 3166-1 alpha-2, see <see cref="Domain.Country"/>.</param>
public sealed record PostalAddress(
    string? Name, string? Company, IReadOnlyList<string> Lines, string City, string? Region, string? PostalCode, string Country)
{
    public bool Equals(PostalAddress? other) => other is not null
        && (Name, Company, City, Region, PostalCode, Country) == (other.Name, other.Company, other.City, other.Region, other.PostalCode, other.Country)
        && Lines.SequenceEqual(other.Lines, StringComparer.Ordinal);

    public override int GetHashCode() => HashCode.Combine(Name, Company, City, Region, PostalCode, Country, Lines.Count);

    public override string ToString() => "***";
}

/// <summary>The countries that have a code of their own (ISO 3166-1 alpha-2).</summary>
public static class Country
{
    private const string Codes =
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
        + "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR "
        + "GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP "
        + "KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ "
        + "NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW "
        + "SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ "
        + "UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

    private static readonly HashSet<string> Known = [.. Codes.Split(' ')];

    public static bool IsKnown(string code) => Known.Contains(code);
}
