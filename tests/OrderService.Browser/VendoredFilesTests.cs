using System.Security.Cryptography;
using System.Text.RegularExpressions;
using OrderService.Browser.Infrastructure;

namespace OrderService.Browser;

public sealed partial class VendoredFilesTests
{
    private static readonly string Root = Path.Combine(Visitor.RepositoryRoot(), "src", "OrderService", "wwwroot");

    [Fact]
    public async Task Each_library_file_is_the_one_that_VERSIONS_names()
    {
        var folder = Path.Combine(Root, "vendor");
        var named = (await File.ReadAllLinesAsync(Path.Combine(folder, "VERSIONS"), TestContext.Current.CancellationToken))
            .Select(line => Line().Match(line)).Where(match => match.Success).ToDictionary(match => match.Groups[2].Value, match => match.Groups[1].Value);
        var files = Directory.GetFiles(folder).Select(Path.GetFileName).Where(name => name is not "VERSIONS" && !name!.StartsWith("LICENSE-", StringComparison.Ordinal)).Order().ToList();
        Assert.Equal(files, named.Keys.Order());
        foreach (var (name, hash) in named)
        {
            Assert.Equal(hash, Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(folder, name), TestContext.Current.CancellationToken))));
        }
        Assert.Equal(5, Directory.GetFiles(folder, "LICENSE-*").Length);
    }

    [Fact]
    public async Task No_own_file_parses_markup_builds_code_or_names_another_site()
    {
        // The schemas are documents that no page loads, and name the standard they follow by its address.
        foreach (var file in Directory.EnumerateFiles(Root, "*", SearchOption.AllDirectories)
            .Where(file => !file.Contains("vendor", StringComparison.Ordinal) && !file.Contains("schemas", StringComparison.Ordinal)))
        {
            var text = await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken);
            Assert.False(Forbidden().IsMatch(text), $"{file}: {Forbidden().Match(text).Value}");
        }
    }

    [GeneratedRegex("^([0-9a-f]{64})  (.+)$")]
    private static partial Regex Line();

    [GeneratedRegex(@"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|\beval\(|new Function|setAttribute\('on|https?://(?!www\.w3\.org/2000/svg)")]
    private static partial Regex Forbidden();
}
