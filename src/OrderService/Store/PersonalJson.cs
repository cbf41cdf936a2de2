using System.Text.Json;
using OrderService.Domain;
using static OrderService.Store.OrderJson;

namespace OrderService.Store;

/// <summary>Personal data as JSON: the members as a command has them, absent ones left out.</summary>
public static class PersonalJson
{
    /// <summary>What stands in the place of a member for those who may not see it.</summary>
    public const string Masked = "***";

    /// <summary>As it is before it is sealed: an object of its own.</summary>
    public static byte[] Write(PersonalData personal)
    {
        var writer = JsonScratch.Begin();
        writer.WriteStartObject();
        WriteMembers(writer, personal);
        writer.WriteEndObject();
        return JsonScratch.End();
    }

    /// <summary>Writes the members into an object that is open.</summary>
    public static void WriteMembers(Utf8JsonWriter writer, PersonalData personal)
    {
        WriteOptional(writer, "email"u8, personal.Email);
        WriteOptional(writer, "name"u8, personal.Name);
        WriteOptional(writer, "phone"u8, personal.Phone);
        WriteAddress(writer, "billingAddress"u8, personal.BillingAddress);
        WriteAddress(writer, "shippingAddress"u8, personal.ShippingAddress);
    }

    /// <summary>Says which members there are, and nothing else.</summary>
    public static void WriteMasked(Utf8JsonWriter writer, PersonalData personal)
    {
        WriteOptional(writer, "email"u8, personal.Email is null ? null : Masked);
        WriteOptional(writer, "name"u8, personal.Name is null ? null : Masked);
        WriteOptional(writer, "phone"u8, personal.Phone is null ? null : Masked);
        WriteOptional(writer, "billingAddress"u8, personal.BillingAddress is null ? null : Masked);
        WriteOptional(writer, "shippingAddress"u8, personal.ShippingAddress is null ? null : Masked);
    }

    /// <summary>Reads what <see cref="Write"/> wrote. Members that it does not know are skipped: a newer version may have written them.</summary>
    public static PersonalData Read(byte[] json)
    {
        using var document = JsonDocument.Parse(json);
        var root = document.RootElement;
        return new PersonalData
        {
            Email = Text(root, "email"),
            Name = Text(root, "name"),
            Phone = Text(root, "phone"),
            BillingAddress = Address(root, "billingAddress"),
            ShippingAddress = Address(root, "shippingAddress"),
        };
    }

    private static void WriteAddress(Utf8JsonWriter writer, ReadOnlySpan<byte> name, PostalAddress? address)
    {
        if (address is null)
        {
            return;
        }
        writer.WriteStartObject(name);
        WriteOptional(writer, "name"u8, address.Name);
        WriteOptional(writer, "company"u8, address.Company);
        writer.WriteStartArray("lines"u8);
        foreach (var line in address.Lines)
        {
            writer.WriteStringValue(line);
        }
        writer.WriteEndArray();
        writer.WriteString("city"u8, address.City);
        WriteOptional(writer, "region"u8, address.Region);
        WriteOptional(writer, "postalCode"u8, address.PostalCode);
        writer.WriteString("country"u8, address.Country);
        writer.WriteEndObject();
    }

    private static PostalAddress? Address(JsonElement root, string name) => root.TryGetProperty(name, out var address)
        ? new PostalAddress(
            Text(address, "name"), Text(address, "company"), [.. address.GetProperty("lines").EnumerateArray().Select(line => line.GetString()!)], Text(address, "city")!,
            Text(address, "region"), Text(address, "postalCode"), Text(address, "country")!)
        : null;

    private static string? Text(JsonElement element, string name) => element.TryGetProperty(name, out var value) ? value.GetString() : null;
}
