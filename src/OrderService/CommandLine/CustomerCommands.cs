using System.CommandLine;
using OrderService.Admin;
using OrderService.Customers;
using OrderService.Inbox;

namespace OrderService.CommandLine;

/// <summary><c>forget</c> and <c>customer export|hold|unhold</c>.</summary>
internal static class CustomerCommands
{
    public static Command CreateForget()
    {
        var (customer, reason) = (Customer(), Reason("Why, for the audit log."));
        var command = new Command(
            "forget",
            "Forgets a customer: destroys the key under which what is personal in his orders and dead letters lies. Nobody reads it any more, in backups of the store neither. It can't be undone; "
            + "customer export gives it out before. Exit code 1 while a legal hold stands.") { customer, reason };
        command.SetAction((parsed, cancellationToken) => WithCustomerAsync(parsed.GetValue(customer)!, async (stations, id, token) =>
        {
            switch (await stations.GetRequiredService<CustomerForgetting>().ForgetAsync(id, DeadLetterCommands.Who, parsed.GetValue(reason)!, token))
            {
                case ForgetAnswer.Held held:
                    await Console.Error.WriteLineAsync(CustomerEndpoints.Sentence(held.Hold));
                    return ExitCode.SomeFailed;
                case ForgetAnswer.Forgotten done:
                    Console.WriteLine(
                        $"Customer {id} is forgotten: {done.Orders} orders, {done.Letters} dead letters{(done.Events == 0 ? "" : $"; {done.Events} events of an earlier version had an e-mail address taken out")}.");
                    return ExitCode.Done;
                default:
                    throw new System.Diagnostics.UnreachableException();
            }
        }, cancellationToken));
        return command;
    }

    public static Command CreateCustomer() => new("customer", "Gives out what is held about a customer, and keeps a customer from being forgotten.") { Export(), Hold(), Unhold() };

    private static Command Export()
    {
        var customer = Customer();
        var command = new Command("export", "Prints everything that is held about a customer, as readable JSON: orders with events and history, refused payments, dead letters with their bodies.") { customer };
        command.SetAction((parsed, cancellationToken) => WithCustomerAsync(parsed.GetValue(customer)!, async (stations, id, token) =>
        {
            await stations.GetRequiredService<AuditLog>().WriteAsync(DeadLetterCommands.Who, "customer.export", $"customer {id}", "", token);
            await using var output = Console.OpenStandardOutput();
            await stations.GetRequiredService<CustomerExport>().WriteAsync(id, output, token);
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    private static Command Hold()
    {
        var (customer, reason) = (Customer(), Reason("Why, for whoever it refuses and for the audit log; nothing personal."));
        reason.Required = true;
        var command = new Command("hold", "A legal hold: the customer is not forgotten while it stands.") { customer, reason };
        command.SetAction((parsed, cancellationToken) => WithCustomerAsync(parsed.GetValue(customer)!, async (stations, id, token) =>
        {
            if (string.IsNullOrWhiteSpace(parsed.GetValue(reason)))
            {
                await Console.Error.WriteLineAsync("Say why: --reason is blank.");
                return ExitCode.Usage;
            }
            await stations.GetRequiredService<CustomerHolds>().HoldAsync(id, DeadLetterCommands.Who, parsed.GetValue(reason)!, token);
            Console.WriteLine($"Customer {id} is not forgotten until orderservice customer unhold {id}.");
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    private static Command Unhold()
    {
        var (customer, reason) = (Customer(), Reason("Why, for the audit log."));
        var command = new Command("unhold", "Ends a legal hold.") { customer, reason };
        command.SetAction((parsed, cancellationToken) => WithCustomerAsync(parsed.GetValue(customer)!, async (stations, id, token) =>
        {
            if (!await stations.GetRequiredService<CustomerHolds>().UnholdAsync(id, DeadLetterCommands.Who, parsed.GetValue(reason)!, token))
            {
                await Console.Error.WriteLineAsync($"There is no hold on customer {id}.");
                return ExitCode.SomeFailed;
            }
            Console.WriteLine($"Customer {id} can be forgotten.");
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    private static Argument<string> Customer() => new("CUSTOMER") { Description = "The customer's id." };

    private static Option<string> Reason(string description) => new("--reason") { Description = description, DefaultValueFactory = _ => "" };

    private static async Task<int> WithCustomerAsync(string customerId, Func<IServiceProvider, string, CancellationToken, Task<int>> work, CancellationToken cancellationToken)
    {
        if (!TextRules.IsId(customerId))
        {
            await Console.Error.WriteLineAsync($"'{customerId}' is no customer id: it is {TextRules.IdRule}.");
            return ExitCode.Usage;
        }
        return await Commands.WithStationsAsync((stations, token) => work(stations, customerId, token), cancellationToken);
    }
}
