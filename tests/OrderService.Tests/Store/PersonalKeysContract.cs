using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.DeadLetters;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Store;

/// <summary>What is personal lies under keys, and is gone with them. A subclass for each database.</summary>
public abstract class PersonalKeysContract : IAsyncLifetime
{
    protected const string Canary = "canary-person@pii.example";

    private readonly List<StoreInstance> open = [];

    protected static CancellationToken Token => TestContext.Current.CancellationToken;

    private StoreInstance Store { get; set; } = null!;

    public async ValueTask InitializeAsync()
    {
        Store = await OpenAsync();
        await Store.Database.MigrateAsync(Token);
    }

    public virtual async ValueTask DisposeAsync()
    {
        foreach (var instance in open)
        {
            await instance.DisposeAsync();
        }
    }

    /// <summary>Opens this test's database, as one more process would.</summary>
    protected abstract Task<StoreInstance> OpenProcessAsync(KeysOptions? keys);

    /// <summary>Everything that lies in the store, as bytes.</summary>
    protected abstract Task<byte[]> EverythingAsync();

    private async Task<StoreInstance> OpenAsync(KeysOptions? keys = null)
    {
        var instance = await OpenProcessAsync(keys);
        open.Add(instance);
        return instance;
    }

    [Fact]
    public async Task A_customer_has_one_key_whoever_asks_for_it()
    {
        var other = await OpenAsync();
        var keys = await Task.WhenAll(Enumerable.Range(0, 8).Select(number => Task.Run(() => (number % 2 == 0 ? Store : other).Database.Keys.OfCustomers(["C-1", "C-2"]), Token)));

        Assert.Single(keys.Select(pair => pair["C-1"].Id).Distinct());
        Assert.Single(keys.Select(pair => pair["C-2"].Id).Distinct());
        Assert.NotEqual(keys[0]["C-1"].Bytes, keys[0]["C-2"].Bytes);
    }

    [Fact]
    public async Task A_key_that_one_process_destroys_opens_nothing_in_any_other_and_a_later_order_gets_another()
    {
        var other = await OpenAsync();
        var before = Store.Database.Keys.OfCustomer("C-7");
        var stored = Store.Database.Keys.Seal(Encoding.UTF8.GetBytes(Canary), "C-7");
        Assert.Equal(Canary, Encoding.UTF8.GetString(other.Database.Keys.Open(stored)!));

        Assert.True(Store.Database.Keys.Forget("C-7"));

        Assert.Null(other.Database.Keys.Open(stored));
        Assert.Null(Store.Database.Keys.Open(stored));
        Assert.NotEqual(before.Id, other.Database.Keys.OfCustomer("C-7").Id);
        Assert.Null(other.Database.Keys.Open(stored));
        Assert.Equal("C-7", Assert.Single(other.Database.Keys.Forgotten()).CustomerId);
        Assert.False(Store.Database.Keys.Forget("nobody"));
        Assert.Equal(["C-7", "nobody"], Store.Database.Keys.Forgotten().Select(one => one.CustomerId).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task What_is_personal_in_an_order_lies_in_no_table_and_is_read_back()
    {
        await Store.AppendAsync(Personal("k-1", "A-1"));

        Assert.Equal(-1, (await EverythingAsync()).AsSpan().IndexOf(Encoding.UTF8.GetBytes(Canary)));
        var placed = (OrderEvent.Placed)EventSerializer.Read(EventType.Placed, (await Store.Events.StreamAsync("A-1", Token))[0].Data.Span, Store.Database.Keys.Open);
        Assert.Equal((Canary, "Anna Muster", "DE"), (placed.Personal!.Email, placed.Personal.Name, placed.Personal.ShippingAddress!.Country));
    }

    [Fact]
    public async Task The_chain_fits_after_the_key_is_gone()
    {
        await Store.AppendAsync(Personal("k-1", "A-1"), Messages.Ship("k-2", "A-1"));

        Store.Database.Keys.Forget("C-7");

        Assert.Equal(0, (await new StoreVerification(Store.Database, Store.Events).RunAsync(repair: false, null, Token)).Wrong);
        var placed = (OrderEvent.Placed)EventSerializer.Read(EventType.Placed, (await Store.Events.StreamAsync("A-1", Token))[0].Data.Span, Store.Database.Keys.Open);
        Assert.True(placed.Personal!.IsForgotten);
    }

    [Fact]
    public async Task Who_says_nothing_personal_has_no_key()
    {
        await Store.AppendAsync(Messages.Place("k-1", "A-1"));

        Assert.False(Store.Database.Keys.Forget("C-7"));
    }

    [Fact]
    public async Task Bodies_lie_under_keys_until_they_are_read()
    {
        var early = Messages.Of("k-2", CommandType.Cancel, $$"""{"orderId":"A-9","reason":"{{Canary}}"}""");
        var broken = Messages.Of("k-3", CommandType.Place, $$"""{"orderId":"A-3","customerId":"C-7","note":"{{Canary}}"}""");
        await Store.AppendAsync(early, broken);
        Assert.Equal((Fate.Deferred, Fate.Rejected), (early.Fate, broken.Fate));
        var parking = new DeadLetterParking(Microsoft.Extensions.Options.Options.Create(new OrderService.Notifications.AlertsOptions()), TimeProvider.System);
        var (key, fingerprint) = EnvelopeDecoder.Identify(broken.Properties, broken.Body);
        await Store.Database.WriteAsync(transaction => parking.ParkAsync(
            transaction, DeadLetter.Of(key, fingerprint, new Rejection(RejectionReason.UnknownField, "No such member.", "/note"), null, broken.Body.ToArray(), broken.Properties)), Token);

        Assert.Equal(-1, (await EverythingAsync()).AsSpan().IndexOf(Encoding.UTF8.GetBytes(Canary)));
        var queries = new DeadLetterQueries(Store.Database, TimeProvider.System);
        Assert.Equal(broken.Body.ToArray(), (await queries.BodyAsync(1, Token))!.Bytes);
        Assert.Equal(broken.Body.Length, (await queries.GetAsync(1, Token))!.Letter.BodyBytes);
        await Store.AppendAsync(Messages.Place("k-1", "A-9"));
        Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED"], (await Store.Events.StreamAsync("A-9", Token)).Select(recorded => recorded.Type));

        Store.Database.Keys.Forget("C-7");

        var gone = (await queries.BodyAsync(1, Token))!;
        Assert.True(gone.IsForgotten);
        Assert.Empty(gone.Bytes);
    }

    [Fact]
    public async Task Letters_of_a_version_before_the_keys_are_sealed_afterwards()
    {
        var body = LetterWorld.Order("A-1", "C-7");
        var parking = new DeadLetterParking(Microsoft.Extensions.Options.Options.Create(new OrderService.Notifications.AlertsOptions()), TimeProvider.System);
        var properties = new MessageProperties { MessageId = "k-1", Type = CommandType.Place };
        var (key, fingerprint) = EnvelopeDecoder.Identify(properties, body);
        await Store.Database.WriteAsync(transaction => parking.ParkAsync(
            transaction, DeadLetter.Of(key, fingerprint, new Rejection(RejectionReason.InternalError, "It fails.", null), null, body, properties)), Token);
        await Store.Database.WriteAsync(
            transaction => transaction.ExecuteAsync("UPDATE dead_letters SET body = @body WHERE id = 1", new { body }), Token);
        await Store.Database.WriteAsync(transaction => transaction.ExecuteAsync("INSERT INTO plain_letters (id) VALUES (1)"), Token);
        var queries = new DeadLetterQueries(Store.Database, TimeProvider.System);
        Assert.Equal(body, (await queries.BodyAsync(1, Token))!.Bytes);
        Assert.Equal(body.Length, (await queries.GetAsync(1, Token))!.Letter.BodyBytes);

        Assert.Equal(1, await new PlainLetters(Store.Database, TimeProvider.System, NullLogger<PlainLetters>.Instance).SealSomeAsync(Token));

        Assert.Equal(0, await new PlainLetters(Store.Database, TimeProvider.System, NullLogger<PlainLetters>.Instance).SealSomeAsync(Token));
        Assert.Equal(body, (await queries.BodyAsync(1, Token))!.Bytes);
        Assert.Equal(body.Length, (await queries.GetAsync(1, Token))!.Letter.BodyBytes);
        Store.Database.Keys.Forget("C-7");
        Assert.True((await queries.BodyAsync(1, Token))!.IsForgotten);
    }

    [Fact]
    public async Task Another_master_key_wraps_the_same_keys_and_nothing_else_changes()
    {
        var stored = Store.Database.Keys.Seal(Encoding.UTF8.GetBytes(Canary), "C-7");
        var (first, second) = (Text(MasterKey.Create()), Text(MasterKey.Create()));
        var moved = await OpenAsync(new KeysOptions { MasterKey = first });
        Assert.Equal(1, moved.Database.Keys.Rotate());
        Assert.Equal(Canary, Encoding.UTF8.GetString(moved.Database.Keys.Open(stored)!));

        var rotated = await OpenAsync(new KeysOptions { MasterKey = second, Old = { new OldMasterKey { MasterKey = first } } });
        Assert.Equal(1, rotated.Database.Keys.Rotate());
        Assert.Equal(0, rotated.Database.Keys.Rotate());

        var alone = await OpenAsync(new KeysOptions { MasterKey = second });
        Assert.Equal(Canary, Encoding.UTF8.GetString(alone.Database.Keys.Open(stored)!));
        var refusal = await Assert.ThrowsAsync<StoreSettingsException>(async () =>
        {
            var stranger = await OpenAsync(new KeysOptions { MasterKey = first });
            await stranger.Database.MigrateAsync(Token);
        });
        Assert.Contains(MasterKey.Parse(second)!.Id, refusal.Message, StringComparison.Ordinal);
        Assert.Contains("Keys:MasterKeyFile", refusal.Message, StringComparison.Ordinal);
    }

    private static string Text(MasterKey master) => Convert.ToBase64String(master.Bytes);

    protected static Incoming Personal(string key, string orderId, string customer = "C-7") => Messages.Of(
        key, CommandType.Place,
        $$"""
        {"orderId":"{{orderId}}","customerId":"{{customer}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"{{Canary}}","name":"Anna Muster",
         "phone":"+49 221 000","shippingAddress":{"lines":["Am {{Canary}} 7"],"city":"Köln","postalCode":"50667","country":"DE"} }
        """);
}

public sealed class SqlitePersonalKeysTests : PersonalKeysContract
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-keys-").FullName;

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Keys_and_master_key_are_their_owners_alone()
    {
        Assert.All(["keys.db", "master.key"], file => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, ModeOf(Path.Combine(folder, file))));
    }

    private static UnixFileMode ModeOf(string path) =>
        OperatingSystem.IsWindows() ? UnixFileMode.UserRead | UnixFileMode.UserWrite : File.GetUnixFileMode(path);

    [Fact]
    public async Task A_destroyed_key_lies_in_no_file_any_more()
    {
        var database = Open(null).Database;
        await using var _ = database;
        database.Keys.OfCustomer("C-7");
        var wrapped = Wrapped();

        database.Keys.Forget("C-7");

        Assert.All(Directory.GetFiles(folder), file => Assert.Equal(-1, Read(file).AsSpan().IndexOf(wrapped)));
    }

    private byte[] Wrapped()
    {
        using var connection = new Microsoft.Data.Sqlite.SqliteConnection($"Data Source={Path.Combine(folder, "keys.db")};Pooling=False");
        connection.Open();
        using var command = connection.CreateCommand();
        command.CommandText = "SELECT wrapped FROM customer_keys WHERE subject = 'customer:C-7'";
        return (byte[])command.ExecuteScalar()!;
    }

    protected override Task<StoreInstance> OpenProcessAsync(KeysOptions? keys) => Task.FromResult(Open(keys));

    private StoreInstance Open(KeysOptions? keys)
    {
        var database = new SqliteDatabase(Path.Combine(folder, "orders.db"), TimeProvider.System, NullLogger<SqliteDatabase>.Instance, keys);
        return new StoreInstance(database, new SqliteOrderEventStore(database));
    }

    protected override Task<byte[]> EverythingAsync() => Task.FromResult(Directory.GetFiles(folder).SelectMany(Read).ToArray());

    private static byte[] Read(string file)
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        var bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }
}

public sealed class PostgresPersonalKeysTests(PostgresContainerFixture postgres) : PersonalKeysContract
{
    private string? connectionString;

    protected override async Task<StoreInstance> OpenProcessAsync(KeysOptions? keys)
    {
        var database = new PostgresDatabase(connectionString ??= await postgres.AddDatabaseAsync(), NullLogger<PostgresDatabase>.Instance, keys: keys);
        return new StoreInstance(database, new PostgresOrderEventStore(database, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance));
    }

    protected override async Task<byte[]> EverythingAsync()
    {
        await using var connection = new Npgsql.NpgsqlConnection(connectionString + ";Pooling=false");
        await connection.OpenAsync(Token);
        var tables = new List<string>();
        await using (var command = new Npgsql.NpgsqlCommand("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'orderservice_keys')", connection))
        await using (var reader = await command.ExecuteReaderAsync(Token))
        {
            while (await reader.ReadAsync(Token))
            {
                tables.Add(reader.GetString(0));
            }
        }
        var everything = new StringBuilder();
        foreach (var table in tables)
        {
            await using var command = new Npgsql.NpgsqlCommand($"SELECT to_jsonb(t)::text FROM {table} t", connection);
            await using var reader = await command.ExecuteReaderAsync(Token);
            while (await reader.ReadAsync(Token))
            {
                everything.AppendLine(reader.GetString(0));
            }
        }
        // Bytes are shown as \x and hex digits.
        var text = everything.ToString();
        var bytes = System.Text.RegularExpressions.Regex.Matches(text, @"\\\\x((?:[0-9a-f]{2})*)").SelectMany(match => Convert.FromHexString(match.Groups[1].Value));
        return [.. Encoding.UTF8.GetBytes(text), .. bytes];
    }
}
