using System.Text.RegularExpressions;

namespace OrderService.Store;

/// <summary>Who does something: an operator at the command line is a name alone, a caller of the HTTP API also has an address and what lets it in.</summary>
/// <param name="Name">The key's name, or the token's.</param>
/// <param name="Right">What lets it in, see <c>CallerRight</c>; empty at the command line.</param>
/// <param name="Address">Where the request came from; empty at the command line.</param>
public readonly record struct Caller(string Name, string Right = "", string Address = "")
{
    public static implicit operator Caller(string name) => new(name);

    public override string ToString() => Name;
}

/// <summary>
/// Adds rows to the audit log. A caller's address and right stand at the beginning of the row's detail, in brackets, where nothing that a caller says can come before them.
/// </summary>
public static partial class AuditTrail
{
    private const int LongestDetail = 1024;

    public static Task WriteAsync(StoreTransaction transaction, Caller who, string action, string subject, string detail, long now) => transaction.ExecuteAsync(
        "INSERT INTO audit (at, who, action, subject, detail) VALUES (@now, @who, @action, @subject, @detail)",
        new { now, who = Cut(who.Name, 128), action, subject = Cut(subject, 256), detail = Cut(Signed(who, detail), LongestDetail) });

    /// <summary>The detail as it is stored.</summary>
    internal static string Signed(Caller who, string detail) =>
        who.Address.Length == 0 && who.Right.Length == 0 ? detail : $"[{(who.Address.Length == 0 ? "-" : who.Address)}{(who.Right.Length == 0 ? "" : $" {who.Right}")}] {detail}".TrimEnd();

    /// <summary>Takes a stored detail apart; a row that nobody signed has neither address nor right.</summary>
    public static (string? Address, string? Right, string Detail) Read(string stored) =>
        Signature().Match(stored) is { Success: true } match
            ? (match.Groups["address"].Value is var address && address == "-" ? null : address, match.Groups["right"] is { Length: > 0 } right ? right.Value : null, match.Groups["detail"].Value)
            : (null, null, stored);

    private static string Cut(string text, int length) => text.Length <= length ? text : text[..length];

    [GeneratedRegex(@"^\[(?<address>-|[0-9a-fA-F.:]+(?:%\w+)?)(?: (?<right>(?:key|session|token) [^\]]*))?\](?: (?<detail>.*))?$", RegexOptions.Singleline)]
    private static partial Regex Signature();
}
