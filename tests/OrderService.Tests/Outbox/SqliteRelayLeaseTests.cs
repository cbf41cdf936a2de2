using OrderService.Database;

namespace OrderService.Tests.Outbox;

public sealed class SqliteRelayLeaseTests : IDisposable
{
    private static readonly HashSet<int> Idle = [];
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-lease-").FullName;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Store => Path.Combine(folder, "orders.db");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public async Task Each_holder_has_a_higher_epoch_than_the_one_before_and_keeps_it()
    {
        for (var holder = 1; holder <= 11; holder++)
        {
            await using var lease = new SqliteRelayLease(Store);
            Assert.Equal(16, (await lease.RenewAsync(Idle, Token)).Count);
            Assert.Equal(holder, lease.EpochOf(0));
            await lease.RenewAsync(Idle, Token);
            Assert.Equal(holder, lease.EpochOf(15));

            await using var second = new SqliteRelayLease(Store);
            Assert.Empty(await second.RenewAsync(Idle, Token));
            Assert.Equal(0, second.EpochOf(0));
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("no number")]
    public async Task A_file_that_says_no_number_begins_again(string text)
    {
        await File.WriteAllTextAsync(Store + ".relay", text, Token);
        await using var lease = new SqliteRelayLease(Store);

        await lease.RenewAsync(Idle, Token);

        Assert.Equal(1, lease.EpochOf(7));
    }
}
