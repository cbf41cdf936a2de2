using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using OrderService.Notifications;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.Outside;

/// <summary>samples/: each program as its reader would run it, against a real broker and the service.</summary>
public sealed class SampleTests(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public static TheoryData<string> Languages { get; } = ["node", "python", "java", "csharp"];

    [Theory]
    [MemberData(nameof(Languages))]
    public async Task A_sample_publishes_once_and_hears_of_each_event_once(string language)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, language is "node" or "java" ? StoreKind.Postgres : StoreKind.Sqlite, postgres);
        var orderId = $"S-{language}";
        var queue = $"sample-{language}";
        using var consumer = Start(language, "consume", address, queue, "2");
        var heard = new ConcurrentQueue<string>();
        consumer.OutputDataReceived += (_, line) => heard.Enqueue(line.Data ?? "");
        consumer.BeginOutputReadLine();
        await Eventually.TrueAsync(() => heard.Any(line => line.StartsWith("waiting for events", StringComparison.Ordinal)), TimeSpan.FromMinutes(1));

        // Twice with the same key, as after a crash.
        Assert.Equal((0, $"confirmed {orderId}"), await RunAsync(language, "publish", address, null, orderId));
        Assert.Equal((0, $"confirmed {orderId}"), await RunAsync(language, "publish", address, null, orderId));
        await Eventually.TrueAsync(() => heard.Contains($"ORDER_PLACED {orderId} 1"), TimeSpan.FromMinutes(1));
        Assert.Equal(1, (await service.GetAsync($"/api/orders/{orderId}")).GetProperty("version").GetInt64());

        // The event once more, as the relay may send it, and one that follows.
        await using (var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(Now))
        {
            await using var channel = await connection.CreateChannelAsync(cancellationToken: Now);
            foreach (var (type, version) in new[] { ("ORDER_PLACED", 1), ("ORDER_DELIVERED", 2) })
            {
                var id = $"{orderId}.{version}";
                await channel.BasicPublishAsync(
                    "", queue, mandatory: true, new BasicProperties { MessageId = id },
                    Encoding.UTF8.GetBytes($$"""{"specversion":"1.0","id":"{{id}}","type":"{{type}}","subject":"{{orderId}}","data":{},"sequence":{{version}}}"""), Now);
            }
            await consumer.WaitForExitAsync(Now).WaitAsync(TimeSpan.FromMinutes(1), Now);
            Assert.Equal(0, consumer.ExitCode);
            Assert.Equal([$"ORDER_PLACED {orderId} 1", $"ORDER_DELIVERED {orderId} 2"], heard.Where(line => line.StartsWith("ORDER_", StringComparison.Ordinal)));
            // Everything was acknowledged.
            Assert.Equal(0u, (await channel.QueueDeclarePassiveAsync(queue, Now)).MessageCount);
        }
    }

    [Theory]
    [MemberData(nameof(Languages))]
    public async Task A_sample_says_when_there_is_no_queue_for_its_order(string language)
    {
        // A virtual host without the service: nothing is declared.
        var (exitCode, output) = await RunAsync(language, "publish", await broker.AddVirtualHostAsync(), null, "S-1");

        Assert.Equal(1, exitCode);
        Assert.Contains("was returned: there is no queue", output, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Languages))]
    public async Task A_sample_takes_a_webhook_of_the_service_and_refuses_others(string language)
    {
        const string Body = """{"kind":"first","text":"caf\u00e9 é 😀"}""";
        var now = TimeProvider.System.GetUtcNow();
        var stamp = now.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        var other = "whsec_" + Convert.ToBase64String(new byte[32]);
        var signature = WebhookSignature.Sign("msg_1", now, Encoding.UTF8.GetBytes(Body), other, Secret);

        Assert.Equal((0, "valid"), await RunAsync(language, "verify", "", Body, Secret, "msg_1", stamp, signature));
        Assert.Equal((1, "not valid"), await RunAsync(language, "verify", "", Body + " ", Secret, "msg_1", stamp, signature));
        Assert.Equal((1, "not valid"), await RunAsync(language, "verify", "", Body, Secret, "msg_2", stamp, signature));
        Assert.Equal((1, "not valid"), await RunAsync(language, "verify", "", Body, Secret, "msg_1", stamp, "v1,AAAA v2,x"));
        var old = now.AddMinutes(-6);
        Assert.Equal((1, "not valid"), await RunAsync(
            language, "verify", "", Body, Secret, "msg_1", old.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture), WebhookSignature.Sign("msg_1", old, Encoding.UTF8.GetBytes(Body), Secret)));
    }

    private static async Task<(int ExitCode, string Output)> RunAsync(string language, string what, string address, string? input, params string[] arguments)
    {
        using var process = Start(language, what, address, arguments);
        if (input is not null)
        {
            await process.StandardInput.BaseStream.WriteAsync(Encoding.UTF8.GetBytes(input), Now);
        }
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEndAsync(Now);
        var errors = process.StandardError.ReadToEndAsync(Now);
        await process.WaitForExitAsync(Now).WaitAsync(TimeSpan.FromMinutes(2), Now);
        return (process.ExitCode, process.ExitCode == 0 || (await errors).Trim().Length == 0 ? (await output).Trim() : await output + await errors);
    }

    private static Process Start(string language, string what, string address, params string[] arguments)
    {
        var java = string.Join(Path.PathSeparator, new[] { "amqp-client", "slf4j-api" }.Select(jar => Path.Combine(Tool.Folder, "usr", "share", "java", jar + ".jar")));
        var (program, before) = language switch
        {
            "node" => (Tool.Require("node"), new[] { $"{what}.mjs" }),
            "python" => (Tool.Require("python3"), [$"{what}.py"]),
            "java" => (Tool.Require("java"), ["-cp", java, char.ToUpperInvariant(what[0]) + what[1..] + ".java"]),
            _ => (Tool.Require("dotnet"), [Repository.PathOf("artifacts/bin/Samples/debug/Samples.dll"), what]),
        };
        var start = new ProcessStartInfo(program, [.. before, .. arguments])
        {
            WorkingDirectory = Repository.PathOf($"samples/{language}"),
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["AMQP_URI"] = address;
        start.Environment["PYTHONPATH"] = Path.Combine(Tool.Folder, "usr", "lib", "python3", "dist-packages");
        start.Environment["PYTHONDONTWRITEBYTECODE"] = "1";
        return Process.Start(start)!;
    }
}
