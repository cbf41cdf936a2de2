using OrderService.DeadLetters;
using OrderService.Store;

namespace OrderService.Customers;

/// <summary>How the wish to forget a customer ends.</summary>
public abstract record ForgetAnswer
{
    private ForgetAnswer() { }

    /// <param name="Orders">Whose personal data nobody reads any more.</param>
    /// <param name="Events">Of them, those of a version before the keys, out of which it was taken.</param>
    /// <param name="Letters">Dead letters whose bodies are gone.</param>
    public sealed record Forgotten(long Orders, long Events, long Letters) : ForgetAnswer;

    public sealed record Held(CustomerHold Hold) : ForgetAnswer;
}

/// <summary>
/// Forgets customers: destroys the key of one, which is the moment from which nobody reads what lies under it, and takes what an earlier version stored in plain out of events and letters.
/// The list of the forgotten lies with the keys, so that a store that is put back from a backup forgets them again.
/// </summary>
public sealed partial class CustomerForgetting(IDatabase database, TimeProvider clock, ILogger<CustomerForgetting> logger)
{
    private const int PageSize = 100;

    /// <param name="reason">For the audit log.</param>
    public async Task<ForgetAnswer> ForgetAsync(string customerId, Caller who, string reason, CancellationToken cancellationToken)
    {
        var hold = await database.WriteAsync(
            async transaction =>
            {
                if (await CustomersTable.HoldOfAsync(transaction, customerId) is { } held)
                {
                    return held;
                }
                await AuditTrail.WriteAsync(transaction, who, "customer.forget", $"customer {customerId}", reason, Now());
                return null;
            },
            cancellationToken);
        if (hold is not null)
        {
            return new ForgetAnswer.Held(hold);
        }
        // From here on nothing is given up half way: what a crash leaves undone the next start does.
        database.Keys.Forget(customerId);
        var at = database.Keys.Forgotten().Last(one => one.CustomerId == customerId).At;
        return await ApplyAsync(customerId, at, CancellationToken.None);
    }

    /// <summary>Makes the store and the list of the forgotten agree, whichever of the two was put back from a backup.</summary>
    /// <returns>How many customers were forgotten again.</returns>
    public async Task<int> ApplyAgainAsync(CancellationToken cancellationToken)
    {
        var here = await database.ReadAsync(CustomersTable.ForgottenAsync, cancellationToken);
        var list = database.Keys.Forgotten();
        var known = list.ToDictionary(one => one.CustomerId, one => one.At, StringComparer.Ordinal);
        var again = 0;
        // The keys are older than the store: a destroyed key came back with them.
        foreach (var (customerId, at) in here.Where(one => !known.TryGetValue(one.CustomerId, out var last) || last < one.At))
        {
            if (database.Keys.Forget(customerId, at))
            {
                LogKeyCameBack(customerId);
                again++;
            }
        }
        // The store is older than the list.
        foreach (var (customerId, at) in list.Where(one => !here.Contains(one)))
        {
            await ApplyAsync(customerId, at, cancellationToken);
            again++;
        }
        if (again > 0)
        {
            LogAgain(again);
        }
        return again;
    }

    private async Task<ForgetAnswer.Forgotten> ApplyAsync(string customerId, long at, CancellationToken cancellationToken)
    {
        var (orders, events) = await RedactAsync(customerId, cancellationToken);
        var letters = await EmptyLettersAsync(customerId, at, cancellationToken);
        await database.WriteAsync(transaction => CustomersTable.AddForgottenAsync(transaction, customerId, at, orders, events, letters), cancellationToken);
        if (events + letters > 0)
        {
            await database.ScrubAsync(cancellationToken);
        }
        return new ForgetAnswer.Forgotten(orders, events, letters);
    }

    private async Task<(long Orders, long Events)> RedactAsync(string customerId, CancellationToken cancellationToken)
    {
        long orders = 0, events = 0, after = 0;
        while (true)
        {
            var (count, redacted, last) = await database.WriteAsync(
                async transaction =>
                {
                    await transaction.OverwriteAsync();
                    var rows = await RedactionsTable.FirstEventsAsync(transaction, customerId, after, PageSize);
                    var written = 0;
                    foreach (var row in rows)
                    {
                        if (EventSerializer.WithoutPlainData(row.Data) is { } data)
                        {
                            await RedactionsTable.RedactAsync(transaction, row, data, Now());
                            written++;
                        }
                    }
                    return (rows.Count, written, rows.Count == 0 ? after : rows[^1].Stream);
                },
                cancellationToken);
            (orders, events, after) = (orders + count, events + redacted, last);
            if (count < PageSize)
            {
                return (orders, events);
            }
        }
    }

    private async Task<long> EmptyLettersAsync(string customerId, long at, CancellationToken cancellationToken)
    {
        long letters = 0, after = 0;
        while (true)
        {
            var ids = await database.WriteAsync(
                async transaction =>
                {
                    await transaction.OverwriteAsync();
                    var some = await LettersTable.OfCustomerAsync(transaction, customerId, at, after, PageSize);
                    if (some.Count > 0)
                    {
                        await LettersTable.EmptyAsync(transaction, some);
                        await ReplaysTable.EmptyAsync(transaction, some);
                    }
                    return some;
                },
                cancellationToken);
            letters += ids.Count;
            if (ids.Count < PageSize)
            {
                return letters;
            }
            after = ids[^1];
        }
    }

    private long Now() => clock.GetUtcNow().ToUnixTimeMilliseconds();

    [LoggerMessage(LogLevel.Warning, "The key of the forgotten customer {CustomerId} was there again: the keys were put back from a backup. It is destroyed")]
    private partial void LogKeyCameBack(string customerId);

    [LoggerMessage(LogLevel.Warning, "{Customers} customers who had been forgotten were forgotten again: the store or the keys were put back from a backup, or a process ended meanwhile")]
    private partial void LogAgain(int customers);
}
