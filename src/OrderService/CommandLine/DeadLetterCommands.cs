using System.CommandLine;
using System.Globalization;
using System.Text;
using OrderService.Admin;
using OrderService.Configuration;
using OrderService.DeadLetters;
using OrderService.Inbox;
using Spectre.Console;

namespace OrderService.CommandLine;

/// <summary><c>dlq</c>: looks at dead letters and settles them, through the store.</summary>
internal static class DeadLetterCommands
{
    public static Command Create() => new("dlq", "Looks at dead letters, replays and discards them.") { List(), Show(), Replay(), ReplayCommands.Jobs(), ReplayCommands.Job(), Discard(), Export() };

    private static Command List()
    {
        var filter = new FilterOptions(LetterStatus.Parked);
        var limit = new Option<int>("--limit") { Description = $"How many at most, 1 to {DeadLetterQueries.MostRows}.", DefaultValueFactory = _ => 50 };
        limit.Validators.Add(result =>
        {
            if (result.ValueOf<int>() is < 1 or > DeadLetterQueries.MostRows)
            {
                result.AddError($"--limit is a number from 1 to {DeadLetterQueries.MostRows}.");
            }
        });
        var groups = new Option<bool>("--groups") { Description = "List incidents (letters of one cause) instead of letters." };
        var command = new Command("list", "Lists dead letters, newest first.") { limit, groups };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        filter.AddTo(command);
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var letters = stations.GetRequiredService<DeadLetterQueries>();
            if (parsed.GetValue(groups))
            {
                if (parsed.GetValue(json))
                {
                    JsonOutput.Write(new { Items = await letters.IncidentsAsync(token) });
                    return ExitCode.Done;
                }
                var table = NewTable("incident", "state", "letters", "parked", "orders", "last seen", "what");
                foreach (var incident in await letters.IncidentsAsync(token))
                {
                    table.AddRow(Cells(incident.Fingerprint, incident.State, incident.Letters, incident.Parked, incident.Orders, Time(incident.LastSeen), incident.Title));
                }
                Write(table);
                return ExitCode.Done;
            }
            var wanted = filter.Read(parsed);
            var found = await letters.ListAsync(wanted, null, parsed.GetValue(limit), token);
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(new { Items = found, Total = await letters.CountAsync(wanted, token) });
                return ExitCode.Done;
            }
            var list = NewTable("id", "status", "reason", "order", "value", "parked", "detail");
            foreach (var letter in found)
            {
                list.AddRow(Cells(letter.Id, letter.Status, letter.Reason, letter.OrderId, letter.Value is { } value ? $"{value.Amount} {value.Currency}" : "", Time(letter.ParkedAt), letter.Detail));
            }
            Write(list);
            var total = await letters.CountAsync(wanted, token);
            Console.WriteLine(total == found.Count ? $"{total} dead letters" : $"{found.Count} of {total} dead letters");
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    private static Command Show()
    {
        var id = new Argument<string>("ID") { Description = "The letter's number." };
        var body = new Option<bool>("--body") { Description = "Print the exact bytes of the message and nothing else." };
        var command = new Command("show", "Shows one dead letter: why, the message, its headers and history.") { id, body };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var letters = stations.GetRequiredService<DeadLetterQueries>();
            if (!TryId(parsed.GetValue(id)!, out var number) || await letters.GetAsync(number, token) is not { } letter)
            {
                await Console.Error.WriteLineAsync($"There is no dead letter {parsed.GetValue(id)}.");
                return ExitCode.SomeFailed;
            }
            var found = await letters.BodyAsync(number, token);
            var bytes = found is null ? [] : found.Bytes;
            if (found is { IsForgotten: true })
            {
                await Console.Error.WriteLineAsync("Its customer is forgotten: the message can't be read any more.");
            }
            if (!parsed.GetValue(json))
            {
                await stations.GetRequiredService<AuditLog>().TryWriteAsync(Who, "dead-letter.body", $"dead letter {number}", "");
            }
            if (parsed.GetValue(body))
            {
                await using var output = Console.OpenStandardOutput();
                await output.WriteAsync(bytes, token);
                return ExitCode.Done;
            }
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(letter);
                return ExitCode.Done;
            }
            var summary = letter.Letter;
            Say($"Dead letter {summary.Id} is {summary.Status}{(summary.SettledBy is null ? "" : $" by {summary.SettledBy}: {summary.SettleReason}")}");
            Say($"  reason       {summary.Reason}{(summary.Field is null ? "" : $" at {summary.Field}")}");
            Say($"  detail       {summary.Detail}");
            Say($"  command      {summary.Type ?? "order.place"}{(summary.OrderId is null ? "" : $", order {summary.OrderId}")}{(summary.Value is { } value ? $", {value.Amount} {value.Currency}" : "")}");
            Say($"  key          {summary.Key}");
            Say($"  correlation  {summary.CorrelationId}");
            Say($"  parked       {Time(summary.ParkedAt)}, {summary.Copies} cop{(summary.Copies == 1 ? "y" : "ies")}, {summary.Replays} replays");
            Say($"  incident     {summary.Incident}");
            Say($"  properties   {letter.Properties.GetRawText()}");
            if (letter.Exception is not null)
            {
                Say($"  exception    {letter.Exception}");
            }
            foreach (var replay in letter.Replays)
            {
                Say($"  replay       {Time(replay.RequestedAt)} by {replay.RequestedBy}{(replay.Edited ? ", edited" : "")}: {replay.Outcome ?? "under way"} {replay.Detail}");
                if (replay.Change is { } change && change.EnumerateObject().Any())
                {
                    Say($"    changed    {change.GetRawText()}");
                }
            }
            foreach (var line in letter.History)
            {
                Say($"  history      {Time(line.At)} {line.Kind}: {line.Detail}");
            }
            Say($"  body         {bytes.Length} bytes{(bytes.Length > 4096 ? ", the first 4096 of them" : "")}:");
            Say(Encoding.UTF8.GetString(bytes.AsSpan(0, Math.Min(bytes.Length, 4096))));
            return ExitCode.Done;
        }, cancellationToken));
        return command;

        // What a producer sent must not move a cursor or ring a bell.
        static void Say(string line) => Console.WriteLine(Printable(line));
    }

    private static Command Replay()
    {
        var selection = new Selection();
        var filter = new FilterOptions(null);
        var because = new Option<string?>("--because") { Description = "Why, for the audit log." };
        var confirmed = new Option<bool>("--confirmed") { Description = "Also replay letters that another program put among the dead letters." };
        var whatIf = new Option<bool>("--what-if") { Description = "Only tell what would happen, to the letter as edited; nothing is changed." };
        var canary = new Option<bool>("--canary") { Description = "Of several letters send 1, then 5, then 5 % at a time, and stop when letters fail again. This is the default; --canary false sends one after the other.", DefaultValueFactory = _ => true };
        var rate = new Option<double>("--rate") { Description = "Of several letters at most so many a second.", DefaultValueFactory = _ => 10 };
        var limit = new Option<long?>("--limit") { Description = "At most so many letters, the oldest." };
        var command = new Command(
            "replay", "Sends parked letters through the queue again, under their original key. Several letters are a job that the running service works on.")
        { because, confirmed, whatIf, canary, rate, limit };
        var changes = new PatchOptions();
        changes.AddTo(command);
        selection.AddTo(command);
        filter.AddTo(command, withStatus: false);
        rate.Validators.Add(result =>
        {
            if (result.ValueOf<double>() is not (>= 0.1 and <= ReplayJobRequest.MostPerSecond))
            {
                result.AddError($"--rate is a number from 0.1 to {ReplayJobRequest.MostPerSecond}.");
            }
        });
        command.Validators.Add(result =>
        {
            if (result.GetResult(changes.EditedBody) is not null
                && (result.ValueOf(selection.All) || result.GetResult(selection.IdsFile) is not null || result.GetValue(selection.Ids) is not { Length: 1 }))
            {
                result.AddError("--edited-body goes with exactly one ID.");
            }
            if (result.ValueOf(limit) is < 1)
            {
                result.AddError("--limit is at least 1.");
            }
        });
        command.SetAction((parsed, cancellationToken) => WithUsage(parsed, selection, asks: !parsed.GetValue(whatIf), () =>
            parsed.GetValue(whatIf) || !IsOne(parsed, selection) ? ReplaySeveralAsync(parsed, cancellationToken) : WithOneAsync(parsed, selection, "replayed", async (stations, id, token) =>
            {
                LetterPatch? patch;
                try
                {
                    patch = await changes.ReadAsync(parsed, forMany: false, token);
                }
                catch (PatchMistakeException mistake)
                {
                    return mistake.Message;
                }
                return Describe(await stations.GetRequiredService<DeadLetterReplay>().ReplayAsync(
                    new ReplayRequest(id, Who, parsed.GetValue(because), patch, parsed.GetValue(confirmed)), token));
            }, cancellationToken)));
        return command;

        Task<int> ReplaySeveralAsync(ParseResult parsed, CancellationToken cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var (selected, failure) = await SelectAsync(parsed, selection, filter, parsed.GetValue(limit), stations.GetRequiredService<DeadLetterQueries>(), token);
            if (selected is null)
            {
                return failure;
            }
            LetterPatch? patch;
            try
            {
                patch = await changes.ReadAsync(parsed, forMany: !IsOne(parsed, selection), token);
            }
            catch (PatchMistakeException mistake)
            {
                await Console.Error.WriteLineAsync(mistake.Message);
                return ExitCode.Usage;
            }
            var chosen = selected with { Confirmed = parsed.GetValue(confirmed) };
            if (parsed.GetValue(whatIf))
            {
                return await ReplayCommands.ForecastAsync(stations, chosen, patch, token);
            }
            // What is changed in many letters is always told first.
            if (patch is not null || (chosen.Ids is null && !parsed.GetValue(selection.Yes)))
            {
                await ReplayCommands.ForecastAsync(stations, chosen, patch, token);
            }
            if (chosen.Ids is null && !parsed.GetValue(selection.Yes))
            {
                if (!await AnsiConsole.ConfirmAsync("replay them?", defaultValue: false, token))
                {
                    return ExitCode.SomeFailed;
                }
            }
            return await ReplayCommands.StartAsync(
                stations,
                new ReplayJobRequest(
                    chosen, Who, parsed.GetValue(because) ?? "", parsed.GetValue(canary) ? ReplayMode.Canary : ReplayMode.All, parsed.GetValue(rate), patch),
                token);
        }, cancellationToken);
    }

    /// <summary>Reads which letters are meant. Null when none can be, which is said, and how the command ends then.</summary>
    private static async Task<(LetterSelection? Selected, int Failure)> SelectAsync(
        ParseResult parsed, Selection selection, FilterOptions filter, long? limit, DeadLetterQueries letters, CancellationToken cancellationToken)
    {
        IReadOnlyList<long>? ids = null;
        if (!parsed.GetValue(selection.All))
        {
            if (await ReadIdsAsync(parsed, selection, cancellationToken) is not { } texts)
            {
                return (null, ExitCode.SomeFailed);
            }
            ids = await ParkedAsync(letters, texts, cancellationToken);
            if (ids.Count == 0)
            {
                Console.WriteLine($"0 done, {texts.Count} failed");
                return (null, ExitCode.SomeFailed);
            }
            if (ids.Count > LetterSelection.MostIds)
            {
                await Console.Error.WriteLineAsync($"At most {LetterSelection.MostIds} letters can be named by number; choose them with --all and --reason, --incident or --order.");
                return (null, ExitCode.Usage);
            }
        }
        return (new LetterSelection(ids, filter.Read(parsed) with { Status = LetterStatus.Parked }, Limit: limit), ExitCode.Done);
    }

    /// <summary>Prints a line for each letter that is not parked, and answers the others.</summary>
    private static async Task<IReadOnlyList<long>> ParkedAsync(DeadLetterQueries letters, IReadOnlyList<string> texts, CancellationToken cancellationToken)
    {
        var parked = new List<long>();
        foreach (var text in texts)
        {
            var letter = TryId(text, out var id) ? (await letters.GetAsync(id, cancellationToken))?.Letter : null;
            if (letter?.Status == LetterStatus.Parked)
            {
                parked.Add(id);
            }
            else
            {
                Console.WriteLine($"{text}  {(letter is not null ? $"is {letter.Status}" : TryId(text, out _) ? "there is no such dead letter" : "not a number")}");
            }
        }
        return parked;
    }

    private static Command Discard()
    {
        var selection = new Selection();
        var filter = new FilterOptions(null);
        var because = new Option<string?>("--because") { Description = "Why; kept with the letters. Needed unless --what-if is given." };
        var whatIf = new Option<bool>("--what-if") { Description = "Only tell how many; nothing is changed." };
        var limit = new Option<long?>("--limit") { Description = "At most so many letters, the oldest." };
        var command = new Command("discard", "Gives parked letters up. They are kept and can be restored in the admin page.") { because, whatIf, limit };
        selection.AddTo(command);
        filter.AddTo(command, withStatus: false);
        command.Validators.Add(result =>
        {
            if (!result.ValueOf(whatIf) && string.IsNullOrWhiteSpace(result.ValueOf(because)))
            {
                result.AddError("--because needs a reason.");
            }
            if (result.ValueOf(limit) is < 1)
            {
                result.AddError("--limit is at least 1.");
            }
        });
        command.SetAction((parsed, cancellationToken) => WithUsage(parsed, selection, asks: !parsed.GetValue(whatIf), () =>
            parsed.GetValue(whatIf) || !IsOne(parsed, selection) ? DiscardSeveralAsync(parsed, cancellationToken) : WithOneAsync(parsed, selection, "discarded",
                async (stations, id, token) => Describe(await stations.GetRequiredService<DeadLetterReplay>().DiscardAsync(id, Who, parsed.GetValue(because)!, token)), cancellationToken)));
        return command;

        Task<int> DiscardSeveralAsync(ParseResult parsed, CancellationToken cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var (selected, failure) = await SelectAsync(parsed, selection, filter, parsed.GetValue(limit), stations.GetRequiredService<DeadLetterQueries>(), token);
            if (selected is null)
            {
                return failure;
            }
            var discards = stations.GetRequiredService<DeadLetterDiscards>();
            var (count, upTo) = await discards.CountAsync(selected, token);
            if (parsed.GetValue(whatIf))
            {
                Console.WriteLine($"{count} dead letters would be discarded. Nothing was changed.");
                return ExitCode.Done;
            }
            if (selected.Ids is null && !parsed.GetValue(selection.Yes) && !await AnsiConsole.ConfirmAsync($"discard {count} dead letters?", defaultValue: false, token))
            {
                return ExitCode.SomeFailed;
            }
            var discarded = await discards.DiscardAsync(selected with { UpTo = upTo }, Who, parsed.GetValue(because)!, token);
            Console.WriteLine($"{discarded} dead letters discarded");
            return discarded == count && count > 0 ? ExitCode.Done : ExitCode.SomeFailed;
        }, cancellationToken);
    }

    private static Command Export()
    {
        var filter = new FilterOptions(null);
        var format = new Option<string>("--format") { Description = "ndjson (with the messages' bytes) or csv (safe for spreadsheets).", DefaultValueFactory = _ => "ndjson" };
        format.AcceptOnlyFromAmong("ndjson", "csv");
        var output = new Option<string?>("--output") { Description = "A file; standard output without it." };
        var command = new Command("export", "Writes dead letters for other programs.") { format, output };
        filter.AddTo(command);
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            try
            {
                await using var stream = parsed.GetValue(output) is { } path ? File.Create(path) : Console.OpenStandardOutput();
                await using var writer = new StreamWriter(stream, new UTF8Encoding(false));
                await stations.GetRequiredService<AuditLog>().TryWriteAsync(Who, "dead-letters.export", "dead letters", parsed.GetValue(format)!);
                var written = await LetterExport.WriteAsync(stations.GetRequiredService<DeadLetterQueries>(), filter.Read(parsed), parsed.GetValue(format) == "csv", writer, token);
                await Console.Error.WriteLineAsync($"{written} dead letters written");
                return ExitCode.Done;
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                await Console.Error.WriteLineAsync($"Can't write: {exception.Message}");
                return ExitCode.SomeFailed;
            }
        }, cancellationToken));
        return command;
    }

    /// <summary>Does something to the one letter that was named and prints what became of it.</summary>
    private static Task<int> WithOneAsync(
        ParseResult parsed, Selection selection, string done, Func<IServiceProvider, long, CancellationToken, Task<string?>> act, CancellationToken cancellationToken) =>
        Commands.WithStationsAsync(async (stations, _) =>
        {
            var text = parsed.GetValue(selection.Ids)![0];
            // It is finished even when Ctrl-C comes meanwhile.
            var failure = TryId(text, out var id) ? await act(stations, id, CancellationToken.None) : "not a number";
            Console.WriteLine($"{text}  {failure ?? done}");
            return failure is null ? ExitCode.Done : ExitCode.SomeFailed;
        }, cancellationToken);

    private static Task<int> WithUsage(ParseResult parsed, Selection selection, bool asks, Func<Task<int>> act)
    {
        if (UsageProblem(parsed, selection, asks) is { } problem)
        {
            Console.Error.WriteLine(problem);
            return Task.FromResult(ExitCode.Usage);
        }
        return act();
    }

    private static bool IsOne(ParseResult parsed, Selection selection) =>
        !parsed.GetValue(selection.All) && parsed.GetValue(selection.IdsFile) is null && parsed.GetValue(selection.Ids) is { Length: 1 };

    /// <summary>What is wrong with the choice of letters; null when nothing is.</summary>
    private static string? UsageProblem(ParseResult parsed, Selection selection, bool asks)
    {
        var all = parsed.GetValue(selection.All);
        return !all && (parsed.GetValue(selection.Ids) ?? []).Length == 0 && parsed.GetValue(selection.IdsFile) is null
            ? "Name letters by ID or with --ids FILE, or use --all (with --reason, --fingerprint or --order to choose)."
            : all && asks && !parsed.GetValue(selection.Yes) && (Console.IsInputRedirected || Console.IsOutputRedirected)
                ? "--all without --yes asks first, and there is nobody to ask here; add --yes."
                : null;
    }

    /// <summary>The numbers that were given, as texts; null when the file can't be read, which is said.</summary>
    private static async Task<List<string>?> ReadIdsAsync(ParseResult parsed, Selection selection, CancellationToken cancellationToken)
    {
        var chosen = new List<string>(parsed.GetValue(selection.Ids) ?? []);
        if (parsed.GetValue(selection.IdsFile) is { } path)
        {
            try
            {
                using var bytes = new MemoryStream();
                await using var stream = path == "-" ? Console.OpenStandardInput() : File.OpenRead(path);
                await stream.CopyToAsync(bytes, cancellationToken);
                chosen.AddRange(TextFile.Lines(TextFile.Read(bytes.ToArray())));
            }
            catch (FormatException exception)
            {
                await Console.Error.WriteLineAsync($"{path} {exception.Message}.");
                return null;
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                await Console.Error.WriteLineAsync($"{path} can't be read: {exception.Message}");
                return null;
            }
        }
        return chosen;
    }

    private static string? Describe(LetterAnswer answer) => answer switch
    {
        LetterAnswer.Done => null,
        LetterAnswer.Conflict conflict => conflict.Detail,
        LetterAnswer.Invalid invalid => $"the edited message would fail again: {invalid.Rejection.Reason}: {invalid.Rejection.Detail}",
        _ => "there is no such dead letter",
    };

    internal static string Who => "cli:" + Environment.UserName;

    private static bool TryId(string text, out long id) => long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out id);

    internal static string Time(DateTimeOffset at) => at.ToUniversalTime().ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    // What a message contains must not steer the terminal.
    internal static string Printable(string text) => string.Concat(text.Select(character => char.IsControl(character) && character is not ('\n' or '\t') ? '\uFFFD' : character));

    internal static Table NewTable(params string[] columns) => new Table().Border(TableBorder.None).AddColumns([.. columns.Select(column => new TableColumn(Markup.Escape(column)) { NoWrap = column != columns[^1] })]);

    internal static string[] Cells(params object?[] values) => [.. values.Select(value => Markup.Escape(Printable(Convert.ToString(value, CultureInfo.InvariantCulture) ?? "")))];

    internal static void Write(Table table)
    {
        if (Console.IsOutputRedirected)
        {
            // A pipe has no width to fit into.
            AnsiConsole.Profile.Width = 400;
        }
        AnsiConsole.Write(table);
    }

    private sealed class Selection
    {
        public Argument<string[]> Ids { get; } = new("ID") { Description = "Numbers of letters.", Arity = ArgumentArity.ZeroOrMore };
        public Option<string?> IdsFile { get; } = new("--ids") { Description = "A file with one number a line; - for standard input." };
        public Option<bool> All { get; } = new("--all") { Description = "All parked letters, or those that the other options choose." };
        public Option<bool> Yes { get; } = new("--yes") { Description = "Do not ask." };

        public void AddTo(Command command)
        {
            command.Add(Ids);
            command.Add(IdsFile);
            command.Add(All);
            command.Add(Yes);
        }
    }

    private sealed class FilterOptions(string? defaultStatus)
    {
        private readonly Option<string?> status = new("--status") { Description = $"One of {string.Join(", ", LetterStatus.All)}, all.{(defaultStatus is null ? "" : $" Default: {defaultStatus}.")}" };
        private readonly Option<string?> reason = new("--reason") { Description = "Only letters with this reason, for instance currency_unknown." };
        private readonly Option<string?> fingerprint = new("--fingerprint", "--incident") { Description = "Only letters of this incident." };
        private readonly Option<string?> order = new("--order") { Description = "Only letters of this order." };

        public void AddTo(Command command, bool withStatus = true)
        {
            if (withStatus)
            {
                status.AcceptOnlyFromAmong([.. LetterStatus.All, "all"]);
                command.Add(status);
            }
            reason.AcceptOnlyFromAmong([.. RejectionReason.All]);
            command.Add(reason);
            command.Add(fingerprint);
            command.Add(order);
        }

        public LetterFilter Read(ParseResult parsed)
        {
            var wanted = parsed.CommandResult.Command.Options.Contains(status) ? parsed.GetValue(status) ?? defaultStatus : defaultStatus;
            return new LetterFilter(wanted == "all" ? null : wanted, parsed.GetValue(reason), parsed.GetValue(fingerprint), parsed.GetValue(order));
        }
    }
}
