using System.Globalization;
using System.Text.Json;

namespace OrderService.Inbox;

/// <summary>What a rule says about one member of a command.</summary>
public abstract record MappedValue
{
    private MappedValue() { }

    /// <summary>Whether there is something to write; a member without is left out, and the parser says whether it may be.</summary>
    public abstract bool IsThere(MappingSource source);

    /// <exception cref="MappingException">What is there is not what the rule wants of it.</exception>
    public abstract void Write(Utf8JsonWriter writer, MappingSource source);

    /// <summary>The value as text, where it has one.</summary>
    internal virtual string? Text(MappingSource source) => null;

    /// <summary>The same in every message.</summary>
    public sealed record Constant(JsonElement Value) : MappedValue
    {
        public override bool IsThere(MappingSource source) => true;

        public override void Write(Utf8JsonWriter writer, MappingSource source) => Value.WriteTo(writer);

        internal override string? Text(MappingSource source) => Value.ValueKind == JsonValueKind.String ? Value.GetString() : null;
    }

    /// <summary>An object with members of its own.</summary>
    public sealed record Members(IReadOnlyDictionary<string, MappedValue> Named) : MappedValue
    {
        public override bool IsThere(MappingSource source) => Named.Values.Any(value => value.IsThere(source));

        public override void Write(Utf8JsonWriter writer, MappingSource source)
        {
            writer.WriteStartObject();
            foreach (var (name, value) in Named)
            {
                if (value.IsThere(source))
                {
                    writer.WritePropertyName(name);
                    value.Write(writer, source);
                }
            }

            writer.WriteEndObject();
        }
    }

    /// <summary>An array: one object for each element of an array of the message.</summary>
    public sealed record Each(string Pointer, Members Element) : MappedValue
    {
        public override bool IsThere(MappingSource source) => JsonPointer.Find(source.At, Pointer) is { ValueKind: not JsonValueKind.Null };

        public override void Write(Utf8JsonWriter writer, MappingSource source)
        {
            var array = JsonPointer.Find(source.At, Pointer);
            if (array is not { ValueKind: JsonValueKind.Array } elements)
            {
                throw new MappingException($"{source.Pointer}{Pointer} is not an array");
            }

            writer.WriteStartArray();
            var index = 0;
            foreach (var element in elements.EnumerateArray())
            {
                Element.Write(writer, source with { At = element, Pointer = string.Create(CultureInfo.InvariantCulture, $"{source.Pointer}{Pointer}/{index++}") });
            }

            writer.WriteEndArray();
        }
    }

    /// <summary>A value of the message, or several joined to one text.</summary>
    /// <param name="Pointers">JSON pointers (RFC 6901), from the element at hand.</param>
    /// <param name="Conversion">What it becomes.</param>
    public sealed record From(IReadOnlyList<string> Pointers, MappingConversion Conversion) : MappedValue
    {
        public override bool IsThere(MappingSource source) => Values(source).Any() || Conversion.Default is not null;

        public override void Write(Utf8JsonWriter writer, MappingSource source)
        {
            var values = Values(source).ToList();
            if (values.Count == 0)
            {
                Conversion.Default!.Value.WriteTo(writer);
            }
            else if (values.Count == 1 && Conversion.Kind == MappingKind.AsItIs)
            {
                values[0].WriteTo(writer);
            }
            else
            {
                Conversion.Write(writer, Joined(values, source), source.Currency, source.Pointer + Pointers[0]);
            }
        }

        internal override string? Text(MappingSource source) =>
            Values(source).ToList() is { Count: > 0 } values ? Conversion.Change(Joined(values, source)) : Conversion.Default is { ValueKind: JsonValueKind.String } given ? given.GetString() : null;

        private IEnumerable<JsonElement> Values(MappingSource source) => Pointers
            .Select(pointer => JsonPointer.Find(source.At, pointer))
            .OfType<JsonElement>()
            .Where(value => value.ValueKind != JsonValueKind.Null && !(Conversion.Kind != MappingKind.AsItIs && value.ValueKind == JsonValueKind.String && value.GetString()!.Length == 0));

        private string Joined(List<JsonElement> values, MappingSource source) => string.Join(Conversion.Between, values.Select(value => value.ValueKind switch
        {
            JsonValueKind.String => value.GetString(),
            JsonValueKind.Number or JsonValueKind.True or JsonValueKind.False => value.GetRawText(),
            _ => throw new MappingException($"{source.Pointer}{Pointers[0]} is an object or an array"),
        }));
    }
}

/// <summary>What a value of a message becomes.</summary>
public enum MappingKind
{
    /// <summary>The same JSON.</summary>
    AsItIs,

    /// <summary>A string.</summary>
    Text,

    /// <summary>A number: of a string or a number.</summary>
    Amount,

    /// <summary>A number: of minor units of the order's currency, such as cents.</summary>
    Minor,

    /// <summary>A whole number.</summary>
    Integer,

    /// <summary>A time with an offset (RFC 3339): of one that may lack it.</summary>
    Time,
}

/// <summary>How a value of a message becomes one of a command.</summary>
public sealed record MappingConversion(MappingKind Kind)
{
    /// <summary>What stands in when the message has no value; null leaves the member out.</summary>
    public JsonElement? Default { get; init; }

    /// <summary>Texts that are replaced whole.</summary>
    public IReadOnlyDictionary<string, string> Values { get; init; } = new Dictionary<string, string>();

    /// <summary>Taken out wherever it stands.</summary>
    public string Remove { get; init; } = "";

    public string Prefix { get; init; } = "";

    /// <summary>Between texts that are joined.</summary>
    public string Between { get; init; } = " ";

    /// <summary>The decimals of <see cref="MappingKind.Minor"/>; null takes those of the order's currency.</summary>
    public int? Decimals { get; init; }

    /// <summary>The offset of a <see cref="MappingKind.Time"/> that has none.</summary>
    public string Offset { get; init; } = "Z";

    internal string Change(string text)
    {
        var rest = Remove.Length == 0 ? text : text.Replace(Remove, "", StringComparison.Ordinal);
        return Prefix + Values.GetValueOrDefault(rest, rest);
    }

    /// <param name="pointer">Where it lies in the message, for errors.</param>
    internal void Write(Utf8JsonWriter writer, string raw, Domain.Currency? currency, string pointer)
    {
        var text = Change(raw);
        switch (Kind)
        {
            case MappingKind.Amount:
                // Zeros at the end are no precision that somebody meant.
                writer.WriteNumberValue(Domain.Money.WithoutZeros(Number(text, pointer)));
                break;

            case MappingKind.Minor:
                var decimals = Decimals ?? currency?.Decimals ?? throw new MappingException($"{pointer} is in minor units, and the rule names neither a currency nor decimals");
                writer.WriteNumberValue(Whole(text, pointer) / Power(decimals));
                break;

            case MappingKind.Integer:
                writer.WriteNumberValue(Whole(text, pointer));
                break;

            case MappingKind.Time:
                writer.WriteStringValue(HasOffset(text) ? text : text.Replace(' ', 'T') + Offset);
                break;

            default:
                writer.WriteStringValue(text);
                break;
        }
    }

    private static decimal Number(string text, string pointer) =>
        decimal.TryParse(text, NumberStyles.AllowDecimalPoint | NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number)
            ? number
            : throw new MappingException($"{pointer} is not a number such as 49.90");

    private static decimal Whole(string text, string pointer) =>
        Number(text, pointer) is var number && number == decimal.Truncate(number) ? decimal.Truncate(number) : throw new MappingException($"{pointer} is not a whole number");

    private static decimal Power(int decimals) => Enumerable.Repeat(10m, decimals).Aggregate(1m, (product, ten) => product * ten);

    private static bool HasOffset(string time) =>
        time.EndsWith('Z') || time.EndsWith('z') || (time.Length > 6 && time[^6] is '+' or '-' && time[^3] == ':' && time.Contains('T', StringComparison.Ordinal));
}
