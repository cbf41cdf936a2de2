using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Deployment;

/// <summary>The Compose file as an operator runs it. Only ports and the image's name differ, so that it can run beside another.</summary>
[Collection(nameof(Deployment))]
public sealed class ComposeTests : IAsyncLifetime
{
    private static readonly string Run = Environment.GetEnvironmentVariable("ORDERSERVICE_TEST_RUN") ?? Guid.NewGuid().ToString("N");
    // eng/test removes what carries this project's name.
    private readonly string project = $"orderservice-test-{Run}";
    private readonly Dictionary<string, string> environment = new()
    {
        ["ORDERS_PORT"] = "0",
        ["RABBITMQ_PORT"] = "0",
        ["RABBITMQ_MANAGEMENT_PORT"] = "0",
        ["COMPOSE_PROFILES"] = "single",
    };

    public async ValueTask InitializeAsync()
    {
        await ContainerEngine.RequireAsync();
        // A mirror of packages that this machine restores from is good for the image's build as well.
        var mirror = Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "NuGet", "NuGet.Config");
        if (File.Exists(mirror))
        {
            environment["NUGET_CONFIG"] = Environment.GetEnvironmentVariable("NUGET_CONFIG") ?? mirror;
        }

        environment["ORDERS_IMAGE"] = $"orderservice-test/service:{Run}";
        environment["RABBITMQ_IMAGE"] = await ContainerEngine.ImageAsync("RABBITMQ_IMAGE", "orderservice-test/rabbitmq:4", "rabbitmq:4-management");
        environment["SDK_IMAGE"] = await ContainerEngine.ImageAsync("SDK_IMAGE", "orderservice-test/dotnet-sdk:10.0", "mcr.microsoft.com/dotnet/sdk:10.0");
        environment["RUNTIME_IMAGE"] = await ContainerEngine.ImageAsync("RUNTIME_IMAGE", "orderservice-test/dotnet-aspnet:10.0", "mcr.microsoft.com/dotnet/aspnet:10.0");
    }

    public async ValueTask DisposeAsync()
    {
        if (environment.TryGetValue("ORDERS_IMAGE", out var image))
        {
            await ComposeAsync(null, "down", "--volumes", "--timeout", "40");
            await DockerAsync(null, "image", "rm", "--force", image);
        }
    }

    [Fact]
    public async Task Compose_builds_and_starts_everything_and_an_order_goes_through_and_survives_a_new_container()
    {
        await SucceedAsync(null, "up", "--build", "--detach", "--wait", "--wait-timeout", "300");

        var container = (await SucceedAsync(null, "ps", "--quiet", "orders")).Trim();
        (_, var inspected) = await DockerAsync(null, "inspect", container);
        using (JsonDocument settings = JsonDocument.Parse(inspected))
        {
            var host = settings.RootElement[0].GetProperty("HostConfig");
            Assert.True(host.GetProperty("ReadonlyRootfs").GetBoolean());
            Assert.Equal("ALL", Assert.Single(host.GetProperty("CapDrop").EnumerateArray()).GetString());
            Assert.Equal("1654:1654", settings.RootElement[0].GetProperty("Config").GetProperty("User").GetString());
            // Strangers can't fill the listener that the health check asks.
            Assert.Contains("8081", settings.RootElement[0].GetProperty("Config").GetProperty("Healthcheck").GetProperty("Test").ToString(), StringComparison.Ordinal);
            Assert.DoesNotContain(settings.RootElement[0].GetProperty("Config").GetProperty("Env").EnumerateArray(), variable => variable.GetString()!.Contains("Password=", StringComparison.Ordinal));
            Assert.All(
                host.GetProperty("PortBindings").EnumerateObject().SelectMany(port => port.Value.EnumerateArray()),
                binding => Assert.Equal("127.0.0.1", binding.GetProperty("HostIp").GetString()));
        }

        foreach (var running in (await SucceedAsync(null, "ps", "--all", "--quiet")).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            (_, var found) = await DockerAsync(null, "inspect", running);
            using JsonDocument one = JsonDocument.Parse(found);
            var host = one.RootElement[0].GetProperty("HostConfig");
            Assert.InRange(host.GetProperty("Memory").GetInt64(), 1, 2L << 30);
            Assert.Equal("ALL", Assert.Single(host.GetProperty("CapDrop").EnumerateArray()).GetString());
            Assert.InRange(host.GetProperty("PidsLimit").GetInt64(), 1, 4096);
            Assert.Equal("json-file", host.GetProperty("LogConfig").GetProperty("Type").GetString());
            Assert.Equal("10m", host.GetProperty("LogConfig").GetProperty("Config").GetProperty("max-size").GetString());
        }

        var users = await SucceedAsync(null, "exec", "--no-TTY", "rabbitmq", "rabbitmqctl", "-q", "list_users");
        Assert.Matches(@"(?m)^orders\s+\[\]", users);
        Assert.DoesNotContain("guest", users, StringComparison.Ordinal);
        // Its right to write reaches no queue, and headers that are nested thousands deep fit into no frame.
        var rights = await SucceedAsync(null, "exec", "--no-TTY", "rabbitmq", "rabbitmqctl", "-q", "list_user_permissions", "orders");
        Assert.Contains(@"^(order-events|orders\.in|orders\.partitioned)$", rights, StringComparison.Ordinal);
        Assert.Equal("{ok,32768}", (await SucceedAsync(null, "exec", "--no-TTY", "rabbitmq", "rabbitmqctl", "-q", "eval", "application:get_env(rabbit, frame_max).")).Trim());
        foreach (var guessed in new[] { "orders", "guest" })
        {
            var (exit, _) = await ComposeAsync(null, "exec", "--no-TTY", "rabbitmq", "rabbitmqctl", "-q", "authenticate_user", guessed, guessed);
            Assert.NotEqual(0, exit);
        }
        Assert.True(await ShowsAsync("key", "show", "sign in  http://localhost:8080/#key="));
        Assert.DoesNotContain("#key=", await SucceedAsync(null, "logs", "--no-color", "orders"), StringComparison.Ordinal);

        var published = await SucceedAsync(
            """
            {"orderId":"COMPOSE-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}
            this is not JSON

            """,
            "run", "--rm", "--no-TTY", "orders", "publish", "-");
        Assert.Contains("2 confirmed, 0 failed", published, StringComparison.Ordinal);
        await Eventually.TrueAsync(() => ShowsAsync("order", "show", "COMPOSE-1", "placed"), TimeSpan.FromMinutes(2));
        await Eventually.TrueAsync(() => ShowsAsync("dlq", "list", "malformed_json"), TimeSpan.FromMinutes(2));

        var port = (await SucceedAsync(null, "port", "orders", "8080")).Trim().Split(':')[^1];
        using (var http = new HttpClient { BaseAddress = new Uri($"http://localhost:{port}/") })
        {
            Assert.Equal(System.Net.HttpStatusCode.OK, (await http.GetAsync("health/ready", TestContext.Current.CancellationToken)).StatusCode);
            Assert.Equal(System.Net.HttpStatusCode.Unauthorized, (await http.GetAsync("api/orders/COMPOSE-1", TestContext.Current.CancellationToken)).StatusCode);
        }

        await SucceedAsync(null, "stop", "orders");
        (_, var exitCode) = await DockerAsync(null, "inspect", "--format", "{{.State.ExitCode}}", container);
        Assert.Equal("0", exitCode.Trim());

        await SucceedAsync(null, "up", "--detach", "--wait", "--wait-timeout", "300", "--force-recreate", "orders");
        Assert.True(await ShowsAsync("order", "show", "COMPOSE-1", "placed"));
    }

    /// <summary>Runs a command of the service's in a container beside it; the last argument is what its output must hold.</summary>
    private async Task<bool> ShowsAsync(params string[] commandAndText)
    {
        (var exitCode, var output) = await ComposeAsync(null, ["exec", "--no-TTY", "orders", "/app/orderservice", .. commandAndText[..^1]]);
        return exitCode == 0 && output.Contains(commandAndText[^1], StringComparison.Ordinal);
    }

    private async Task<string> SucceedAsync(string? input, params string[] arguments)
    {
        (var exitCode, var output) = await ComposeAsync(input, arguments);
        if (exitCode != 0)
        {
            (_, var log) = await ComposeAsync(null, "logs", "--no-color", "--tail", "50");
            Assert.Fail($"docker compose {string.Join(' ', arguments)} ended with {exitCode}:\n{output}\n{log}");
        }

        return output;
    }

    private Task<(int ExitCode, string Output)> ComposeAsync(string? input, params string[] arguments) =>
        DockerAsync(input, ["compose", "--project-name", project, "--progress", "plain", .. arguments]);

    private Task<(int ExitCode, string Output)> DockerAsync(string? input, params string[] arguments) =>
        RepositoryProgram.RunAsync("docker", arguments, environment, input);
}
