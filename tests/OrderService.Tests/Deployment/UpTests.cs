using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Deployment;

/// <summary>The first command of the README.</summary>
[Collection(nameof(Deployment))]
public sealed class UpTests
{
    [Fact]
    public async Task Up_shows_what_became_of_each_message_of_its_sample_and_leaves_nothing_behind()
    {
        await ContainerEngine.RequireAsync();

        // Others run the release build meanwhile: it stays as it is.
        (var exitCode, var output) = await RepositoryProgram.RunAsync("bash", ["eng/up", "--once", "--no-build"], new Dictionary<string, string> { ["ORDERS_PORT"] = "18080" });

        Assert.True(exitCode == 0, output);
        Assert.Contains("received 16, accepted 8, duplicates 2, refused 1, deferred 1, deadLettered 4", output, StringComparison.Ordinal);
        Assert.Contains("Order A-1001 is delivered (version 5)", output, StringComparison.Ordinal);
        Assert.Contains("Order A-1002 is placed (version 1)", output, StringComparison.Ordinal);
        Assert.Contains("Order A-1003 is shipped (version 2)", output, StringComparison.Ordinal);
        Assert.Contains("Order A-1004 is cancelled (version 2)", output, StringComparison.Ordinal);
        Assert.All(["malformed_json", "currency_unknown", "quantity_out_of_range", "key_conflict"], reason => Assert.Contains($" {reason} ", output, StringComparison.Ordinal));
        Assert.Contains("A message is not valid JSON - 1 message is held  [log: sent]", output, StringComparison.Ordinal);
        Assert.Matches("sign in  http://localhost:[0-9]+/#key=", output);

        var run = output.Split('\n').Single(line => line.StartsWith("up: this run is ", StringComparison.Ordinal)).Split(' ')[^1];
        (_, var containers) = await RepositoryProgram.RunAsync("docker", ["ps", "--all", "--quiet", "--filter", $"label=orderservice.up={run}"], new Dictionary<string, string>());
        Assert.Equal("", containers);
    }
}
