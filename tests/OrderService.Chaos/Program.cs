using System.CommandLine;
using System.Globalization;
using OrderService.Chaos;
using Spectre.Console;

// Tries the release binary from outside: injects a fault, waits for quiet, and judges every message by what its producer, a subscriber and the HTTP API know.
var list = new Option<bool>("--list") { Description = "Say which faults there are." };
var only = new Option<string[]>("--fault") { Description = "One or more of them; all when absent.", AllowMultipleArgumentsPerToken = true };
var store = new Option<string>("--store") { Description = "sqlite, postgres or both.", DefaultValueFactory = _ => "both" };
var seed = new Option<int>("--seed") { Description = "Repeats a run: everything random comes from it.", DefaultValueFactory = _ => 1 };
var rounds = new Option<int>("--rounds") { Description = "How often the fault strikes, where that can be said (kills), or how many orders (full-subscriber)." };
store.AcceptOnlyFromAmong("sqlite", "postgres", "both");
only.AcceptOnlyFromAmong([.. Fault.All.Select(fault => fault.Name)]);
var root = new RootCommand("Tries the order service from outside. Start it with eng/chaos.") { list, only, store, seed, rounds };
root.SetAction(async parsed =>
{
    if (parsed.GetValue(list))
    {
        foreach (var fault in Fault.All)
        {
            Console.WriteLine($"{fault.Name,-18} {fault.About}");
        }
        return 0;
    }
    var names = parsed.GetValue(only) is { Length: > 0 } given ? given : [.. Fault.All.Select(fault => fault.Name)];
    StoreKind[] stores = parsed.GetValue(store) switch { "sqlite" => [StoreKind.Sqlite], "postgres" => [StoreKind.Postgres], _ => [StoreKind.Sqlite, StoreKind.Postgres] };
    var broken = 0;
    foreach (var fault in Fault.All.Where(fault => names.Contains(fault.Name)))
    {
        foreach (var kind in stores)
        {
            broken += await TryAsync(fault, kind, parsed.GetValue(seed), new TrialOptions(parsed.GetValue(rounds)));
        }
    }
    return broken == 0 ? 0 : 1;
});
return await root.Parse(args).InvokeAsync();

static async Task<int> TryAsync(Fault fault, StoreKind store, int seed, TrialOptions options)
{
    Console.WriteLine($"== {fault.Name} on {store}, seed {seed.ToString(CultureInfo.InvariantCulture)}: {fault.About}");
    Verdict? verdict = null;
    // A terminal sees the progress move; a log gets a line for each step.
    var progress = new Steps(AnsiConsole.Profile.Capabilities.Interactive);
    await using (var world = await World.CreateAsync(store, seed, progress))
    {
        verdict = await fault.RunAsync(world, options);
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
    return verdict.Violations.Count;
}

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
