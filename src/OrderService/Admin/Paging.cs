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

    /// <summary>Reads the query of a list; null and an answer when it can't be understood.</summary>
    /// <param name="list">The list's name and its filters: a cursor of another list, or of other filters, is refused.</param>
    public static (int Limit, long? After)? Read(HttpContext context, string list, out IResult problem)
    {
        problem = Results.Empty;
        var limit = DefaultLimit;
        var given = context.Request.Query["limit"];
        if (given.Count > 1 || (given.Count == 1 && (!int.TryParse(given[0], NumberStyles.None, CultureInfo.InvariantCulture, out limit) || limit is < 1 or > MaxLimit)))
        {
            problem = BadParameter("limit", $"limit is a number from 1 to {MaxLimit}.");
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
