using OrderService.Tests.Infrastructure;
using System.Text;
using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace OrderService.Tests;

/// <summary>The arrows between folders. This table is the diagram: what is not in it is not allowed.</summary>
public sealed partial class ArchitectureTests
{
    /// <summary>
    /// Folder -> the folders it may use, all of them above it in this table: every arrow points one way. Every folder may use <c>OrderService.Domain</c>, which uses nothing.
    /// </summary>
    private static readonly (string Folder, string[] MayUse)[] Arrows =
    [
        // What everybody may look at.
        ("Observability", []),
        // What the store keeps and promises; Database implements it.
        ("Store", []),
        ("Configuration", ["Store"]),
        ("Outbox", ["Store", "Observability"]),
        ("Seals", ["Store", "Observability"]),
        // The drivers of the store.
        ("Database", ["Store", "Outbox", "Observability"]),
        ("Inbox", ["Store", "Outbox", "Observability"]),
        ("RabbitMq", ["Store", "Outbox", "Inbox", "Observability"]),
        ("Events", ["Store"]),
        ("Notifications", ["Store", "Database", "Events", "Observability"]),
        ("DeadLetters", ["Store", "Outbox", "Database", "Inbox", "RabbitMq", "Notifications", "Observability"]),
        ("Projections", ["Store", "Outbox", "Notifications", "DeadLetters"]),
        ("Retention", ["Store", "Notifications", "DeadLetters", "Projections", "Observability"]),
        ("Customers", ["Store", "Outbox", "Notifications", "DeadLetters", "Projections"]),
        ("Kafka", ["Store", "Outbox", "Inbox", "Events", "DeadLetters", "Observability"]),
        ("Deadlines", ["Store", "Outbox", "Inbox", "RabbitMq", "Projections", "Kafka"]),
        // Those who look at the stations from outside. No station knows them.
        ("Health", ["Store", "Configuration", "Outbox", "Inbox", "RabbitMq", "DeadLetters", "Kafka", "Observability"]),
        ("Admin", ["Store", "Configuration", "Outbox", "Inbox", "Projections", "Customers", "RabbitMq", "Events", "Notifications", "DeadLetters", "Retention", "Health", "Observability"]),
        ("CommandLine", ["Store", "Configuration", "Outbox", "Database", "Inbox", "Projections", "Customers", "Retention", "Seals", "RabbitMq", "DeadLetters", "Kafka", "Health", "Admin", "Observability"]),
    ];

    /// <summary>A driver's name in code, and the one folder that may say it.</summary>
    private static readonly Dictionary<string, string> Drivers = new()
    {
        ["RabbitMQ.Client"] = "RabbitMq",
        ["Confluent.Kafka"] = "Kafka",
        ["Npgsql"] = "Database/Postgres",
        ["Microsoft.Data.Sqlite"] = "Database/Sqlite",
        ["MailKit"] = "Notifications",
        ["MimeKit"] = "Notifications",
        ["Serilog"] = "ServiceLog",
    };

    private static readonly string Root = Repository.Root;
    private static readonly IReadOnlyList<SourceFile> Sources = ReadSources();

    [Fact]
    public void Folders_use_one_another_only_along_the_arrows()
    {
        var types = Sources.Where(file => file.Folder.Length > 0)
            .SelectMany(file => DeclaredType().Matches(file.Code).Select(match => (file.Folder, Type: match.Groups[1].Value)))
            .ToHashSet();
        var table = Arrows.ToDictionary(row => row.Folder, row => row.MayUse);
        var arrows = new List<(string From, string To, string File)>();
        foreach (var file in Sources.Where(file => file.Folder.Length > 0))
        {
            Assert.True(table.ContainsKey(file.Folder), $"The folder {file.Folder} is not in the table of arrows.");
            var used = UsingFolder().Matches(file.Code).Select(match => match.Groups[1].Value)
                .Concat(QualifiedType().Matches(file.Code).Where(match => types.Contains((match.Groups[1].Value, match.Groups[2].Value))).Select(match => match.Groups[1].Value));
            arrows.AddRange(used.Where(to => to != file.Folder && to != "Domain").Select(to => (file.Folder, to, file.Name)));
        }

        Assert.True(arrows.Count > 50, "Too few arrows were found: the search is broken.");
        Assert.Empty(arrows.Where(arrow => !table[arrow.From].Contains(arrow.To)).Select(arrow => $"{arrow.From} -> {arrow.To} in {arrow.File}").Distinct());
    }

    [Fact]
    public void No_folder_is_used_by_one_that_it_uses()
    {
        var above = new HashSet<string>();
        foreach (var (folder, mayUse) in Arrows)
        {
            Assert.Empty(mayUse.Where(used => !above.Contains(used)).Select(used => $"{folder} -> {used} points down the table"));
            above.Add(folder);
        }
    }

    [Fact]
    public void A_driver_is_known_in_one_folder_only()
    {
        foreach (var (driver, home) in Drivers)
        {
            var elsewhere = Sources.Where(file => Regex.IsMatch(file.Code, $@"(?<![\w.]){Regex.Escape(driver)}(?!\w)") && !file.Path.StartsWith(home, StringComparison.Ordinal)).Select(file => file.Name);
            Assert.Empty(elsewhere.Select(name => $"{name} knows {driver}"));
        }
    }

    [Fact]
    public void The_domain_has_no_package_no_clock_and_no_outside()
    {
        var project = XDocument.Load(Path.Combine(Root, "src", "OrderService.Domain", "OrderService.Domain.csproj"));
        Assert.Empty(project.Descendants("PackageReference"));
        Assert.Empty(project.Descendants("ProjectReference"));

        var domain = Directory.EnumerateFiles(Path.Combine(Root, "src", "OrderService.Domain"), "*.cs", SearchOption.AllDirectories).Where(IsSource).ToList();
        Assert.NotEmpty(domain);
        foreach (var file in domain)
        {
            Assert.DoesNotMatch(@"\b(TimeProvider|System\.IO|System\.Net|File\.|Console\.|Task\b|ILogger)", WithoutCommentsAndTexts(File.ReadAllText(file)));
        }
    }

    [Theory]
    [InlineData(@"DateTime(Offset)?\.(UtcNow|Now|Today)", "the clock is injected")]
    [InlineData(@"\bThread\.Sleep\(", "nothing sleeps")]
    [InlineData(@"\b(TODO|FIXME|HACK|NotImplementedException)\b", "nothing is left open")]
    [InlineData(@"\basync void\b", "nobody would see its exception")]
    [InlineData(
        @"\bnew PeriodicTimer\(", "a background service's loop is a PeriodicLoop; those of these files end by themselves, or with a connection or a store",
        "PeriodicLoop.cs", "SqliteDatabase.cs", "ConfirmedPublisher.cs", "QueueSubscription.cs", "ServeCommand.cs", "ReplayCommands.cs", "IntakeCommands.cs")]
    [InlineData(@"GetAwaiter\(\)\.GetResult\(\)|\.Wait\(\)", "nothing blocks on a task; the threads of the store's writer and of Kafka's consumer have nothing else to do", "SqliteDatabase.cs", "SqliteAppend.cs", "KafkaIntake.cs")]
    public void What_nobody_writes_here(string pattern, string why, params string[] except)
    {
        // Failpoint.cs is no part of a release build.
        var found = Sources.Where(file => file.Name != "Failpoint.cs" && !except.Contains(file.Name) && Regex.IsMatch(file.Code, pattern)).Select(file => file.Name);

        Assert.Empty(found.Select(name => $"{name}: {why}"));
    }

    [Fact]
    public void Interfaces_have_two_production_implementations()
    {
        var names = Sources.SelectMany(file => DeclaredInterface().Matches(file.Code).Select(match => match.Groups[1].Value)).ToList();
        Assert.NotEmpty(names);
        foreach (var name in names)
        {
            var implementations = Sources.Sum(file => Regex.Count(file.Code, $@"\b(?:class|record)\s+\w+[^{{;]*[:,]\s*{name}\b"));
            Assert.True(implementations >= 2, $"{name} has {implementations} implementation(s); a delegate or the class itself would do.");
        }
    }

    [Fact]
    public void A_release_build_has_no_failpoints_and_no_build_has_planted_bugs()
    {
        var release = Path.Combine(Root, "artifacts", "bin", "OrderService", "release", "orderservice.dll");
        var debug = Path.Combine(AppContext.BaseDirectory, "orderservice.dll");
        Assert.True(File.Exists(release), $"{release} is missing: dotnet build src/OrderService -c Release, as eng/test does.");
        var source = Path.Combine(Root, "src", "OrderService");
        List<string> names = [.. Directory.EnumerateFiles(source, "*.cs", SearchOption.AllDirectories).SelectMany(file => FailpointName().Matches(File.ReadAllText(file)).Select(match => match.Groups[1].Value)).Distinct()];
        Assert.True(names.Count >= 15);
        // Texts in an assembly are UTF-16. The debug build shows that the search finds them.
        Assert.All(["ORDERSERVICE_PLANTED_BUG", "ack-before-commit"], text => Assert.False(Contains(release, text) || Contains(debug, text)));
        Assert.All(["ORDERSERVICE_FAILPOINT", .. names], text =>
        {
            Assert.True(Contains(debug, text));
            Assert.False(Contains(release, text));
        });

        static bool Contains(string assembly, string text) => File.ReadAllBytes(assembly).AsSpan().IndexOf(Encoding.Unicode.GetBytes(text)) >= 0;
    }

    private static List<SourceFile> ReadSources()
    {
        var source = Path.Combine(Root, "src", "OrderService");
        return [.. Directory.EnumerateFiles(source, "*.cs", SearchOption.AllDirectories).Where(IsSource).Select(path =>
        {
            var parts = Path.GetRelativePath(source, path).Split(Path.DirectorySeparatorChar);
            return new SourceFile(string.Join('/', parts), parts.Length > 1 ? parts[0] : "", parts[^1], WithoutCommentsAndTexts(File.ReadAllText(path)));
        })];
    }

    private static bool IsSource(string path) => !path.Contains($"{Path.DirectorySeparatorChar}obj{Path.DirectorySeparatorChar}", StringComparison.Ordinal);

    private static string WithoutCommentsAndTexts(string code) => CommentOrText().Replace(code, match => match.Value[0] is '/' ? "" : "\"\"");

    [GeneratedRegex("""(//[^\n]*)|(/\*[\s\S]*?\*/)|(\$*@?\$?\"{3,}[\s\S]*?\"{3,})|("(?:\\.|[^"\\\n])*")""")]
    private static partial Regex CommentOrText();

    [GeneratedRegex("""Failpoint\.Hit\("([^"]+)""")]
    private static partial Regex FailpointName();

    [GeneratedRegex(@"\b(?:class|record struct|record|struct|enum|interface)\s+(\w+)")]
    private static partial Regex DeclaredType();

    [GeneratedRegex(@"\binterface\s+(\w+)")]
    private static partial Regex DeclaredInterface();

    [GeneratedRegex(@"\busing\s+(?:static\s+|\w+\s*=\s*)?OrderService\.(\w+)")]
    private static partial Regex UsingFolder();

    [GeneratedRegex(@"(?<![\w.])(?:OrderService\.)?([A-Z]\w+)\.([A-Z]\w+)")]
    private static partial Regex QualifiedType();

    private sealed record SourceFile(string Path, string Folder, string Name, string Code);
}
