using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.RegularExpressions;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Where no key is configured, and who can read what the service makes.</summary>
public sealed partial class FirstKeyJourneys(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_first_start_makes_a_key_that_no_log_has_and_that_ends()
    {
        await using var service = await StartAsync();
        var file = Path.Combine(service.Folder, "api-key");
        var key = (await File.ReadAllTextAsync(file, Now)).Trim();
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, ModeOf(file));
        // Standard error is no terminal here.
        await Eventually.TrueAsync(() => service.Output.Contains($"It is in {file}; orderservice key show", StringComparison.Ordinal));
        Assert.Equal(HttpStatusCode.OK, await AskAsync(service, key));

        var (exitCode, shown, _) = await service.RunAsync("key", "show");
        Assert.Equal(0, exitCode);
        Assert.Contains($"  key      {key}\n", shown, StringComparison.Ordinal);
        Assert.Contains($"  sign in  {service.Url}/#key={key}\n", shown, StringComparison.Ordinal);
        var ends = Until().Match(shown).Groups[1].Value;
        Assert.InRange(DateTimeOffset.Parse(ends, System.Globalization.CultureInfo.InvariantCulture), TimeProvider.System.GetUtcNow().AddDays(89), TimeProvider.System.GetUtcNow().AddDays(91));
        Assert.Equal(0, await service.StopAsync());

        await service.StartAgainAsync();
        Assert.Equal(HttpStatusCode.OK, await AskAsync(service, key));
        await Eventually.TrueAsync(() => service.Output.Split('\n').Count(line => line.Contains("Whoever has the key of the first start", StringComparison.Ordinal)) == 2);
        Assert.Contains(ends, service.Output, StringComparison.Ordinal);
        var (_, health, _) = await service.RunAsync("doctor");
        Assert.Contains("the key of the first start in it is in use", health, StringComparison.Ordinal);
        Assert.Contains(ends[..10], health, StringComparison.Ordinal);
        Assert.Equal(0, await service.StopAsync());

        // Its time is over.
        File.SetLastWriteTimeUtc(file, TimeProvider.System.GetUtcNow().UtcDateTime.AddDays(-91));
        await service.StartAgainAsync();
        Assert.Equal(HttpStatusCode.Unauthorized, await AskAsync(service, key));
        await Eventually.TrueAsync(() => service.Output.Contains("The key of the first start ended on", StringComparison.Ordinal));
        (exitCode, _, var said) = await service.RunAsync("key", "show");
        Assert.Equal(1, exitCode);
        Assert.Contains("It has ended.", said, StringComparison.Ordinal);
        Assert.DoesNotContain(key, service.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_key_that_ends_while_the_service_runs_takes_its_stream_along()
    {
        await using var service = await StartAsync(new() { ["Api__FirstKeyLifetime"] = "00:01:00" });
        var file = Path.Combine(service.Folder, "api-key");
        var key = (await File.ReadAllTextAsync(file, Now)).Trim();
        Assert.Equal(0, await service.StopAsync());
        File.SetLastWriteTimeUtc(file, TimeProvider.System.GetUtcNow().UtcDateTime.AddSeconds(-45));
        await service.StartAgainAsync();
        using var client = new HttpClient { BaseAddress = new Uri(service.Url) };
        client.DefaultRequestHeaders.Add("X-Api-Key", key);
        using var live = await client.GetAsync(new Uri("/api/events/stream", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, Now);
        Assert.Equal(HttpStatusCode.OK, live.StatusCode);

        await Eventually.TrueAsync(() => service.Output.Contains("whose key ended", StringComparison.Ordinal));
        Assert.Equal(HttpStatusCode.Unauthorized, await AskAsync(service, key));
        await Assert.ThrowsAnyAsync<Exception>(() => live.Content.ReadAsByteArrayAsync(Now));
    }

    [Fact]
    public async Task On_a_terminal_the_first_start_shows_the_address_that_signs_in()
    {
        await using var service = await StartAsync();
        Assert.Equal(0, await service.StopAsync());
        File.Delete(Path.Combine(service.Folder, "api-key"));
        var start = new ProcessStartInfo("script", ["-qec", $"dotnet {ReleaseService.Binary} serve", "/dev/null"]) { WorkingDirectory = service.Folder, RedirectStandardOutput = true, RedirectStandardInput = true };
        foreach (var (name, value) in service.Settings)
        {
            start.Environment[name] = value;
        }
        using var terminal = Process.Start(start)!;
        var shown = new StringBuilder();
        while (await terminal.StandardOutput.ReadLineAsync(Now) is { } line)
        {
            shown.AppendLine(line);
            if (line.Contains("  until ", StringComparison.Ordinal))
            {
                break;
            }
        }
        terminal.Kill(entireProcessTree: true);
        await terminal.WaitForExitAsync(Now);
        var key = (await File.ReadAllTextAsync(Path.Combine(service.Folder, "api-key"), Now)).Trim();
        Assert.Contains($"  sign in  {service.Url}/#key={key}", shown.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_the_service_makes_is_its_users_alone_and_doctor_says_where_it_is_not()
    {
        var outer = Directory.CreateTempSubdirectory("orderservice-rights-").FullName;
        var folder = Path.Combine(outer, "a", "data");
        await using (var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), settings: new() { ["Store__Path"] = Path.Combine(folder, "orders.db") }))
        {
            var files = Directory.GetFiles(folder);
            Assert.Contains(Path.Combine(folder, "orders.db-wal"), files);
            Assert.All(files, file => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, ModeOf(file)));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, ModeOf(folder));
            var (exitCode, said, _) = await service.RunAsync("doctor");
            Assert.True(exitCode == 0, said);

            using (var chmod = Process.Start("chmod", ["o+r", Path.Combine(folder, "orders.db")]))
            {
                await chmod.WaitForExitAsync(Now);
            }
            (exitCode, said, _) = await service.RunAsync("doctor");
            Assert.Equal(1, exitCode);
            Assert.Contains("every user of this machine can read the orders", said, StringComparison.Ordinal);
        }
        Directory.Delete(outer, recursive: true);
    }

    // The release binary's tests run on Linux only.
    private static UnixFileMode ModeOf(string path) => OperatingSystem.IsWindows() ? UnixFileMode.None : File.GetUnixFileMode(path);

    private async Task<ReleaseService> StartAsync(Dictionary<string, string>? settings = null)
    {
        return await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), settings: settings, withKey: false);
    }

    private static async Task<HttpStatusCode> AskAsync(ReleaseService service, string key)
    {
        using var client = new HttpClient { BaseAddress = new Uri(service.Url) };
        client.DefaultRequestHeaders.Add("X-Api-Key", key);
        using var answer = await client.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);
        return answer.StatusCode;
    }

    [GeneratedRegex(@"  until    (\S+ \S+)Z")]
    private static partial Regex Until();
}
