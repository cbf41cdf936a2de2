using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace OrderService.Tests.Infrastructure;

/// <summary>An nginx of the distribution in front of a service, as a process of its own, with one server over http and one over https.</summary>
public sealed class Nginx : IAsyncDisposable
{
    private const string Binary = "/usr/sbin/nginx";

    private readonly Process process;
    private readonly string folder;

    private Nginx(Process process, string folder, int port, int tlsPort) => (this.process, this.folder, Port, TlsPort) = (process, folder, port, tlsPort);

    public int Port { get; }

    public int TlsPort { get; }

    /// <summary>The requests that a <c>location</c> with <c>access_log neighbour.log plain;</c> answered, one a line.</summary>
    public async Task<string> NeighbourAsync() => await File.ReadAllTextAsync(Path.Combine(folder, "neighbour.log"), TestContext.Current.CancellationToken);

    /// <summary>Skips the test when there is no nginx; fails it where ORDERSERVICE_TESTS_REQUIRE_ENGINE is 1.</summary>
    /// <param name="locations">The inside of both servers.</param>
    public static async Task<Nginx> StartAsync(string locations)
    {
        if (!File.Exists(Binary))
        {
            const string Problem = "There is no nginx: apt-get install nginx-light.";
            if (Environment.GetEnvironmentVariable("ORDERSERVICE_TESTS_REQUIRE_ENGINE") == "1")
            {
                Assert.Fail(Problem);
            }
            Assert.Skip(Problem);
        }
        var folder = Directory.CreateTempSubdirectory("orderservice-nginx-").FullName;
        var (port, tlsPort) = (FreePort(), FreePort());
        using (var key = RSA.Create(2048))
        {
            var request = new CertificateRequest("CN=orders.test", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
            var now = TimeProvider.System.GetUtcNow();
            using var certificate = request.CreateSelfSigned(now.AddDays(-1), now.AddDays(1));
            await File.WriteAllTextAsync(Path.Combine(folder, "certificate.pem"), certificate.ExportCertificatePem(), TestContext.Current.CancellationToken);
            await File.WriteAllTextAsync(Path.Combine(folder, "key.pem"), key.ExportPkcs8PrivateKeyPem(), TestContext.Current.CancellationToken);
        }
        await File.WriteAllTextAsync(Path.Combine(folder, "neighbour.log"), "", TestContext.Current.CancellationToken);
        var temporary = string.Join('\n', new[] { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" }.Select(name => $"{name}_temp_path {folder}/{name};"));
        await File.WriteAllTextAsync(
            Path.Combine(folder, "nginx.conf"),
            $$"""
            daemon off;
            master_process off;
            pid {{folder}}/nginx.pid;
            error_log {{folder}}/error.log;
            events { worker_connections 256; }
            http {
              access_log off;
              log_format plain '$request';
              {{temporary}}
              server { listen 127.0.0.1:{{port}}; {{locations}} }
              server { listen 127.0.0.1:{{tlsPort}} ssl; ssl_certificate {{folder}}/certificate.pem; ssl_certificate_key {{folder}}/key.pem; {{locations}} }
            }
            """, TestContext.Current.CancellationToken);
        var process = Process.Start(new ProcessStartInfo(Binary, ["-p", folder, "-c", Path.Combine(folder, "nginx.conf")]) { RedirectStandardError = true })!;
        var started = new Nginx(process, folder, port, tlsPort);
        await Eventually.TrueAsync(async () =>
        {
            Assert.False(process.HasExited, process.HasExited ? await process.StandardError.ReadToEndAsync() : "");
            using var socket = new TcpClient();
            try
            {
                await socket.ConnectAsync(IPAddress.Loopback, tlsPort);
                return true;
            }
            catch (SocketException)
            {
                return false;
            }
        }, what: "nginx listens");
        return started;
    }

    /// <summary>A client of its own address, as another machine would be: all of 127.0.0.0/8 is this one. Cookies are the test's to keep.</summary>
    public static HttpClient ClientFrom(string address, string url) => new(new SocketsHttpHandler
    {
        UseCookies = false,
        AllowAutoRedirect = false,
        SslOptions = { RemoteCertificateValidationCallback = (_, _, _, _) => true },
        ConnectCallback = async (context, cancellationToken) =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Parse(address), 0));
            await socket.ConnectAsync(IPAddress.Loopback, context.DnsEndPoint.Port, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        },
    }) { BaseAddress = new Uri(url) };

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
        {
            process.Kill();
            await process.WaitForExitAsync(CancellationToken.None);
        }
        process.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"nginx on {Port} and {TlsPort}");

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
