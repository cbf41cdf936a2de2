using Microsoft.Extensions.Configuration;
using OrderService.Admin;
using OrderService.RabbitMq;
using OrderService.Tests.CommandLine;

namespace OrderService.Tests.Configuration;

/// <summary>A mistake in the settings stops the start and names its key.</summary>
public sealed class SettingsTests
{
    private const string LongKey = "0123456789-0123456789-0123456789";

    [Fact]
    public void The_settings_that_are_shipped_are_fine()
    {
        var loaded = OrderServiceHost.LoadSettings(environmentVariables: false);

        Assert.Empty(loaded.Mistakes);
        Assert.Equal("http://localhost:8080", loaded.Configuration["Urls"]);
    }

    [Theory]
    [InlineData("RabbitMq:Prefech", "10", "RabbitMq:Prefech: unknown setting, did you mean RabbitMq:Prefetch?")]
    [InlineData("Store:Pfad", "x", "Store:Pfad: unknown setting")]
    [InlineData("RabbitMq:Prefetch", "ten", "RabbitMq:Prefetch: 'ten' is not a whole number")]
    [InlineData("RabbitMq:Prefetch", "0", "RabbitMq:Prefetch")]
    [InlineData("RabbitMq:Prefetch", "65536", "RabbitMq:Prefetch")]
    [InlineData("RabbitMq:Prefetch", "-1", "RabbitMq:Prefetch")]
    [InlineData("RabbitMq:Heartbeat", "00:00:00", "RabbitMq:Heartbeat")]
    [InlineData("RabbitMq:Uri", "http://localhost", "RabbitMq:Uri")]
    [InlineData("RabbitMq:Uri", "amqp://shop:secret@broker.example.com/", "RabbitMq:Uri")]
    [InlineData("RabbitMq:Endpoints", "a,b", "RabbitMq:Endpoints: expected a list")]
    [InlineData("RabbitMq:Prefetch:Value", "1", "RabbitMq:Prefetch: ")]
    [InlineData("Store:Provider", "Oracle", "Store:Provider")]
    [InlineData("Store:Provider", "Postgres", "Store:ConnectionString: missing")]
    [InlineData("Store:ConnectionString", "Host=x", "Store:ConnectionString: is for PostgreSQL")]
    [InlineData("Store:Path", ":memory:", "Store:Path")]
    [InlineData("RabbitMq:ManagementUri", "http://shop:secret@broker.example.com:15672/", "RabbitMq:ManagementUri is http:// (no TLS) to another machine")]
    [InlineData("Orders:DeferFor", "soon", "Orders:DeferFor: 'soon' is not a duration")]
    [InlineData("Orders:DeferFor", "00:00:00", "Orders:DeferFor: ")]
    [InlineData("Orders:RequirePaymentBeforeShipping", "maybe", "Orders:RequirePaymentBeforeShipping: 'maybe' is not true or false")]
    [InlineData("Outbox:MaxInMemory", "1", "Outbox:MaxInMemory: ")]
    [InlineData("Inbox:MaxBatch", "0", "Inbox:MaxBatch: ")]
    [InlineData("Alerts:Webhook:Enabled", "true", "Alerts:Webhook:Url")]
    [InlineData("Alerts:Email:Enabled", "true", "Alerts:Email")]
    [InlineData("Api:Keys:0:Key", "short", "Api:Keys:0:Key: shorter than 32 bytes")]
    [InlineData("Api:Jwt:Authority", "http://login.example.com", "Api:Jwt:Authority: must be an https address")]
    [InlineData("Api:Jwt:Audience", "orders", "Api:Jwt:Authority: missing")]
    [InlineData("Api:RateLimit:PerKey", "0", "Api:RateLimit:PerKey: ")]
    [InlineData("Roles", "order", "Roles: 'order' is not a role")]
    [InlineData("Roles", ",", "Roles: names no role")]
    [InlineData("Urls", "", "Urls: names no address")]
    [InlineData("OpenTelemetry:OtlpEndpoint", "collector", "OpenTelemetry:OtlpEndpoint: is no address")]
    [InlineData("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector", "OTEL_EXPORTER_OTLP_ENDPOINT: is no address")]
    [InlineData("OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS: can't be read; write name=value")]
    [InlineData("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "=secret", "OTEL_EXPORTER_OTLP_TRACES_HEADERS: can't be read")]
    [InlineData("OTEL_EXPORTER_OTLP_PROTOCOL", "http", "OTEL_EXPORTER_OTLP_PROTOCOL: can't be read; there are grpc, http/protobuf")]
    [InlineData("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "OTEL_EXPORTER_OTLP_TIMEOUT: is no number")]
    [InlineData("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "OTEL_EXPORTER_OTLP_CERTIFICATE: names a file that does not exist")]
    [InlineData("OTEL_RESOURCE_ATTRIBUTES", "secret", "OTEL_RESOURCE_ATTRIBUTES: can't be read")]
    [InlineData("OTEL_TRACES_SAMPLER", "sometimes", "OTEL_TRACES_SAMPLER: can't be read; there are always_on")]
    [InlineData("OTEL_TRACES_SAMPLER_ARG", "2", "OTEL_TRACES_SAMPLER_ARG: is no share")]
    [InlineData("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_BSP_MAX_QUEUE_SIZE: is no whole number")]
    [InlineData("OTEL_METRIC_EXPORT_INTERVAL", "-1", "OTEL_METRIC_EXPORT_INTERVAL: is no number")]
    [InlineData("OTEL_EXPORTER_OTLP_ENDPONT", "http://c:4317", "OTEL_EXPORTER_OTLP_ENDPONT: nobody reads this, did you mean OTEL_EXPORTER_OTLP_ENDPOINT?")]
    [InlineData("Serilog:WriteTo:0:Name", "Consle", "Serilog:WriteTo:0:Name: there is no sink 'Consle' in this program; there are Async, Console, Debug, File, OpenTelemetry")]
    [InlineData("Serilog:WriteTo:0:Name", "Seq", "Serilog:WriteTo:0:Name: there is no sink 'Seq'")]
    [InlineData("Serilog:WriteTo:0", "Consle", "Serilog:WriteTo:0: there is no sink 'Consle'")]
    [InlineData("Serilog:WritTo:0:Name", "Console", "Serilog:WritTo: unknown setting, did you mean Serilog:WriteTo?")]
    [InlineData("RabbitMq:Password", "secret", "RabbitMq:Username and RabbitMq:Password go together")]
    [InlineData("Urls", "localhost", "Urls: 'localhost'")]
    [InlineData("Urls", "ftp://localhost:21", "Urls: 'ftp://localhost:21'")]
    [InlineData("ManagementUrls", "localhost", "ManagementUrls: 'localhost'")]
    [InlineData("ManagementUrls", "http://+:8080", "ManagementUrls: 'http://+:8080' has a port that Urls has as well")]
    public void Each_mistake_is_one_sentence_that_begins_with_its_key(string key, string value, string begins)
    {
        var mistakes = OrderServiceHost.LoadSettings([new(key, value)], environmentVariables: false).Mistakes;

        Assert.Contains(mistakes, mistake => mistake.StartsWith(begins, StringComparison.Ordinal));
        Assert.All(mistakes, mistake => Assert.DoesNotContain('\n', mistake));
        Assert.All(mistakes, mistake => Assert.DoesNotContain("secret", mistake, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("RabbitMq:Uri", "amqp://shop:p%40ss%2F%23%25@localhost/")]
    [InlineData("Roles", "orders, relay")]
    [InlineData("Roles:0", "api")]
    [InlineData("Urls", "http://+:8080;http://127.0.0.1:0")]
    [InlineData("ManagementUrls", "")]
    [InlineData("Serilog:MinimumLevel:Default", "Debug")]
    [InlineData("RabbitMq:Endpoints:0", "localhost:5673")]
    [InlineData("Alerts:Email:To:0", "ops@example.com")]
    [InlineData("OpenTelemetry:ServiceName", "orders-eu")]
    [InlineData("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret,tenant=eu")]
    [InlineData("OTEL_DOTNET_AUTO_HOME", "/opt/otel")]
    [InlineData("Serilog:WriteTo:0:Name", "console")]
    public void What_is_right_is_taken(string key, string value) => Assert.Empty(OrderServiceHost.LoadSettings([new(key, value)], environmentVariables: false).Mistakes);

    [Theory]
    [InlineData("Host=db.example.com;Password=secret", false)]
    [InlineData("Host=db.example.com;Password=secret;SSL Mode=Disable", false)]
    [InlineData("Host=db.example.com;Password=secret;SSL Mode=Require", false)]
    [InlineData("Host=127.0.0.1,db.example.com:5433;Password=secret", false)]
    [InlineData("Host=db.example.com;Password=secret;SSL Mode=VerifyFull", true)]
    [InlineData("Host=localhost,127.0.0.1:5433,::1,/var/run/postgresql;Password=secret", true)]
    public void PostgreSQL_on_another_machine_needs_TLS_that_is_verified_or_a_setting_that_allows_plaintext(string connectionString, bool right)
    {
        List<string> Mistakes(string allowed) => [.. OrderServiceHost.LoadSettings(
            [new("Store:Provider", "Postgres"), new("Store:ConnectionString", connectionString), new("Store:AllowPlaintext", allowed)], environmentVariables: false).Mistakes];

        Assert.Equal(right, Mistakes("false").Count == 0);
        Assert.All(Mistakes("false"), mistake => Assert.StartsWith("Store:ConnectionString has SSL Mode=", mistake, StringComparison.Ordinal));
        Assert.All(Mistakes("false"), mistake => Assert.DoesNotContain("secret", mistake, StringComparison.Ordinal));
        Assert.Empty(Mistakes("true"));
    }

    [Theory]
    [InlineData("Alerts:Email:Security", "None", "Alerts:Email:Security is None")]
    [InlineData("Alerts:Email:Security", "none", "Alerts:Email:Security is StartTls, Tls or None")]
    [InlineData("Alerts:Email:Port", "99999", "Alerts:Email:Port is from 1 to 65535")]
    [InlineData("Alerts:Email:Username", "shop", "Alerts:Email:Username and Alerts:Email:Password belong together")]
    public void The_mail_server_of_order_confirmations_is_checked_although_alerts_go_elsewhere(string key, string value, string begins)
    {
        var mistakes = OrderServiceHost.LoadSettings(
            [new("OrderConfirmation:Enabled", "true"), new("Alerts:Email:Host", "mail.example.com"), new("Alerts:Email:From", "shop@example.com"), new(key, value)],
            environmentVariables: false).Mistakes;

        Assert.StartsWith(begins, Assert.Single(mistakes), StringComparison.Ordinal);
    }

    [Fact]
    public void A_key_is_made_and_not_typed_and_names_commands_that_there_are()
    {
        var mistakes = OrderServiceHost.LoadSettings(
            [
                new("Api:Keys:0:Name", "shop"), new("Api:Keys:0:Key", new string('a', 32)), new("Api:Keys:0:Scopes:0", "publish"), new("Api:Keys:0:Commands:0", "order.plaice"),
                new("Api:Keys:1:Name", "looks"), new("Api:Keys:1:Key", LongKey), new("Api:Keys:1:Scopes:0", "read"), new("Api:Keys:1:Commands:0", "order.ship"),
            ],
            environmentVariables: false).Mistakes;

        Assert.Contains(mistakes, mistake => mistake.StartsWith("Api:Keys:0:Key: the same few characters", StringComparison.Ordinal));
        Assert.Contains($"Api:Keys:0:Commands: 'order.plaice' is no command; there are {string.Join(", ", OrderService.Domain.CommandType.All)}.", mistakes);
        Assert.Contains("Api:Keys:1:Commands: set, and Api:Keys:1:Scopes lacks 'publish'.", mistakes);
    }

    [Theory]
    [InlineData("http://localhost:8080", null, null, false)]
    [InlineData("http://127.0.0.1:8080;http://[::1]:8080", null, null, false)]
    [InlineData("https://+:8443", null, null, false)]
    [InlineData("http://+:8080", null, null, true)]
    [InlineData("http://localhost:8080;http://10.1.2.3:8080", null, null, true)]
    [InlineData("http://+:8080", "Api:TrustedProxies:0", "10.0.0.7", false)]
    [InlineData("http://+:8080", "Api:PublicUrl", "https://shop.example.com/", false)]
    [InlineData("http://+:8080", "Api:PublicUrl", "http://shop.example.com/", true)]
    public void Keys_that_may_cross_a_network_in_plain_are_told_of(string urls, string? key, string? value, bool told)
    {
        var loaded = OrderServiceHost.LoadSettings([new("Urls", urls), .. key is null ? [] : new KeyValuePair<string, string?>[] { new(key, value) }], environmentVariables: false);

        var finding = Listeners.PlainHttp(loaded.Configuration, loaded.Configuration.GetSection(ApiOptions.Section).Get<ApiOptions>() ?? new ApiOptions());

        Assert.Equal(told, finding?.StartsWith("Urls: other machines may reach http://", StringComparison.Ordinal) == true);
    }

    [Fact]
    public void A_secret_is_not_read_from_a_device()
    {
        var mistakes = OrderServiceHost.LoadSettings([new("RabbitMq:UriFile", "/dev/zero")], environmentVariables: false).Mistakes;

        Assert.Contains(mistakes, mistake => mistake.StartsWith("RabbitMq:UriFile: /dev/zero is larger than", StringComparison.Ordinal));
    }

    [Fact]
    public void Two_keys_of_one_name_and_unknown_scopes_are_mistakes()
    {
        var mistakes = OrderServiceHost.LoadSettings(
            [
                new("Api:Keys:0:Name", "shop"), new("Api:Keys:0:Key", LongKey), new("Api:Keys:0:Scopes:0", "reed"),
                new("Api:Keys:1:Name", "shop"), new("Api:Keys:1:Key", LongKey), new("Api:Keys:1:Scopes:0", "read"),
            ],
            environmentVariables: false).Mistakes;

        Assert.Contains("Api:Keys: two keys are named 'shop'; names must differ.", mistakes);
        Assert.Contains("Api:Keys: two entries hold the same key.", mistakes);
        Assert.Contains(mistakes, mistake => mistake.StartsWith("Api:Keys:0:Scopes: 'reed' is not a scope", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("amqp://shop:pw@localhost/", "amqp://shop:pw@localhost/")]
    [InlineData("amqp://shop:pw@localhost/\n", "amqp://shop:pw@localhost/")]
    [InlineData("amqp://shop:pw@localhost/\r\n", "amqp://shop:pw@localhost/")]
    [InlineData("\uFEFFamqp://shop:pw@localhost/\n", "amqp://shop:pw@localhost/")]
    [InlineData("amqp://shop:pw@localhost/\r", "amqp://shop:pw@localhost/")]
    public void A_secret_comes_from_a_file_without_its_line_break(string text, string secret)
    {
        var file = SecretFile(text);

        var loaded = OrderServiceHost.LoadSettings([new("RabbitMq:UriFile", file)], environmentVariables: false);

        Assert.Empty(loaded.Mistakes);
        Assert.Empty(loaded.Warnings);
        Assert.Equal(secret, loaded.Configuration["RabbitMq:Uri"]);
        File.Delete(file);
    }

    [Fact]
    public void A_secret_file_that_is_missing_empty_or_doubled_is_a_mistake()
    {
        var empty = SecretFile("\n");
        var loaded = OrderServiceHost.LoadSettings(
            [
                new("Store:ConnectionStringFile", "/no/such/file"), new("Alerts:Email:PasswordFile", empty),
                new("Api:Keys:0:Name", "shop"), new("Api:Keys:0:Scopes:0", "read"), new("Api:Keys:0:Key", LongKey), new("Api:Keys:0:KeyFile", empty),
                new("Store:PathFile", empty),
            ],
            environmentVariables: false);

        Assert.Contains("Store:ConnectionStringFile: /no/such/file can't be read (there is no such file).", loaded.Mistakes);
        Assert.Contains($"Alerts:Email:PasswordFile: {empty} is empty.", loaded.Mistakes);
        Assert.Contains("Api:Keys:0:KeyFile: Api:Keys:0:Key is set as well; keep one of the two.", loaded.Mistakes);
        // Only secrets come from files.
        Assert.Contains(loaded.Mistakes, mistake => mistake.StartsWith("Store:PathFile: unknown setting", StringComparison.Ordinal));
        File.Delete(empty);
    }

    [Fact]
    public void Utf_16_is_read_where_it_says_so_and_refused_where_it_does_not()
    {
        var marked = SecretFile("");
        File.WriteAllText(marked, "amqp://shop:pw@localhost/\r\n", System.Text.Encoding.Unicode);
        var bare = SecretFile("");
        File.WriteAllBytes(bare, System.Text.Encoding.Unicode.GetBytes("amqp://shop:pw@localhost/"));

        Assert.Equal("amqp://shop:pw@localhost/", OrderServiceHost.LoadSettings([new("RabbitMq:UriFile", marked)], environmentVariables: false).Configuration["RabbitMq:Uri"]);
        Assert.StartsWith($"RabbitMq:UriFile: {bare} is not UTF-8 text", Assert.Single(OrderServiceHost.LoadSettings([new("RabbitMq:UriFile", bare)], environmentVariables: false).Mistakes), StringComparison.Ordinal);
        File.Delete(marked);
        File.Delete(bare);
    }

    [Theory]
    [InlineData("RabbitMq:PasswordFile")]
    [InlineData("RabbitMq:Password_FILE")]
    public void The_brokers_password_comes_from_a_file_of_its_own(string key)
    {
        var file = SecretFile("p@ss/#%\n");

        var loaded = OrderServiceHost.LoadSettings([new(key, file), new("RabbitMq:Username", "shop"), new("RabbitMq:Uri", "amqp://localhost/")], environmentVariables: false);

        Assert.Empty(loaded.Mistakes);
        var options = new RabbitMqOptions { Uri = "amqp://localhost/", Username = "shop", Password = loaded.Configuration["RabbitMq:Password"] };
        Assert.True(BrokerAddress.TryParse(options, out var address, out _));
        Assert.Equal(("shop", "p@ss/#%"), (address.User, address.Password));
        Assert.StartsWith("RabbitMq:Uri names a user", Assert.Single(OrderServiceHost.LoadSettings([new(key, file), new("RabbitMq:Username", "shop"), new("RabbitMq:Uri", "amqp://a:b@localhost/")], environmentVariables: false).Mistakes), StringComparison.Ordinal);
        File.Delete(file);
    }

    [Fact]
    public void A_secret_file_that_everybody_can_read_is_a_warning()
    {
        if (OperatingSystem.IsWindows())
        {
            return;
        }
        var file = SecretFile("amqp://shop:pw@localhost/");
        File.SetUnixFileMode(file, (UnixFileMode)0b110_100_100);

        Assert.Contains(OrderServiceHost.LoadSettings([new("RabbitMq:UriFile", file)], environmentVariables: false).Warnings, warning => warning.Contains("chmod 600", StringComparison.Ordinal));
        File.Delete(file);
    }

    [Fact]
    public async Task All_mistakes_end_the_start_at_once_with_78_and_a_line_each()
    {
        var result = await Binary.RunAsync(["serve"], new()
        {
            ["RabbitMq__Prefetch"] = "ten",
            ["RabbitMq__Prefech"] = "10",
            ["RabitMq__Uri"] = "amqp://shop:s3cret@localhost/",
            ["Store__Provider"] = "Oracle",
            ["Orders__DeferFor"] = "00:00:00",
            ["Api__Keys__0__Key"] = "s3cret",
            ["Roles"] = "everything",
        });

        Assert.Equal(78, result.ExitCode);
        string[] keys = ["RabbitMq:Prefetch", "RabbitMq:Prefech", "RabitMq", "Store:Provider", "Orders:DeferFor", "Api:Keys:0:Key", "Roles"];
        Assert.All(keys, key => Assert.Contains(result.ErrorLines, line => line.StartsWith(key, StringComparison.Ordinal)));
        Assert.Contains("environment variable RabbitMq__Prefetch", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", result.Error + result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Serilog__MinimumLevel__Default", "Loud")]
    [InlineData("Serilog__Using__0", "Nope")]
    public async Task What_the_log_library_can_not_read_ends_the_start_with_78_and_a_line(string key, string value)
    {
        var result = await Binary.RunAsync(["serve"], new() { [key] = value });

        Assert.Equal(78, result.ExitCode);
        Assert.StartsWith("Serilog: ", Assert.Single(result.ErrorLines), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Serilog__WriteTo__0__Name", "Consle", "Serilog:WriteTo:0:Name: there is no sink 'Consle'")]
    [InlineData("Serilog__WriteTo__0__Args__path", "/proc/orders.log", "Serilog:WriteTo:0:Args:path: /proc/orders.log can't be written by the user")]
    [InlineData("Serilog__WriteTo__0__Args__path", "/proc/no/orders-.log", "Serilog:WriteTo:0:Args:path: /proc/no/orders-.log can't be written by the user")]
    [InlineData("Serilog__WriteTo__0__Args__pfad", "x", "Serilog: Unable to find a method called File")]
    [InlineData("OTEL_EXPORTER_OTLP_HEADERS", "bad", "OTEL_EXPORTER_OTLP_HEADERS: can't be read")]
    public async Task What_would_be_silence_ends_the_start_with_78_and_a_line(string key, string value, string begins)
    {
        var settings = new Dictionary<string, string> { ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1", [key] = value };
        if (key.Contains("Args", StringComparison.Ordinal))
        {
            settings["Serilog__WriteTo__0__Name"] = "File";
        }
        if (value.Contains('-', StringComparison.Ordinal))
        {
            // Opened at its first line only.
            settings["Serilog__WriteTo__0__Args__rollingInterval"] = "Day";
        }
        var result = await Binary.RunAsync(["serve"], settings);

        Assert.Equal(78, result.ExitCode);
        Assert.Contains(result.ErrorLines, line => line.StartsWith(begins, StringComparison.Ordinal));
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_start_that_fails_takes_less_than_two_seconds()
    {
        if (OperatingSystem.IsWindows())
        {
            return;
        }
        var work = await Binary.WorkAsync(["serve"], new() { ["RabbitMq__Prefetch"] = "ten" });

        Assert.InRange(work, TimeSpan.FromMilliseconds(10), TimeSpan.FromSeconds(2));
    }

    private static string SecretFile(string text)
    {
        var file = Path.GetTempFileName();
        File.WriteAllText(file, text);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
        return file;
    }
}
