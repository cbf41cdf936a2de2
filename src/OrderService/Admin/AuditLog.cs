using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Who did what. Rows are only ever added.</summary>
public sealed partial class AuditLog(IDatabase database, TimeProvider clock, ILogger<AuditLog> logger)
{
    /// <param name="subject">What it was done to, for instance <c>dead letter 17</c>.</param>
    /// <param name="detail">The operator's reason or what was refused; no personal data, no bodies.</param>
    public Task WriteAsync(Caller who, string action, string subject, string detail, CancellationToken cancellationToken = default) =>
        database.WriteAsync(transaction => AuditTrail.WriteAsync(transaction, who, action, subject, detail, clock.GetUtcNow().ToUnixTimeMilliseconds()), cancellationToken);

    /// <summary>For refusals: a store that is out of reach must not turn a 403 into a 500.</summary>
    public async Task TryWriteAsync(Caller who, string action, string subject, string detail)
    {
        try
        {
            await WriteAsync(who, action, subject, detail);
        }
        catch (StoreUnavailableException exception)
        {
            LogNotWritten(who.Name, action, exception.Message);
        }
    }

    /// <summary>The newest entries first.</summary>
    /// <param name="before">Only entries older than this one.</param>
    public Task<IReadOnlyList<AuditEntry>> ReadAsync(string? who, string? action, long? before, int limit, CancellationToken cancellationToken) =>
        database.ReadAsync<IReadOnlyList<AuditEntry>>(async connection =>
            [.. (await AuditTrail.ListAsync(connection, who, action, before ?? long.MaxValue, limit)).Select(ToEntry)],
            cancellationToken);

    [LoggerMessage(LogLevel.Warning, "{Who} was refused {Action}, and the store could not take the audit entry: {Reason}")]
    private partial void LogNotWritten(string who, string action, string reason);

    private static AuditEntry ToEntry(AuditRow row)
    {
        var (address, right, request, detail) = AuditTrail.Read(row.Detail);
        return new AuditEntry(row.Id, DateTimeOffset.FromUnixTimeMilliseconds(row.At), row.Who, row.Action, row.Subject, detail, address, right, request);
    }
}

/// <summary>One line of the audit log.</summary>
/// <param name="Address">Where the request came from; null for what was done at the command line or by the service itself.</param>
/// <param name="Right">What let the caller in: <c>key ID</c>, <c>session ID of key ID until TIME</c> or <c>token until TIME</c>.</param>
/// <param name="Request">The id of the request, which problem documents call <c>traceId</c>; of a row that counts several, that of the first.</param>
public sealed record AuditEntry(
    long Id, DateTimeOffset At, string Who, string Action, string Subject, string Detail, string? Address = null, string? Right = null, string? Request = null);
