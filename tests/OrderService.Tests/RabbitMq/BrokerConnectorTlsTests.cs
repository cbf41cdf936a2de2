using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

/// <summary>Only the handshake matters here, so the other side is a listener that reads the first bytes of AMQP and hangs up.</summary>
public sealed class BrokerConnectorTlsTests : IDisposable
{
    private static readonly DateTimeOffset Today = new(TimeProvider.System.GetUtcNow().UtcDateTime.Date, TimeSpan.Zero);

    private readonly X509Certificate2 authority = Authority("Test authority");
    private readonly string authorityFile = Path.GetTempFileName();

    public BrokerConnectorTlsTests() => File.WriteAllText(authorityFile, authority.ExportCertificatePem());

    public void Dispose()
    {
        authority.Dispose();
        File.Delete(authorityFile);
    }

    [Fact]
    public async Task A_certificate_of_the_given_authority_for_the_host_is_trusted() =>
        Assert.Equal("AMQP", await GreetingAsync(Leaf(authority, "localhost"), authorityFile));

    [Fact]
    public async Task A_certificate_for_another_host_is_refused() =>
        Assert.Null(await GreetingAsync(Leaf(authority, "elsewhere.example"), authorityFile));

    [Fact]
    public async Task A_certificate_of_another_authority_is_refused()
    {
        using var stranger = Authority("Stranger");

        Assert.Null(await GreetingAsync(Leaf(stranger, "localhost"), authorityFile));
    }

    [Fact]
    public async Task Without_the_file_only_the_systems_authorities_count() =>
        Assert.Null(await GreetingAsync(Leaf(authority, "localhost"), caFile: null));

    /// <returns>The first four bytes the client sent once it trusted the connection; null when it did not.</returns>
    private static async Task<string?> GreetingAsync(X509Certificate2 certificate, string? caFile)
    {
        using (certificate)
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            var greeting = AnswerAsync(listener, certificate);
            var options = new RabbitMqOptions
            {
                Uri = $"amqps://shop:secret@localhost:{((IPEndPoint)listener.LocalEndpoint).Port}/",
                CaFile = caFile,
                ConnectTimeout = TimeSpan.FromSeconds(5),
            };

            // It never becomes a connection; the question is how far it gets.
            await Assert.ThrowsAnyAsync<Exception>(() => new BrokerConnector(Microsoft.Extensions.Options.Options.Create(options), TimeProvider.System).OpenAsync("test", TestBroker.Stopping));
            return await greeting;
        }
    }

    private static async Task<string?> AnswerAsync(TcpListener listener, X509Certificate2 certificate)
    {
        using var client = await listener.AcceptTcpClientAsync(TestBroker.Stopping);
        await using var stream = new SslStream(client.GetStream());
        try
        {
            await stream.AuthenticateAsServerAsync(new SslServerAuthenticationOptions { ServerCertificate = certificate }, TestBroker.Stopping);
            var first = new byte[4];
            await stream.ReadExactlyAsync(first, TestBroker.Stopping);
            return Encoding.ASCII.GetString(first);
        }
        catch (Exception exception) when (exception is IOException or AuthenticationException)
        {
            return null;
        }
    }

    private static X509Certificate2 Authority(string name)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, critical: true));
        return request.CreateSelfSigned(Today.AddDays(-1), Today.AddDays(30));
    }

    private static X509Certificate2 Leaf(X509Certificate2 authority, string host)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={host}", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName(host);
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], critical: false));
        using var signed = request.Create(authority, Today.AddDays(-1), Today.AddDays(20), [1, 2, 3, 4]);
        using var withKey = signed.CopyWithPrivateKey(key);
        return X509CertificateLoader.LoadPkcs12(withKey.Export(X509ContentType.Pkcs12), null);
    }
}
