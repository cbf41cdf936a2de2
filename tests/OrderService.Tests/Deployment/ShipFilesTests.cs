using System.Text.Json;
using System.Text.RegularExpressions;
using OrderService.Tests.Infrastructure;
using YamlDotNet.RepresentationModel;

namespace OrderService.Tests.Deployment;

/// <summary>What goes with the code: licence, notices, how to contribute, and what the hosting site does with it.</summary>
public sealed partial class ShipFilesTests
{
    [Fact]
    public void The_licence_and_the_notices_lie_beside_the_binary()
    {
        var folder = Repository.PathOf("artifacts/bin/OrderService/release");

        Assert.Contains("Apache License", Repository.Read("LICENSE"), StringComparison.Ordinal);
        Assert.All(["LICENSE", "NOTICE"], name => Assert.Equal(Repository.Read(name), File.ReadAllText(Path.Combine(folder, name))));
    }

    [Fact]
    public void The_notices_name_every_package_that_the_service_ships_and_no_other()
    {
        using var locked = JsonDocument.Parse(Repository.Read("src/OrderService/packages.lock.json"));
        var packages = locked.RootElement.GetProperty("dependencies").GetProperty("net10.0").EnumerateObject()
            .Where(package => package.Value.GetProperty("type").GetString() is "Direct" or "Transitive" or "CentralTransitive")
            .Select(package => package.Name);
        var vendored = Repository.Read("src/OrderService/wwwroot/vendor/VERSIONS").Split('\n').Select(line => VendoredPackage().Match(line)).Where(match => match.Success).Select(match => match.Groups[1].Value);

        var named = NamedPackage().Matches(Repository.Read("NOTICE")).Select(match => match.Groups[1].Value);

        Assert.Equal(packages.Concat(vendored).Order(StringComparer.OrdinalIgnoreCase), named.Order(StringComparer.OrdinalIgnoreCase));
    }

    [Fact]
    public async Task The_bill_of_materials_has_every_package_of_the_lock_file_and_every_library_of_the_page_with_its_licence()
    {
        Tool.Require("jq", "the distribution has it");
        var file = Path.Combine(Directory.CreateTempSubdirectory("orderservice-sbom-").FullName, "orderservice.cdx.json");
        var (exitCode, output) = await Tool.RunAsync(Repository.PathOf("eng/sbom"), [file, "1.2.3"]);
        if (exitCode == 69 && Environment.GetEnvironmentVariable("ORDERSERVICE_TESTS_REQUIRE_ENGINE") != "1")
        {
            Assert.Skip(output);
        }
        Assert.True(exitCode == 0, output);

        using var bill = JsonDocument.Parse(await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken));
        Directory.Delete(Path.GetDirectoryName(file)!, recursive: true);
        Assert.Equal("CycloneDX", bill.RootElement.GetProperty("bomFormat").GetString());
        Assert.Equal("1.2.3", bill.RootElement.GetProperty("metadata").GetProperty("component").GetProperty("version").GetString());
        var components = bill.RootElement.GetProperty("components").EnumerateArray().ToList();
        using var locked = JsonDocument.Parse(Repository.Read("src/OrderService/packages.lock.json"));
        var packages = locked.RootElement.GetProperty("dependencies").GetProperty("net10.0").EnumerateObject()
            .Where(package => package.Value.GetProperty("type").GetString() != "Project")
            .Select(package => $"pkg:nuget/{package.Name}@{package.Value.GetProperty("resolved").GetString()}");
        var vendored = Repository.Read("src/OrderService/wwwroot/vendor/VERSIONS").Split('\n').Select(line => line.Split(' ')).Where(line => line.Length == 3 && Version.TryParse(line[1], out _))
            .Select(line => $"pkg:npm/{line[0].Replace("@", "%40", StringComparison.Ordinal)}@{line[1]}").ToList();
        Assert.True(vendored.Count > 3);
        Assert.Equal(packages.Concat(vendored).Order(StringComparer.OrdinalIgnoreCase), components.Select(component => component.GetProperty("purl").GetString()!).Order(StringComparer.OrdinalIgnoreCase), StringComparer.OrdinalIgnoreCase);
        // One of them names no licence by an identifier, and an address instead.
        Assert.All(components, component => Assert.NotEmpty(component.GetProperty("licenses").EnumerateArray()));
    }

    [Fact]
    public void Every_project_has_its_packages_locked()
    {
        string[] projects = [.. Repository.Files("src", "*.csproj"), .. Repository.Files("tests", "*.csproj"), .. Repository.Files("bench", "*.csproj")];

        Assert.True(projects.Length >= 6);
        Assert.All(projects, project => Assert.True(File.Exists(Path.Combine(Path.GetDirectoryName(Repository.PathOf(project))!, "packages.lock.json")), $"{project} has no packages.lock.json"));
    }

    [Fact]
    public void Every_file_that_the_guide_for_contributors_names_is_there()
    {
        var named = NamedFile().Matches(Repository.Read("CONTRIBUTING.md")).Select(match => match.Groups[1].Value).Distinct().ToList();

        Assert.True(named.Count > 15, $"only {named.Count} files were found");
        Assert.DoesNotContain(named, name => !((string[])["", "src/OrderService/", "src/OrderService.Domain/", "tests/OrderService.Tests/"])
            .Any(folder => File.Exists(Repository.PathOf(folder + name)) || Directory.Exists(Repository.PathOf(folder + name)) || File.Exists(Repository.PathOf(folder + name + ".cs"))));
    }

    [Fact]
    public void Workflows_are_read_have_no_more_rights_than_they_need_and_end_by_themselves()
    {
        foreach (var name in (string[])["ci", "release"])
        {
            var workflow = Yaml($".github/workflows/{name}.yml");
            Assert.Equal("read", Text(workflow["permissions"]["contents"]));
            foreach (var (job, description) in ((YamlMappingNode)workflow["jobs"]).Children)
            {
                Assert.True(int.Parse(Text(description["timeout-minutes"]), System.Globalization.CultureInfo.InvariantCulture) <= 90, $"{job} has no end");
                foreach (var step in (YamlSequenceNode)description["steps"])
                {
                    var keys = ((YamlMappingNode)step).Children.Keys.Select(Text).ToList();
                    Assert.True(keys.Contains("uses") != keys.Contains("run"), $"a step of {job} does neither or both");
                    // What somebody else writes (a tag's name) reaches a shell as a variable, never as part of the script.
                    Assert.True(!keys.Contains("run") || !Text(step["run"]).Contains("${{", StringComparison.Ordinal), $"a script of {job} is put together from an expression");
                    Assert.True(!keys.Contains("uses") || Text(step["uses"]).Contains("@v", StringComparison.Ordinal), $"a step of {job} has no version");
                }
            }
        }
        Assert.Contains(".ci/run", Repository.Read(".github/workflows/ci.yml"), StringComparison.Ordinal);
    }

    [Fact]
    public void Forms_and_updates_are_yaml_and_look_at_folders_that_are_there()
    {
        foreach (var form in Repository.Files(".github/ISSUE_TEMPLATE", "something-*.yml"))
        {
            var ids = ((YamlSequenceNode)Yaml(form)["body"]).Where(part => Text(part["type"]) != "markdown").Select(part => Text(part["id"])).ToList();
            Assert.Equal(ids.Distinct(), ids);
        }
        foreach (var update in (YamlSequenceNode)Yaml(".github/dependabot.yml")["updates"])
        {
            var one = ((YamlMappingNode)update).Children.TryGetValue("directories", out var several) ? (YamlSequenceNode)several : new YamlSequenceNode(update["directory"]);
            Assert.All(one, folder => Assert.True(Directory.Exists(Repository.PathOf(Text(folder).TrimStart('/'))), $"{folder} is not there"));
        }
        foreach (var owned in Repository.Read(".github/CODEOWNERS").Split('\n').Where(line => line.StartsWith('/')).Select(line => line.Split(' ')[0].Trim('/')))
        {
            Assert.True(File.Exists(Repository.PathOf(owned)) || Directory.Exists(Repository.PathOf(owned)), $"{owned} is not there");
        }
    }

    [Theory]
    [InlineData("""{"resources":[{"@type":"VulnerabilityInfo/6.7.0"}]}""", "", 0, "no known vulnerability")]
    [InlineData("""{"resources":[{"@type":"VulnerabilityInfo/6.7.0"}]}""", """, "vulnerabilities": [{"severity":"High"}]""", 1, "there are known vulnerabilities")]
    [InlineData("""{"resources":[{"@type":"PackageBaseAddress/3.0.0"}]}""", "", 69, "has no advisories")]
    public async Task The_audit_tells_a_clean_list_from_one_that_nobody_could_make(string index, string finding, int exitCode, string says)
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-audit-").FullName;
        try
        {
            // In the place of the package source.
            Fake(folder, "curl", $"printf '%s' '{index}'");
            Fake(folder, "dotnet", $$"""
                case $* in
                    *"list source"*) echo 'E https://packages.example/index.json' ;;
                    *restore*) ;;
                    *) grep -o '[^"]*\.csproj"' OrderService.sln | while read -r project; do printf '"path": "%s\n' "$project"; done; printf '%s' '{{finding}}' ;;
                esac
                """);
            var (code, output) = await Tool.RunAsync("bash", ["eng/audit"], new Dictionary<string, string> { ["PATH"] = $"{folder}:{Environment.GetEnvironmentVariable("PATH")}" });

            Assert.Contains(says, output, StringComparison.Ordinal);
            Assert.Equal(exitCode, code);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static void Fake(string folder, string name, string script)
    {
        var path = Path.Combine(folder, name);
        File.WriteAllText(path, $"#!/usr/bin/env bash\n{script}\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }

    private static YamlNode Yaml(string name)
    {
        var stream = new YamlStream();
        stream.Load(new StringReader(Repository.Read(name)));
        return Assert.Single(stream.Documents).RootNode;
    }

    private static string Text(YamlNode node) => ((YamlScalarNode)node).Value!;

    [GeneratedRegex(@"^(\S+) [0-9.]+ [A-Z]")]
    private static partial Regex VendoredPackage();

    [GeneratedRegex(@"^(\S+)\n    \S", RegexOptions.Multiline)]
    private static partial Regex NamedPackage();

    [GeneratedRegex(@"`((?:[A-Za-z.]+/)+[A-Za-z.]+)`")]
    private static partial Regex NamedFile();
}
