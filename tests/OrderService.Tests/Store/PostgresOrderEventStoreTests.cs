using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

public sealed class PostgresOrderEventStoreTests(PostgresContainerFixture postgres) : OrderEventStoreContract
{
    private string connectionString = "";

    public override async ValueTask InitializeAsync()
    {
        connectionString = await postgres.AddDatabaseAsync();
        await base.InitializeAsync();
    }

    protected override Task<StoreInstance> OpenInstanceAsync() => Task.FromResult(PostgresInstance.Open(connectionString));

    protected override async Task<FreshDatabase> OpenFreshAsync()
    {
        var fresh = await postgres.AddDatabaseAsync();
        return new FreshDatabase(() => PostgresInstance.Open(fresh));
    }

    [Fact]
    public async Task Two_instances_that_decide_on_the_same_order_at_once_are_put_in_a_row()
    {
        var other = await OpenAsync();
        await Store.AppendAsync(Place("k-1", "A-1"));
        var ship = Ship("k-2", "A-1");
        var attempts = 0;

        await Store.AppendAsync([ship], attempt =>
        {
            attempts = attempt;
            if (attempt == 1)
            {
                other.AppendAsync(Cancel("k-3", "A-1")).GetAwaiter().GetResult();
            }
        });

        Assert.Equal(2, attempts);
        Assert.Equal(Fate.Refused, ship.Fate);
        Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED"], (await Store.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type));
        await AssertSoundAsync();
    }

    [Fact]
    public async Task Copies_of_a_message_at_two_instances_at_once_have_one_effect()
    {
        var other = await OpenAsync();
        var copy = Place("k-1", "A-1");
        var neighbour = Place("k-2", "A-2");

        await Store.AppendAsync([copy, neighbour], attempt =>
        {
            if (attempt == 1)
            {
                other.AppendAsync(Place("k-1", "A-1")).GetAwaiter().GetResult();
            }
        });

        Assert.Equal((Fate.Duplicate, Fate.Accepted), (copy.Fate, neighbour.Fate));
        Assert.Equal(2L, await CountAsync("events"));
        Assert.Equal(2L, await CountAsync("inbox"));
    }

    [Fact]
    public async Task An_order_that_is_placed_while_a_command_begins_to_wait_for_it_takes_the_command_along()
    {
        var other = await OpenAsync();
        var ship = Ship("k-2", "A-1");

        await Store.AppendAsync([ship], attempt =>
        {
            if (attempt == 1)
            {
                other.AppendAsync(Place("k-1", "A-1")).GetAwaiter().GetResult();
            }
        });

        Assert.Equal(Fate.Accepted, ship.Fate);
        Assert.Equal(0L, await CountAsync("deferred"));
    }

    [Fact]
    public async Task A_command_that_begins_to_wait_while_its_order_is_placed_is_decided_with_it()
    {
        var other = await OpenAsync();

        await Store.AppendAsync([Place("k-1", "A-1")], attempt =>
        {
            if (attempt == 1)
            {
                other.AppendAsync(Ship("k-2", "A-1")).GetAwaiter().GetResult();
            }
        });

        Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], (await Store.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type));
        Assert.Equal(0L, await CountAsync("deferred"));
        Assert.Equal(1L, (await InboxAsync("k-2")).Outcome);
    }

    [Fact]
    public async Task A_command_that_expires_while_its_order_is_placed_is_decided_once()
    {
        var other = await OpenAsync();
        await Store.AppendAsync(Ship("k-2", "A-1"));

        await Store.AppendAsync([Place("k-1", "A-1")], attempt =>
        {
            if (attempt == 1)
            {
                ExpireAsync(other, "k-2").GetAwaiter().GetResult();
            }
        });

        Assert.Equal("ORDER_PLACED", Assert.Single(await Store.Events.StreamAsync("A-1", Token)).Type);
        Assert.Equal(4L, (await InboxAsync("k-2")).Outcome);
    }

    [Fact]
    public async Task An_instance_that_freezes_in_the_middle_of_an_append_does_not_hold_up_the_others()
    {
        await using var frozen = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(connectionString) { ApplicationName = "orderservice-frozen", Pooling = false }.ToString());
        await frozen.OpenAsync(Token);
        await using var half = await frozen.BeginTransactionAsync(Token);
        await frozen.ExecuteAsync("INSERT INTO inbox (key, fingerprint, outcome, decided_at) VALUES ('k-1', '', 1, 1)", null, half);
        var copy = Place("k-1", "A-1");

        await Store.AppendAsync(copy);

        Assert.Equal(Fate.Accepted, copy.Fate);
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => half.CommitAsync(Token));
        Assert.Equal(copy.Fingerprint(), (await InboxAsync("k-1")).Fingerprint);
    }

    [Fact]
    public async Task A_message_is_to_blame_only_for_what_PostgreSQL_says_about_its_values()
    {
        var letter = Place("k-1", "A-1");
        var broken = new Incoming(letter.Decoded, letter.Body, letter.Properties);
        await Assert.ThrowsAsync<StoreRefusedException>(() => Store.Log.AppendAsync(
            new OrderService.Store.BatchQuery([], []),
            _ =>
            {
                var append = new OrderService.Store.Append();
                append.History.Add(new OrderService.Store.HistoryRow("A-1", "a\0b", 1, "duplicate", broken.Properties.Type!));
                return append;
            },
            Token));
        await Store.Database.WriteAsync(transaction => transaction.ExecuteAsync("ALTER TABLE history RENAME TO elsewhere"), Token);

        await Store.AppendAsync(letter);
        await Assert.ThrowsAsync<StoreUnavailableException>(() => Store.AppendAsync(Ship("k-2", "A-2")));
    }

    [Fact]
    public async Task Serializable_as_the_databases_default_changes_nothing()
    {
        await ExecuteDirectlyAsync("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$");
        var instances = new[] { await OpenAsync(), await OpenAsync() };

        // Fifty messages on five orders from two instances at once.
        await Task.WhenAll(instances.Select((instance, index) => Task.Run(async () =>
        {
            for (var round = 0; round < 5; round++)
            {
                await instance.AppendAsync([.. Enumerable.Range(0, 5).Select(order => Place($"p-{order}-{index}-{round}", $"A-{order}"))]);
            }
        }, Token)));

        Assert.Equal(5L, await CountAsync("events"));
        Assert.Equal(50L, await CountAsync("inbox"));
    }

    [Fact]
    public async Task A_start_is_refused_with_the_setting_that_does_not_keep_what_was_committed()
    {
        foreach (var setting in new[] { "off", "local" })
        {
            await using var careless = PostgresInstance.Open(connectionString + $";Options=-c synchronous_commit={setting}");
            var refused = await Assert.ThrowsAsync<StoreSettingsException>(() => careless.Database.MigrateAsync(Token));
            Assert.Contains("synchronous_commit", refused.Message, StringComparison.Ordinal);
            Assert.Contains(setting, refused.Message, StringComparison.Ordinal);
        }

        var wrong = new NpgsqlConnectionStringBuilder(connectionString) { Password = "not-the-password" }.ToString();
        await using var locked = PostgresInstance.Open(wrong);
        var shut = await Assert.ThrowsAsync<StoreSettingsException>(() => locked.Database.MigrateAsync(Token));
        Assert.Contains("Store:ConnectionString", shut.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("not-the-password", shut.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_connection_string_that_cannot_be_used_is_named_without_its_words()
    {
        Assert.Contains("Store:ConnectionString", PostgresDatabase.Problem(null, allowPlaintext: true), StringComparison.Ordinal);
        Assert.Contains("Host", PostgresDatabase.Problem("Database=orders", allowPlaintext: true), StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", PostgresDatabase.Problem("Host=db;Passwort=s3cret", allowPlaintext: true)!, StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", PostgresDatabase.Problem("Host=db;Port=s3cret", allowPlaintext: true)!, StringComparison.Ordinal);
        Assert.Contains(
            "Target Session Attributes=prefer-standby", PostgresDatabase.Problem("Host=db1,db2;Target Session Attributes=prefer-standby", allowPlaintext: true), StringComparison.Ordinal);
        Assert.Null(PostgresDatabase.Problem("Host=db1,db2:5433;Target Session Attributes=read-write", allowPlaintext: true));
        Assert.Null(PostgresDatabase.Problem("Host=db;Database=orders;Username=orders;Password=s3cret", allowPlaintext: true));
    }

    [Fact]
    public async Task A_newer_schema_stops_the_start()
    {
        await ExecuteDirectlyAsync("INSERT INTO schema_version (number, name) VALUES (999, 'later')");

        await Assert.ThrowsAsync<StoreSettingsException>(() => Store.Database.MigrateAsync(Token));
    }

    [Fact]
    public async Task A_server_that_is_not_there_is_trouble_of_the_store()
    {
        await using var nowhere = PostgresInstance.Open("Host=127.0.0.1;Port=1;Database=orders;Username=orders");

        await Assert.ThrowsAsync<StoreUnavailableException>(() => nowhere.Database.MigrateAsync(Token));
        await Assert.ThrowsAsync<StoreUnavailableException>(() => nowhere.AppendAsync(Place("k-1", "A-1")));
    }

    private async Task ExecuteDirectlyAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(connectionString + ";Pooling=false");
        await connection.ExecuteAsync(sql);
    }
}

internal static class PostgresInstance
{
    public static StoreInstance Open(string connectionString)
    {
        var database = new PostgresDatabase(connectionString, NullLogger<PostgresDatabase>.Instance);
        return new StoreInstance(database, new PostgresOrderEventStore(database, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance));
    }
}
