using System.Text.RegularExpressions;

namespace OrderService.Store;

/// <summary>Who does something: an operator at the command line is a name alone, a caller of the HTTP API also has an address and what lets it in.</summary>
/// <param name="Name"><c>key:anna</c>, <c>token:ISSUER#SUBJECT</c>, or the operator's own name at the command line.</param>
/// <param name="Right">What lets it in, see <c>CallerRight</c>; empty at the command line.</param>
/// <param name="Address">Where the request came from; empty at the command line.</param>
/// <param name="Request">The id of the request, as the log lines and the answer's <c>traceId</c> have it; empty at the command line.</param>
public readonly record struct Caller(string Name, string Right = "", string Address = "", string Request = "")
{
    /// <summary>What stands before the name of an API key.</summary>
    public const string KeyPrefix = "key:";

    public static implicit operator Caller(string name) => new(name);

    /// <summary>As people are told: a key is called by its name.</summary>
    public string Shown => Name.StartsWith(KeyPrefix, StringComparison.Ordinal) ? Name[KeyPrefix.Length..] : Name;

    public override string ToString() => Shown;
}

/// <summary>
/// Adds rows to the audit log. A caller's address, right and request id stand at the beginning of the row's detail, in brackets, where nothing that a caller says can come before them.
/// </summary>
public static partial class AuditTrail
{
    private const int LongestDetail = 1024;

    public static async Task WriteAsync(StoreTransaction transaction, Caller who, string action, string subject, string detail, long now)
    {
        var id = await transaction.ExecuteScalarAsync<long>(
            "INSERT INTO audit (at, who, action, subject, detail) VALUES (@now, @who, @action, @subject, @detail) RETURNING id",
            new { now, who = Cut(who.Name, 128), action, subject = Cut(subject, 256), detail = Cut(Signed(who, detail), LongestDetail) });
        await SealMarks.AddedAsync(transaction, SealSubject.Audit.Table, id);
    }

    /// <summary>The newest entries first. A name without its kind finds the key of that name too.</summary>
    /// <param name="before">Only entries with a lower number.</param>
    internal static Task<List<AuditRow>> ListAsync(StoreConnection connection, string? who, string? action, long before, int limit) => connection.QueryAsync<AuditRow>(
        $"SELECT id, at, who, action, subject, detail FROM audit WHERE id < @before {(who is null ? "" : "AND who IN (@who, @key)")} {(action is null ? "" : "AND action = @action")} ORDER BY id DESC LIMIT @limit",
        new { before, who, key = Caller.KeyPrefix + who, action, limit });

    internal static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM audit WHERE at <= @before", new { before });

    /// <summary>The oldest rows from behind <paramref name="last"/>.</summary>
    internal static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, OldRow last, int most) => connection.QueryAsync<OldRow>(
        "SELECT at, id FROM audit WHERE at <= @before AND (at, id) > (@At, @Id) ORDER BY at, id LIMIT @most", new { before, last.At, last.Id, most });

    internal static async Task<long> RemoveAsync(StoreTransaction transaction, long id, long before)
    {
        var removed = await transaction.ExecuteAsync("DELETE FROM audit WHERE id = @id AND at <= @before", new { id, before });
        if (removed > 0)
        {
            await SealMarks.RemovedAsync(transaction, SealSubject.Audit.Table, id);
        }
        return removed;
    }

    /// <summary>Who started a replay job or resumed it last. Backwards from the newest row, so a job of today is found at once in a log of years.</summary>
    internal static async Task<Caller?> StarterAsync(StoreConnection connection, string job)
    {
        var rows = await connection.QueryAsync<(string Who, string Detail)>(
            "SELECT who, detail FROM audit WHERE subject = @job AND action IN ('replay.start', 'replay.resume') ORDER BY id DESC LIMIT 1", new { job });
        if (rows is not [var (who, detail)])
        {
            return null;
        }
        var (address, right, _, _) = Read(detail);
        return new Caller(who, right ?? "", address ?? "");
    }

    /// <summary>The detail as it is stored.</summary>
    internal static string Signed(Caller who, string detail) =>
        who.Address.Length == 0 && who.Right.Length == 0
            ? detail
            : $"[{(who.Address.Length == 0 ? "-" : who.Address)}{(who.Right.Length == 0 ? "" : $" {who.Right}")}{(who.Request.Length == 0 ? "" : $" request {who.Request}")}] {detail}".TrimEnd();

    /// <summary>Takes a stored detail apart; a row that nobody signed has neither address nor right nor request.</summary>
    public static (string? Address, string? Right, string? Request, string Detail) Read(string stored)
    {
        return Signature().Match(stored) is { Success: true } match
            ? (match.Groups["address"].Value is var address && address == "-" ? null : address, Part(match, "right"), Part(match, "request"), match.Groups["detail"].Value)
            : (null, null, null, stored);

        static string? Part(Match match, string name) => match.Groups[name] is { Length: > 0 } group ? group.Value : null;
    }

    private static string Cut(string text, int length) => text.Length <= length ? text : text[..length];

    [GeneratedRegex(@"^\[(?<address>-|[0-9a-fA-F.:]+(?:%\w+)?)(?: (?<right>(?:key|session|token) [^\]]*?))?(?: request (?<request>[0-9A-Za-z:-]+))?\](?: (?<detail>.*))?$", RegexOptions.Singleline)]
    private static partial Regex Signature();
}

internal sealed class AuditRow
{
    public long Id { get; init; }
    public long At { get; init; }
    public string Who { get; init; } = "";
    public string Action { get; init; } = "";
    public string Subject { get; init; } = "";
    public string Detail { get; init; } = "";
}
