using System.CommandLine;
using OrderService.Chaos;
using Spectre.Console;

// Tries the release binary from outside: injects a fault, waits for quiet, and judges every message by what its producer, a subscriber and the HTTP API know.
var list = new Option<bool>("--list") { Description = "Say which faults there are." };
var only = new Option<string[]>("--fault") { Description = "One or more of them; all when absent.", AllowMultipleArgumentsPerToken = true };
var store = new Option<string>("--store") { Description = "sqlite, postgres or both.", DefaultValueFactory = _ => "both" };
var seed = new Option<int>("--seed") { Description = "Repeats a run: everything random comes from it.", DefaultValueFactory = _ => 1 };
var rounds = new Option<int>("--rounds") { Description = "How often the fault strikes, where that can be said (kills), or how many orders (full-subscriber)." };
var instances = new Option<int>("--instances") { Description = "How many processes serve the store (PostgreSQL only, faults of the usual trial).", DefaultValueFactory = _ => 1 };
var report = new Option<FileInfo?>("--report") { Description = "Adds a line for each trial to this Markdown file." };
var selfTest = new Option<bool>("--self-test") { Description = "Plants known bugs, one after the other, and sees whether each is found (eng/chaos builds them)." };
var bugs = new Option<string[]>("--bug") { Description = "With --self-test: one or more of the planted bugs; all when absent.", AllowMultipleArgumentsPerToken = true };
bugs.AcceptOnlyFromAmong([.. Bug.All.Select(bug => bug.Name)]);
store.AcceptOnlyFromAmong("sqlite", "postgres", "both");
only.AcceptOnlyFromAmong([.. Fault.All.Select(fault => fault.Name), .. Fault.All.Select(fault => fault.Number).Where(number => number.Length > 0)]);
var root = new RootCommand("Tries the order service from outside. Start it with eng/chaos.") { list, only, store, seed, rounds, instances, report, selfTest, bugs };
root.SetAction(async parsed =>
{
    if (parsed.GetValue(list))
    {
        foreach (var fault in Fault.All)
        {
            Console.WriteLine($"{fault.Number,-4} {fault.Name,-20} {fault.About}");
        }
        return 0;
    }
    var names = parsed.GetValue(only) ?? [];
    StoreKind[] stores = parsed.GetValue(store) switch { "sqlite" => [StoreKind.Sqlite], "postgres" => [StoreKind.Postgres], _ => [StoreKind.Sqlite, StoreKind.Postgres] };
    var count = parsed.GetValue(instances);
    if (count > 1 && stores.Contains(StoreKind.Sqlite))
    {
        Console.Error.WriteLine("One process serves a SQLite file: --instances needs --store postgres.");
        return 2;
    }
    if (parsed.GetValue(selfTest))
    {
        var some = parsed.GetValue(bugs) ?? [];
        List<Bug> planted = [.. Bug.All.Where(bug => some.Length == 0 || some.Contains(bug.Name))];
        var missed = await SelfTest.RunAsync(planted, (bug, fault) => TryAsync(
            fault, bug.Instances > 1 ? StoreKind.Postgres : stores[0], new TrialOptions(bug.Rounds, parsed.GetValue(seed), bug.Instances)));
        Console.WriteLine(missed == 0 ? $"all {planted.Count} planted bugs were found" : $"{missed} of {planted.Count} planted bugs were NOT found");
        return missed == 0 ? 0 : 1;
    }
    var trials = Fault.All
        .Where(fault => names.Length == 0 || names.Contains(fault.Name) || names.Contains(fault.Number))
        .SelectMany(fault => stores.Where(fault.Stores.Contains).Select(kind => (Fault: fault, Store: kind)))
        .ToList();
    if (names.Length == 0)
    {
        foreach (var left in trials.Where(trial => trial.Fault.Needs is { } needs && string.IsNullOrEmpty(Environment.GetEnvironmentVariable(needs))).ToList())
        {
            Console.WriteLine($"left out: {left.Fault.Name} on {left.Store}, which needs {left.Fault.Needs}");
            trials.Remove(left);
        }
    }
    var broken = new List<string>();
    for (var number = 0; number < trials.Count; number++)
    {
        var (fault, kind) = trials[number];
        Console.WriteLine($"== {number + 1} of {trials.Count}: {fault.Number} {fault.Name} on {kind}, seed {parsed.GetValue(seed)}: {fault.About}");
        var verdict = await TryAsync(fault, kind, new TrialOptions(parsed.GetValue(rounds), parsed.GetValue(seed), count));
        if (verdict.Violations.Count > 0)
        {
            broken.Add($"{fault.Name} on {kind}");
        }
        if (parsed.GetValue(report) is { } file)
        {
            await File.AppendAllTextAsync(file.FullName, Line(fault, kind, parsed.GetValue(seed), count, verdict));
        }
    }
    Console.WriteLine(broken.Count == 0 ? $"{trials.Count} trials, every promise held" : $"{trials.Count} trials, {broken.Count} broken: {string.Join(", ", broken)}");
    return broken.Count == 0 ? 0 : 1;
});
return await root.Parse(args).InvokeAsync();

static async Task<Verdict> TryAsync(Fault fault, StoreKind store, TrialOptions options)
{
    Verdict verdict;
    // A terminal sees the progress move; a log gets a line for each step.
    var progress = new Steps(AnsiConsole.Profile.Capabilities.Interactive);
    await using (var world = await World.CreateAsync(store, options.Seed, progress))
    {
        try
        {
            verdict = await fault.RunAsync(world, options);
        }
        catch (Exception exception)
        {
            // A trial that could not be made has shown nothing, and the next one may still.
            verdict = new Verdict([new Violation(Verdict.NotMade, exception is ChaosException ? exception.Message : exception.ToString())], []);
        }
        if (verdict.Violations.Count > 0)
        {
            world.Keep();
        }
    }
    foreach (var figure in verdict.Figures)
    {
        Console.WriteLine($"   {figure}");
    }
    foreach (var group in verdict.Violations.GroupBy(violation => violation.Promise))
    {
        Console.WriteLine($"   BROKEN: {group.Key} ({group.Count()} times)");
        foreach (var violation in group.Take(5))
        {
            Console.WriteLine($"      {violation.Story}");
        }
    }
    Console.WriteLine(verdict.Violations.Count == 0 ? "   every promise held" : $"   {verdict.Violations.Count} violations");
    return verdict;
}

static string Line(Fault fault, StoreKind store, int seed, int instances, Verdict verdict) =>
    $"| {fault.Number} {fault.Name} | {store} x {instances} | {seed} | {(verdict.Violations.Count == 0 ? "held" : $"{verdict.Violations.Count} violations")} | {string.Join("; ", verdict.Figures)} |\n";

internal sealed class Steps(bool interactive) : IProgress<string>
{
    public void Report(string value)
    {
        if (interactive)
        {
            Console.Write($"\r   {value}          ");
        }
        else
        {
            Console.WriteLine($"   {value}");
        }
    }
}
