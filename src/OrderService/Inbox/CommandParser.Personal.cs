using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>The members of <c>order.place</c> that say something about a person.</summary>
internal ref partial struct CommandParser
{
    private const int MaxPersonNameLength = 200;
    private const int MaxAddressLineLength = 200;
    private const int MaxCityLength = 100;
    private const int MaxPostalCodeLength = 20;
    private const int MaxPhoneLength = 40;
    private const int MaxAddressLines = 4;

    private static readonly System.Buffers.SearchValues<char> PhoneCharacters = System.Buffers.SearchValues.Create("0123456789 +-()/.#xX");

    private bool Email(out string? email)
    {
        email = null;
        if (reader.TokenType != JsonTokenType.String)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType("email", "a string");
        }

        if (reader.ValueSpan.Length <= 6 * TextRules.MaxEmailLength)
        {
            var given = reader.GetString()!;
            if (TextRules.IsEmail(given))
            {
                email = given;
                return true;
            }
        }

        return Reject(
            RejectionReason.TextInvalid, $"email must be one address (name@domain) of at most {TextRules.MaxEmailLength} characters, or be left out.", Pointer("email"));
    }

    private bool Phone(out string? phone)
    {
        if (!SingleLine("phone", MaxPhoneLength, out phone) || phone is null)
        {
            return rejection is null;
        }

        return (phone.AsSpan().IndexOfAnyExcept(PhoneCharacters) < 0 && phone.Any(char.IsAsciiDigit)) || Reject(
            RejectionReason.TextInvalid, "phone must be a number of digits, blanks and + - ( ) / . # x, or be left out.", Pointer("phone"));
    }

    /// <summary>A text without line breaks and tabs.</summary>
    private bool SingleLine(string name, int maxLength, out string? text)
    {
        if (!Text(name, maxLength, out text) || text is null)
        {
            return rejection is null;
        }

        return text.AsSpan().IndexOfAny('\n', '\t') < 0
            || Reject(RejectionReason.TextInvalid, $"{Where(name)} must be one line without tabs.", Pointer(name));
    }

    private bool Address(AddressNames names, out PostalAddress? address)
    {
        address = null;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(names.Whole, "an object with lines, city and country");
        }

        string? name = null, company = null, city = null, region = null, postalCode = null, country = null;
        List<string>? lines = null;
        var seen = 0;
        while (NextMember())
        {
            var read =
                reader.ValueTextEquals("name"u8) ? Once(ref seen, 1, names.Name) && SingleLine(names.Name, MaxPersonNameLength, out name)
                : reader.ValueTextEquals("company"u8) ? Once(ref seen, 2, names.Company) && SingleLine(names.Company, MaxPersonNameLength, out company)
                : reader.ValueTextEquals("lines"u8) ? Once(ref seen, 4, names.Lines) && AddressLines(names.Lines, out lines)
                : reader.ValueTextEquals("city"u8) ? Once(ref seen, 8, names.City) && SingleLine(names.City, MaxCityLength, out city)
                : reader.ValueTextEquals("region"u8) ? Once(ref seen, 16, names.Region) && SingleLine(names.Region, MaxCityLength, out region)
                : reader.ValueTextEquals("postalCode"u8) ? Once(ref seen, 32, names.PostalCode) && SingleLine(names.PostalCode, MaxPostalCodeLength, out postalCode)
                : reader.ValueTextEquals("country"u8) ? Once(ref seen, 64, names.Country) && CountryCode(names.Country, out country)
                : Unknown("name, company, lines, city, region, postalCode, country");
            if (!read)
            {
                return false;
            }
        }

        if (lines is null || city is null || country is null)
        {
            Missing<OrderCommand.Place>((lines is null, names.Lines), (city is null, names.City), (country is null, names.Country));
            return false;
        }

        address = new PostalAddress(name, company, lines, city, region, postalCode, country);
        return true;
    }

    private bool AddressLines(string name, out List<string>? lines)
    {
        lines = null;
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            return reader.TokenType == JsonTokenType.Null || WrongType(name, "an array of 1 to 4 texts");
        }

        var read = new List<string>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            var entry = $"{name}/{read.Count}";
            if (!SingleLine(entry, MaxAddressLineLength, out var text))
            {
                return false;
            }

            if (text is null)
            {
                return WrongType(entry, "a string");
            }

            if (read.Count == MaxAddressLines)
            {
                return Reject(RejectionReason.TextInvalid, $"{Where(name)} must have 1 to {MaxAddressLines} entries.", Pointer(name));
            }

            read.Add(text);
        }

        if (read.Count == 0)
        {
            return Reject(RejectionReason.MissingField, $"{Pointer(name)} must have 1 to {MaxAddressLines} entries.", Pointer(name));
        }

        lines = read;
        return true;
    }

    private bool CountryCode(string name, out string? country)
    {
        if (!SingleLine(name, MaxCityLength, out country) || country is null)
        {
            return rejection is null;
        }

        return Country.IsKnown(country)
            || Reject(RejectionReason.TextInvalid, $"{Where(name)} must be a country's code of two capital letters (ISO 3166), such as DE.", Pointer(name));
    }

    /// <summary>What an address's members are called in errors and pointers.</summary>
    private sealed record AddressNames(string Whole)
    {
        public static AddressNames Billing { get; } = new("billingAddress");

        public static AddressNames Shipping { get; } = new("shippingAddress");

        public string Name { get; } = Whole + "/name";
        public string Company { get; } = Whole + "/company";
        public string Lines { get; } = Whole + "/lines";
        public string City { get; } = Whole + "/city";
        public string Region { get; } = Whole + "/region";
        public string PostalCode { get; } = Whole + "/postalCode";
        public string Country { get; } = Whole + "/country";
    }
}
