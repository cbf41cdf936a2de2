using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Customers;
using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.DeadLetters;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Store;

/// <summary>A customer is forgotten, kept, and given out. A subclass for each database.</summary>
public abstract class ForgettingContract : IAsyncLifetime
{
    private const string Canary = "canary-person@pii.example";

    private TestStore store = null!;

    protected TestStore Store => store;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private CustomerForgetting Forgetting => new(store.Database, TimeProvider.System, NullLogger<CustomerForgetting>.Instance);

    public async ValueTask InitializeAsync() => store = await OpenAsync();

    public async ValueTask DisposeAsync() => await store.DisposeAsync();

    protected abstract Task<TestStore> OpenAsync();

    /// <summary>Looks for a text in everything that lies in the store.</summary>
    protected abstract Task<bool> HoldsAsync(string text);

    [Fact]
    public async Task A_forgotten_customer_is_in_no_order_no_letter_and_no_file_and_the_store_verifies()
    {
        await PlaceAsync("A-1", "C-7");
        await PlaceOfBeforeAsync("A-2", "C-7");
        await ParkOfBeforeAsync("A-3", "C-7");
        await PlaceAsync("B-1", "C-8");
        Assert.True(await HoldsAsync(Canary));

        var done = Assert.IsType<ForgetAnswer.Forgotten>(await Forgetting.ForgetAsync("C-7", "ann", "he asked", Token));

        Assert.Equal(new ForgetAnswer.Forgotten(2, 1, 1), done);
        Assert.False(await HoldsAsync(Canary));
        var report = await new StoreVerification(store.Database, new EventQueries(store.Database)).RunAsync(repair: false, null, Token);
        Assert.Equal((3, 0), (report.Orders, report.Wrong));
        Assert.True((await PersonalAsync("A-1"))!.IsForgotten);
        Assert.True((await PersonalAsync("A-2"))!.IsForgotten);
        Assert.Equal("other@pii.example", (await PersonalAsync("B-1"))!.Email);
        Assert.True((await new DeadLetterQueries(store.Database, TimeProvider.System).BodyAsync(1, Token))!.IsForgotten);
        Assert.Equal("customer.forget he asked", await store.ScalarAsync<string>("SELECT action || ' ' || detail FROM audit"));
    }

    [Fact]
    public async Task A_later_order_of_the_same_customer_has_a_key_of_its_own()
    {
        await PlaceAsync("A-1", "C-7");
        await Forgetting.ForgetAsync("C-7", "ann", "", Token);

        await PlaceAsync("A-2", "C-7");

        Assert.True((await PersonalAsync("A-1"))!.IsForgotten);
        Assert.Equal(Canary, (await PersonalAsync("A-2"))!.Email);
        // What is done is not done again to what came later.
        Assert.Equal(0, await Forgetting.ApplyAgainAsync(Token));
        Assert.Equal(Canary, (await PersonalAsync("A-2"))!.Email);
    }

    [Fact]
    public async Task A_redaction_that_nobody_signed_is_found()
    {
        await PlaceOfBeforeAsync("A-2", "C-7");
        await Forgetting.ForgetAsync("C-7", "ann", "", Token);
        var verification = new StoreVerification(store.Database, new EventQueries(store.Database));
        Assert.Equal(0, (await verification.RunAsync(repair: false, null, Token)).Wrong);

        await store.ExecuteAsync("UPDATE redactions SET signature = data_hash");

        var found = Assert.Single((await verification.RunAsync(repair: false, null, Token)).Findings);
        Assert.Contains("A-2", found, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Data_that_is_changed_after_a_redaction_is_found()
    {
        await PlaceOfBeforeAsync("A-2", "C-7");
        await Forgetting.ForgetAsync("C-7", "ann", "", Token);
        var data = await store.ScalarAsync<byte[]>("SELECT data FROM events");

        await store.ExecuteAsync("UPDATE events SET data = @data", new { data = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(data!).Replace("99.80", "98.80", StringComparison.Ordinal)) });

        Assert.NotEqual(0, (await new StoreVerification(store.Database, new EventQueries(store.Database)).RunAsync(repair: false, null, Token)).Wrong);
    }

    [Fact]
    public async Task A_store_that_is_put_back_from_a_backup_forgets_again()
    {
        await PlaceOfBeforeAsync("A-2", "C-7");
        var before = await store.ScalarAsync<byte[]>("SELECT data FROM events");
        await Forgetting.ForgetAsync("C-7", "ann", "", Token);
        // As a backup of before has it.
        await store.ExecuteAsync("UPDATE events SET data = @before", new { before });
        await store.ExecuteAsync("DELETE FROM redactions");
        await store.ExecuteAsync("DELETE FROM forgotten_customers");
        Assert.Equal(Canary, (await PersonalAsync("A-2"))!.Email);

        Assert.Equal(1, await Forgetting.ApplyAgainAsync(Token));

        Assert.True((await PersonalAsync("A-2"))!.IsForgotten);
        Assert.Equal(0, (await new StoreVerification(store.Database, new EventQueries(store.Database)).RunAsync(repair: false, null, Token)).Wrong);
        Assert.Equal(0, await Forgetting.ApplyAgainAsync(Token));
    }

    [Fact]
    public async Task Whoever_is_held_is_not_forgotten_and_the_reason_is_said()
    {
        await PlaceAsync("A-1", "C-7");
        var holds = new CustomerHolds(store.Database, TimeProvider.System);
        await holds.HoldAsync("C-7", "ben", "Court case 7 O 12/26", Token);

        var held = Assert.IsType<ForgetAnswer.Held>(await Forgetting.ForgetAsync("C-7", "ann", "he asked", Token));

        Assert.Equal(("Court case 7 O 12/26", "ben"), (held.Hold.Reason, held.Hold.HeldBy));
        Assert.Equal(Canary, (await PersonalAsync("A-1"))!.Email);
        Assert.True(await holds.UnholdAsync("C-7", "ben", "closed", Token));
        Assert.False(await holds.UnholdAsync("C-7", "ben", "closed", Token));
        Assert.IsType<ForgetAnswer.Forgotten>(await Forgetting.ForgetAsync("C-7", "ann", "he asked", Token));
        Assert.Equal(["customer.hold", "customer.unhold", "customer.forget"], await store.QueryAsync<string>("SELECT action FROM audit ORDER BY id"));
    }

    [Fact]
    public async Task Everything_about_a_customer_is_given_out_and_nothing_about_others()
    {
        await PlaceAsync("A-1", "C-7");
        await PlaceAsync("B-1", "C-8");
        await ParkOfBeforeAsync("A-3", "C-7");

        var export = await ExportAsync("C-7");
        await Forgetting.ForgetAsync("C-7", "ann", "", Token);
        var after = await ExportAsync("C-7");

        Assert.Equal(Canary, export.GetProperty("orders")[0].GetProperty("events")[0].GetProperty("data").GetProperty("email").GetString());
        Assert.Contains(Canary, export.GetProperty("deadLetters")[0].GetProperty("body").GetString(), StringComparison.Ordinal);
        Assert.Equal((1, 1), (export.GetProperty("orders").GetArrayLength(), export.GetProperty("deadLetters").GetArrayLength()));
        Assert.DoesNotContain("other@pii.example", export.GetRawText(), StringComparison.Ordinal);
        Assert.DoesNotContain(Canary, after.GetRawText(), StringComparison.Ordinal);
        Assert.True(after.GetProperty("deadLetters")[0].GetProperty("forgotten").GetBoolean());
        Assert.Equal(1, after.GetProperty("forgotten").GetArrayLength());
    }

    private async Task<JsonElement> ExportAsync(string customerId)
    {
        using var output = new MemoryStream();
        await new CustomerExport(store.Database, new EventQueries(store.Database), TimeProvider.System).WriteAsync(customerId, output, Token);
        return JsonDocument.Parse(output.ToArray()).RootElement.Clone();
    }

    private async Task<PersonalData?> PersonalAsync(string orderId) => ((OrderEvent.Placed)EventSerializer.Read(
        EventType.Placed, (await new EventQueries(store.Database).StreamAsync(orderId, Token))[0].Data.Span, store.Database.Keys.Open)).Personal;

    private Task PlaceAsync(string orderId, string customer)
    {
        var email = customer == "C-7" ? Canary : "other@pii.example";
        var incoming = Messages.Of(
            $"k-{orderId}", CommandType.Place,
            $$"""{"orderId":"{{orderId}}","customerId":"{{customer}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"{{email}}"}""");
        return new StoreInstance(store.Database, store.Log).AppendAsync(incoming);
    }

    /// <summary>An order as a version before the keys wrote it: the e-mail address in plain, under the hash.</summary>
    private async Task PlaceOfBeforeAsync(string orderId, string customer)
    {
        var data = Encoding.UTF8.GetBytes(
            $$"""{"customerId":"{{customer}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"total":99.80,"email":"{{Canary}}"}""");
        var hash = EventHash.Next(EventHash.Genesis, orderId, 1, EventType.Placed, data, "c", $"k-{orderId}", null, StoreInstance.Now - 1_000_000_000_000);
        await store.Log.AppendAsync(
            new BatchQuery([$"k-{orderId}"], [orderId]),
            _ =>
            {
                var append = new Append();
                append.Events.Add(new RecordedEvent(orderId, 1, EventType.Placed, data, "c", $"k-{orderId}", null, StoreInstance.Now - 1_000_000_000_000, hash));
                append.Heads.Add(new HeadChange(orderId, 0, 1, OrderStatus.Placed, customer, "EUR", 99_80, 1, StoreInstance.Now - 1_000_000_000_000, hash));
                return append;
            },
            Token);
    }

    /// <summary>A dead letter as a version before the keys parked it.</summary>
    private async Task ParkOfBeforeAsync(string orderId, string customer)
    {
        var body = Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}","customerId":"{{customer}}","note":"{{Canary}}"}""");
        var properties = new MessageProperties { MessageId = $"k-{orderId}", Type = CommandType.Place };
        var (key, fingerprint) = EnvelopeDecoder.Identify(properties, body);
        var parking = new DeadLetterParking(Microsoft.Extensions.Options.Options.Create(new AlertsOptions()), TimeProvider.System);
        await store.Database.WriteAsync(transaction => parking.ParkAsync(
            transaction, DeadLetter.Of(key, fingerprint, new Rejection(RejectionReason.UnknownField, "No such member.", "/note"), null, body, properties)), Token);
        await store.ExecuteAsync("UPDATE dead_letters SET body = @body WHERE key = @key", new { body, key });
        await store.ExecuteAsync("INSERT INTO plain_letters (id) SELECT id FROM dead_letters WHERE key = @key", new { key });
    }
}

public sealed class SqliteForgettingTests : ForgettingContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync();

    protected override Task<bool> HoldsAsync(string text) => Task.FromResult(Directory.GetFiles(Store.Folder!).Any(file =>
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        var bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes.AsSpan().IndexOf(Encoding.UTF8.GetBytes(text)) >= 0;
    }));
}

public sealed class PostgresForgettingTests(PostgresContainerFixture postgres) : ForgettingContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync(postgres);

    protected override async Task<bool> HoldsAsync(string text)
    {
        var hex = Convert.ToHexStringLower(Encoding.UTF8.GetBytes(text));
        foreach (var table in await Store.QueryAsync<string>("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'orderservice_keys')"))
        {
            if (await Store.ScalarAsync<bool>($"SELECT EXISTS (SELECT 1 FROM {table} t WHERE to_jsonb(t)::text LIKE '%' || @text || '%' OR to_jsonb(t)::text LIKE '%' || @hex || '%')", new { text, hex }))
            {
                return true;
            }
        }
        return false;
    }
}
