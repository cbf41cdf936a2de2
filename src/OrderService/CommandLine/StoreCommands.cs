using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.Seals;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary>Commands that read or check the store: <c>order show</c>, <c>verify</c>, <c>projection rebuild</c>.</summary>
internal static class StoreCommands
{
    public static Command CreateOrder()
    {
        var id = new Argument<string>("ID") { Description = "The order's id." };
        var json = new Option<bool>("--json") { Description = "Print the events as stored, one JSON object a line." };
        var archive = new Option<string>("--archive") { Description = "Look in this folder of closed orders that were taken out of the store; the store is not needed." };
        var show = new Command("show", "Shows where an order stands and everything that happened to it.") { id, json, archive };
        show.SetAction((parsed, cancellationToken) => parsed.GetValue(archive) is { } folder
            ? ArchiveCommands.ShowAsync(folder, parsed.GetValue(id)!, parsed.GetValue(json), cancellationToken)
            : Commands.WithStationsAsync(
                (stations, token) => ShowAsync(stations.GetRequiredService<EventQueries>(), stations.GetRequiredService<PersonalKeys>(), parsed.GetValue(id)!, parsed.GetValue(json), token), cancellationToken));
        return new Command("order", "Looks at orders.") { show };
    }

    public static Command CreateWhy()
    {
        var id = new Argument<string>("ID") { Description = "An order's id, a message's key or id, or a dead letter's number." };
        var command = new Command("why", "Says in plain words what happened to an order, a message or a dead letter, what happens next, and what you may do.") { id };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var cancelUnpaidAfter = stations.GetRequiredService<IOptions<OrdersOptions>>().Value.CancelUnpaidAfter;
            if (await stations.GetRequiredService<OrderStory>().WhyAsync(parsed.GetValue(id)!, token, cancelUnpaidAfter) is not { } explanation)
            {
                await Console.Error.WriteLineAsync($"Nothing is known by the name {parsed.GetValue(id)}: no order, no message, no dead letter. It may still be in the queue: orderservice doctor");
                return ExitCode.SomeFailed;
            }
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(explanation);
                return ExitCode.Done;
            }
            Console.WriteLine($"{explanation.Subject}: {explanation.State}");
            Print("What happened", explanation.Happened);
            Print("What happens next", explanation.Next);
            Print("What you may do", explanation.Actions);
            return ExitCode.Done;
        }, cancellationToken));
        return command;

        static void Print(string title, IReadOnlyList<string> lines)
        {
            if (lines.Count > 0)
            {
                Console.WriteLine();
                Console.WriteLine(title);
            }
            foreach (var line in lines)
            {
                Console.WriteLine("  " + string.Concat(line.Select(character => char.IsControl(character) ? '\uFFFD' : character)));
            }
        }
    }

    public static Command CreateVerify()
    {
        var command = new Command(
            "verify", "Recomputes the hash chain of every order, compares the read model with the events, and events, dead letters and audit log with their seals; changes nothing. Exit code 1 when something differs.");
        var head = new Option<SealHead?>("--head")
        {
            Description = "A seal that an alert named (NUMBER:HASH): finds whether the end of the chain was cut off since.",
            CustomParser = result =>
            {
                if (SealHead.Parse(result.Tokens[0].Value) is { } read)
                {
                    return read;
                }
                result.AddError("--head: a seal is named by its number, a colon and 64 hexadecimal digits, as in the daily alert.");
                return null;
            },
        };
        command.Add(head);
        var archive = new Option<string>("--archive") { Description = "Check this folder of closed orders instead: every file against its manifest, every order's hash chain; the store is not needed." };
        command.Add(archive);
        var json = JsonOutput.Option();
        command.Add(json);
        command.Validators.Add(result =>
        {
            if (result.ValueOf(json) && result.ValueOf(archive) is not null)
            {
                result.AddError("--json tells of the store; an archive is checked without it.");
            }
            if (result.GetResult(head) is not null && result.ValueOf(archive) is not null)
            {
                result.AddError("--head is about the seals of the store; an archive has none.");
            }
        });
        command.SetAction((parsed, cancellationToken) => parsed.GetValue(archive) is { } folder
            ? ArchiveCommands.VerifyAsync(folder, cancellationToken)
            : Commands.WithStationsAsync((stations, token) => VerifyAsync(stations, repair: false, token, parsed.GetValue(json), parsed.GetValue(head)), cancellationToken));
        return command;
    }

    public static Command CreateProjection()
    {
        var rebuild = new Command("rebuild", "Compares every row of the read model with its order's events and rewrites the rows that differ. Events are never changed; the service may go on running.");
        rebuild.SetAction((_, cancellationToken) => Commands.WithStationsAsync((stations, token) => VerifyAsync(stations, repair: true, token), cancellationToken));
        return new Command("projection", "Looks after the read model.") { rebuild };
    }

    public static Command CreateMigrate()
    {
        var command = new Command("migrate", "Brings the store's schema to that of this version, as the start of serve does; no other command changes it. On SQLite the service must be stopped. Take a backup first.");
        command.SetAction((_, cancellationToken) => Commands.WithStationsAsync(
            async (stations, token) =>
            {
                var database = stations.GetRequiredService<IDatabase>();
                foreach (var finding in await database.ClaimAsync(token))
                {
                    await Console.Error.WriteLineAsync(finding);
                }
                await database.MigrateAsync(token);
                Console.WriteLine("The store has the schema of this version.");
                return ExitCode.Done;
            },
            cancellationToken, needsStore: false));
        return command;
    }

    private static async Task<int> ShowAsync(EventQueries events, PersonalKeys keys, string orderId, bool json, CancellationToken cancellationToken)
    {
        var stream = await events.StreamAsync(orderId, cancellationToken);
        if (stream.Count == 0)
        {
            await Console.Error.WriteLineAsync($"There is no order {orderId} in the store. It may be waiting as a dead letter or an early command: orderservice why {orderId}");
            return ExitCode.SomeFailed;
        }
        Print(orderId, stream, json, keys.Open);
        return ExitCode.Done;
    }

    /// <summary>An order as its events tell of it.</summary>
    /// <param name="open">For what is personal; without it that is left out.</param>
    internal static void Print(string orderId, IReadOnlyList<RecordedEvent> stream, bool json, OpenSealed? open = null)
    {
        if (json)
        {
            foreach (var recorded in stream)
            {
                Console.WriteLine(PublishedEvent.RenderWithPosition(recorded, open));
            }
            return;
        }
        var order = Order.Fold(orderId, stream.Select(recorded => EventSerializer.Read(recorded.Type, recorded.Data.Span, open)));
        Console.WriteLine($"Order {orderId} is {order.Status.ToWire()} (version {order.Version})");
        foreach (var fact in OrderFacts.Of(order))
        {
            Console.WriteLine("  " + fact);
        }
        PrintPersonal(order.Personal);
        Console.WriteLine();
        foreach (var recorded in stream)
        {
            var at = DateTimeOffset.FromUnixTimeMilliseconds(recorded.RecordedAt).ToString("yyyy-MM-dd HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
            Console.WriteLine($"  {recorded.Version,3}  {at}  {recorded.Type,-22} by {recorded.CausationId}, correlation {recorded.CorrelationId}");
        }
    }

    private static void PrintPersonal(PersonalData? personal)
    {
        if (personal is { IsForgotten: true })
        {
            Console.WriteLine("  the customer is forgotten: what was personal is gone");
            return;
        }
        Print("name", personal?.Name);
        Print("e-mail", personal?.Email);
        Print("phone", personal?.Phone);
        Print("bill to", Line(personal?.BillingAddress));
        Print("ship to", Line(personal?.ShippingAddress));

        static void Print(string what, string? text)
        {
            if (text is not null)
            {
                Console.WriteLine($"  {what,-7} {string.Concat(text.Select(character => char.IsControl(character) ? '\uFFFD' : character))}");
            }
        }

        static string? Line(PostalAddress? address) => address is null
            ? null
            : string.Join(", ", new[] { address.Name, address.Company }.Concat(address.Lines)
                .Append($"{address.PostalCode} {address.City}".Trim()).Append(address.Region).Append(address.Country).Where(part => !string.IsNullOrEmpty(part)));
    }

    private static async Task<int> VerifyAsync(IServiceProvider stations, bool repair, CancellationToken cancellationToken, bool json = false, SealHead? head = null)
    {
        var verification = stations.GetRequiredService<StoreVerification>();
        var report = await ProgressBar.RunAsync("checking orders", progress => verification.RunAsync(repair, progress, cancellationToken));
        if (repair)
        {
            Tell(report);
            return ExitCode.Done;
        }
        var seals = await CheckSealsAsync(stations.GetRequiredService<SealVerification>(), head, isHere: true, cancellationToken);
        if (json)
        {
            JsonOutput.Write(new Verified(report.Events, report.Orders, report.Wrong, report.Findings, seals));
        }
        else
        {
            Tell(report);
            Tell(seals);
        }
        return report.Wrong == 0 && seals.IsSound ? ExitCode.Done : ExitCode.SomeFailed;
    }

    internal static Task<SealReport> CheckSealsAsync(SealVerification seals, SealHead? head, bool isHere, CancellationToken cancellationToken) =>
        ProgressBar.RunAsync("checking seals", progress => seals.RunAsync(head, isHere, progress, cancellationToken));

    /// <summary>Prints what was found of the seals.</summary>
    /// <returns>Whether all is as it was sealed.</returns>
    internal static bool Tell(SealReport report)
    {
        foreach (var sentence in report.Findings.Concat(report.Notes))
        {
            Console.WriteLine(sentence);
        }
        Console.WriteLine($"{report.Seals} seals over {report.Rows} events, dead letters and audit rows checked: {(report switch
        {
            { Tampered: > 0 } => $"tampered, {report.Tampered} things are wrong",
            { NotVerifiable: > 0 } => "not verifiable",
            _ => "nobody without the key changed them",
        })}");
        if (report.Head is { } head)
        {
            Console.WriteLine($"The newest seal is {head}");
        }
        return report.IsSound;
    }

    /// <summary><c>verify --json</c>.</summary>
    private sealed record Verified(long Events, long Orders, long Wrong, IReadOnlyList<string> Findings, SealReport Seals);

    /// <summary>Prints what was found.</summary>
    /// <returns>Whether all is as it was written.</returns>
    internal static bool Tell(VerificationReport report)
    {
        foreach (var finding in report.Findings)
        {
            Console.WriteLine(finding);
        }
        Console.WriteLine($"{report.Orders} orders with {report.Events} events checked: {(report.Wrong == 0 ? "all is as it was written" : $"{report.Wrong} things are wrong")}");
        return report.Wrong == 0;
    }
}
