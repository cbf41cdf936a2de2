using System.Globalization;
using OrderService.Domain;

namespace OrderService.Admin;

/// <summary>The version of an order as HTTP has it: <c>ETag</c> of the order, <c>If-Match</c> of a command.</summary>
internal static class ExpectedVersion
{
    public const string Header = "If-Match";

    public const string Rule = $"{Header} is the ETag of the order, such as \"3\", or *; where the body names an expectedVersion, it is the same.";

    /// <summary>The tag of an order at a version.</summary>
    public static string Tag(long version) => string.Create(CultureInfo.InvariantCulture, $"\"{version}\"");

    /// <summary>Puts the version that the header names into the command; false when it is no version, or another than the body's.</summary>
    public static bool TryRead(HttpRequest request, ref OrderCommand command)
    {
        var given = request.Headers.IfMatch;
        if (given.Count == 0 || (given.Count == 1 && given[0] == "*"))
        {
            return true;
        }
        if (given.Count != 1 || given[0] is not ['"', .. var digits, '"'] || !long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var version)
            || (command.ExpectedVersion is { } named && named != version))
        {
            return false;
        }
        command = command with { ExpectedVersion = version };
        return true;
    }
}
