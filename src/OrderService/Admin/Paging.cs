using System.Buffers.Binary;
using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Admin;

/// <summary>A page of a list.</summary>
/// <param name="Next">Hand it back as <c>after</c> for the next page; null on the last one.</param>
internal sealed record Page<T>(IReadOnlyList<T> Items, string? Next);

/// <summary>The parameters <c>limit</c> and <c>after</c>, and cursors that hold for one list with one set of filters.</summary>
internal static class Paging
{
    public const int DefaultLimit = 50;
    public const int MaxLimit = 500;

    /// <summary>Of 24 bytes in base64url.</summary>
    private const int PairLength = 32;

    /// <summary>Reads the query of a list; null and an answer when it can't be understood.</summary>
    /// <param name="list">The list's name and its filters: a cursor of another list, or of other filters, is refused.</param>
    public static (int Limit, long? After)? Read(HttpContext context, string list, out IResult problem)
    {
        if (ReadLimit(context, out problem) is not { } limit)
        {
            return null;
        }
        var cursor = context.Request.Query["after"];
        if (cursor.Count == 0)
        {
            return (limit, null);
        }
        if (cursor.Count == 1 && Decode(list, cursor[0] ?? "") is { } after)
        {
            return (limit, after);
        }
        problem = BadParameter("after", "after is not a cursor of this list with these filters; begin without it.");
        return null;
    }

    /// <summary>The same for a list whose place is a pair: by what it is sorted, and a number that tells equals apart.</summary>
    public static (int Limit, (long First, long Second)? After)? ReadPair(HttpContext context, string list, out IResult problem)
    {
        if (context.Request.Query["after"] is not [{ Length: PairLength } cursor])
        {
            return Read(context, list, out problem) is { } page ? (page.Limit, page.After is { } second ? (0, second) : null) : null;
        }
        if (!Base64Url.IsValid(cursor) || Pair(list, Base64Url.DecodeFromChars(cursor)) is not { } after)
        {
            problem = BadParameter("after", "after is not a cursor of this list with these filters; begin without it.");
            return null;
        }
        return ReadLimit(context, out problem) is { } limit ? (limit, after) : null;
    }

    /// <summary>One value of a query parameter, or null when it is absent; a repeated one is an error.</summary>
    public static bool TryReadOne(HttpContext context, string name, out string? value, out IResult problem)
    {
        var values = context.Request.Query[name];
        value = values.Count == 1 && !string.IsNullOrEmpty(values[0]) ? values[0] : null;
        problem = values.Count > 1 ? BadParameter(name, $"{name} may be given once.") : Results.Empty;
        return values.Count <= 1;
    }

    public static IResult BadParameter(string name, string detail) =>
        Problems.Result(StatusCodes.Status400BadRequest, "bad_parameter", detail, new FieldError("#" + name, "bad_parameter", detail));

    public static string Encode(string list, long position)
    {
        Span<byte> bytes = stackalloc byte[16];
        BinaryPrimitives.WriteInt64BigEndian(bytes, position);
        Check(list, position)[..8].CopyTo(bytes[8..]);
        return Base64Url.EncodeToString(bytes);
    }

    public static string Encode(string list, long first, long second)
    {
        Span<byte> bytes = stackalloc byte[24];
        BinaryPrimitives.WriteInt64BigEndian(bytes, first);
        BinaryPrimitives.WriteInt64BigEndian(bytes[8..], second);
        Check($"{list}\n{first}", second)[..8].CopyTo(bytes[16..]);
        return Base64Url.EncodeToString(bytes);
    }

    private static (long First, long Second)? Pair(string list, ReadOnlySpan<byte> bytes)
    {
        var (first, second) = (BinaryPrimitives.ReadInt64BigEndian(bytes), BinaryPrimitives.ReadInt64BigEndian(bytes[8..]));
        return Check($"{list}\n{first}", second)[..8].SequenceEqual(bytes[16..]) ? (first, second) : null;
    }

    private static int? ReadLimit(HttpContext context, out IResult problem)
    {
        problem = Results.Empty;
        var limit = DefaultLimit;
        var given = context.Request.Query["limit"];
        if (given.Count > 1 || (given.Count == 1 && (!int.TryParse(given[0], NumberStyles.None, CultureInfo.InvariantCulture, out limit) || limit is < 1 or > MaxLimit)))
        {
            problem = BadParameter("limit", $"limit is a number from 1 to {MaxLimit}.");
            return null;
        }
        return limit;
    }

    private static long? Decode(string list, string cursor)
    {
        if (cursor.Length != 22 || !Base64Url.IsValid(cursor))
        {
            return null;
        }
        ReadOnlySpan<byte> bytes = Base64Url.DecodeFromChars(cursor);
        var position = BinaryPrimitives.ReadInt64BigEndian(bytes);
        return Check(list, position)[..8].SequenceEqual(bytes[8..]) ? position : null;
    }

    // Not a secret: it tells a cursor of this list from anything else.
    private static ReadOnlySpan<byte> Check(string list, long position) =>
        SHA256.HashData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{list}\n{position}")));
}
