using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using OrderService.Tests.Infrastructure;
using Testcontainers.RabbitMq;

[assembly: AssemblyFixture(typeof(RabbitMqContainerFixture))]

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// One RabbitMQ for all tests, started by the first that asks. Each test takes a virtual host of its own, and with it its own <c>orders</c> queue.
/// A test that disturbs the whole broker (alarms, stopping it) makes a fixture of its own instead.
/// </summary>
public sealed class RabbitMqContainerFixture : IAsyncLifetime
{
    private const string User = "tests";
    private const string Password = "tests-password";

    private readonly SemaphoreSlim starting = new(1);
    private RabbitMqContainer? container;
    private HttpClient? management;

    /// <summary>The management API, credentials included.</summary>
    public Uri ManagementUri => new($"http://{User}:{Password}@{container!.Hostname}:{container.GetMappedPublicPort(15672)}/");

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        management?.Dispose();
        if (container is not null)
        {
            await container.DisposeAsync();
        }

        starting.Dispose();
    }

    /// <summary>Makes an empty virtual host.</summary>
    /// <returns>Its AMQP address, credentials included.</returns>
    public async Task<string> AddVirtualHostAsync()
    {
        var container = await StartAsync();
        var name = $"test-{Guid.NewGuid():N}";
        using var response = await management!.PutAsJsonAsync($"api/vhosts/{name}", new { default_queue_type = "classic" });
        response.EnsureSuccessStatusCode();
        return $"amqp://{User}:{Password}@{container.Hostname}:{container.GetMappedPublicPort(5672)}/{name}";
    }

    /// <summary>Runs a command inside the container, for instance <c>rabbitmqctl list_queues</c>.</summary>
    /// <returns>Its standard output.</returns>
    public async Task<string> ExecAsync(params string[] command)
    {
        var container = await StartAsync();
        var result = await container.ExecAsync(command.Length == 1 ? ["sh", "-c", command[0]] : command);
        return result.ExitCode == 0 ? result.Stdout : throw new InvalidOperationException($"'{string.Join(' ', command)}' ended with {result.ExitCode}: {result.Stderr}{result.Stdout}");
    }

    /// <summary>The process of a classic queue stands still, as if its node did not answer; the broker itself works.</summary>
    public Task HangAsync(string virtualHost, string queue) => TellQueueAsync("suspend", virtualHost, queue);

    public Task ResumeAsync(string virtualHost, string queue) => TellQueueAsync("resume", virtualHost, queue);

    /// <summary>Suspends or resumes the processes of a virtual host's channels that have a consumer: connections and queues live, and nothing is delivered.</summary>
    public async Task TellChannelsAsync(string what, string virtualHost) => Assert.Contains(
        "ok",
        await ExecAsync("rabbitmqctl", "eval", what == "suspend"
            // Who is suspended can't be asked any more, so who was is written down.
            ? $"Cs = [C || C <- rabbit_channel:list(), [{{vhost, <<\"{virtualHost}\">>}}, {{consumer_count, N}}] <- [rabbit_channel:info(C, [vhost, consumer_count])], N > 0], persistent_term:put({{suspended, <<\"{virtualHost}\">>}}, Cs), [sys:suspend(C) || C <- Cs]."
            : $"[sys:resume(C) || C <- persistent_term:get({{suspended, <<\"{virtualHost}\">>}}), is_process_alive(C)]."),
        StringComparison.Ordinal);

    private async Task TellQueueAsync(string what, string virtualHost, string queue) => Assert.Contains(
        "ok",
        await ExecAsync("rabbitmqctl", "eval", $"{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{virtualHost}\">>, queue, <<\"{queue}\">>)), sys:{what}(amqqueue:get_pid(Q))."),
        StringComparison.Ordinal);

    /// <summary>How large a message the broker takes from now on, as <c>max_message_size</c> in its configuration says. For a broker that is nobody else's.</summary>
    public Task LimitMessagesAsync(int bytes) => ExecAsync("rabbitmqctl", "eval", $"persistent_term:put(max_message_size, {bytes}).");

    /// <summary>Freezes the broker: sockets stay open and nothing answers.</summary>
    public async Task PauseAsync() => await (await StartAsync()).PauseAsync();

    public async Task UnpauseAsync() => await (await StartAsync()).UnpauseAsync();

    /// <summary>A client of the management API.</summary>
    public async Task<HttpClient> ManagementAsync()
    {
        await StartAsync();
        return management!;
    }

    /// <summary>What every RabbitMQ of the tests has in common: image, label, and the user <c>tests</c> with the password <c>tests-password</c>. For tests that need one of their own.</summary>
    public static async Task<RabbitMqBuilder> BuilderAsync()
    {
        await ContainerEngine.RequireAsync();
        return new RabbitMqBuilder(await ContainerEngine.ImageAsync("ORDERSERVICE_TEST_RABBITMQ_IMAGE", "orderservice-test/rabbitmq:4", "rabbitmq:4-management"))
            .WithUsername(User)
            .WithPassword(Password)
            .WithLabel(ContainerEngine.RunLabel, ContainerEngine.Run);
    }

    private async Task<RabbitMqContainer> StartAsync()
    {
        await ContainerEngine.RequireAsync();
        await starting.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            if (this.container is null)
            {
                var container = (await BuilderAsync())
                    .WithPortBinding(15672, assignRandomHostPort: true)
                    // The published image ships this plugin and does not enable it.
                    .WithResourceMapping("[rabbitmq_management,rabbitmq_prometheus,rabbitmq_consistent_hash_exchange]."u8.ToArray(), "/etc/rabbitmq/enabled_plugins")
                    .Build();
                await container.StartAsync();
                // Shorter than the 60 s after which the broker closes a quiet connection, or a request meets the end.
                management = new HttpClient(new SocketsHttpHandler { PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30) })
                {
                    BaseAddress = new Uri($"http://{container.Hostname}:{container.GetMappedPublicPort(15672)}/"),
                };
                management.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes($"{User}:{Password}")));
                this.container = container;
            }

            return this.container;
        }
        finally
        {
            starting.Release();
        }
    }
}
