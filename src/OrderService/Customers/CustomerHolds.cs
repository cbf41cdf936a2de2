using OrderService.Store;

namespace OrderService.Customers;

/// <summary>Legal holds: while one stands, the customer is not forgotten.</summary>
public sealed class CustomerHolds(IDatabase database, TimeProvider clock)
{
    /// <param name="reason">Not blank: whoever is refused reads it.</param>
    public Task HoldAsync(string customerId, Caller who, string reason, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        return database.WriteAsync(
            async transaction =>
            {
                await CustomersTable.HoldAsync(transaction, customerId, reason, who.Shown, now);
                await AuditTrail.WriteAsync(transaction, who, "customer.hold", $"customer {customerId}", reason, now);
            },
            cancellationToken);
    }

    /// <returns>False when there was none.</returns>
    public Task<bool> UnholdAsync(string customerId, Caller who, string reason, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        return database.WriteAsync(
            async transaction =>
            {
                if (!await CustomersTable.UnholdAsync(transaction, customerId))
                {
                    return false;
                }
                await AuditTrail.WriteAsync(transaction, who, "customer.unhold", $"customer {customerId}", reason, now);
                return true;
            },
            cancellationToken);
    }
}
