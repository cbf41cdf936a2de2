using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Tests.Inbox;

/// <summary>Who is to blame: the rule, and how a station applies it.</summary>
public sealed class BlameTests
{
    private readonly Troubles troubles = new(new FakeTimeProvider());
    private readonly List<int> done = [];
    private readonly List<int> givenUp = [];
    private int tries;

    /// <summary>What the store refuses.</summary>
    private Func<int, Exception?> fails = static _ => null;

    /// <summary>What is known to be good fails with it: in the commonest transaction, and in any.</summary>
    private (Exception? Plain, Exception? Any) knownGood;

    private Exception? givingUp;
    private bool aloneInHand = true;

    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    private static StoreRefusedException Refusal => new("The store refuses it (23514, constraint c of t).", "23514", "constraint c of t");

    [Fact]
    public async Task What_fails_alone_while_its_neighbours_succeed_is_blamed_and_found_in_few_attempts()
    {
        fails = static item => item == 700 ? Refusal : null;

        var held = await Blame().DoAsync([.. Enumerable.Range(0, 1000)], again: false, Stopping);

        Assert.True(held.IsNothing);
        Assert.Equal([700], givenUp);
        Assert.Equal(999, done.Count);
        Assert.False(troubles.Stands("store:test"));
    }

    [Fact]
    public async Task Where_what_is_known_to_be_good_fails_too_all_are_held_at_once_and_none_is_tried_alone()
    {
        fails = static _ => Refusal;
        knownGood.Plain = Refusal;

        var held = await Blame().DoAsync([.. Enumerable.Range(0, 1000)], again: false, Stopping);

        Assert.Equal((true, 1000), (held.All, held.Items.Count));
        Assert.Equal(1, tries);
        Assert.Empty(givenUp);
        var trouble = Assert.Single(troubles.Standing).Trouble;
        Assert.Equal(("store:test", TroubleLevel.NotReady), (trouble.Key, trouble.Level));
        Assert.Contains("23514, constraint c of t", trouble.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_lone_one_is_blamed_only_if_something_known_to_be_good_goes_through_in_every_kind_of_transaction()
    {
        fails = static _ => Refusal;
        knownGood.Any = Refusal;
        var blame = Blame();

        Assert.Equal([1], (await blame.DoAsync([1], again: false, Stopping)).Items);
        Assert.Empty(givenUp);
        knownGood.Any = null;

        Assert.True((await blame.DoAsync([1], again: true, Stopping)).IsNothing);
        Assert.Equal([1], givenUp);
    }

    [Fact]
    public async Task Many_in_a_row_that_the_store_refuses_are_held_though_what_is_known_to_be_good_goes_through()
    {
        // A rule that somebody made for the orders of customers, which the known good order does not meet.
        fails = static item => item < 100 ? Refusal : null;
        var blame = Blame();

        Assert.Equal([1, 2, 3], (await blame.DoAsync([1, 2, 3], again: false, Stopping)).Items);
        Assert.Equal([4], (await blame.DoAsync([4], again: false, Stopping)).Items);
        Assert.Empty(givenUp);

        // Once others go through, those that still fail are at fault.
        Assert.True((await blame.DoAsync([100], again: false, Stopping)).IsNothing);
        Assert.True((await blame.DoAsync([1, 2, 3, 4], again: true, Stopping)).IsNothing);
        Assert.Equal([1, 2, 3, 4], givenUp);
    }

    [Fact]
    public async Task Many_that_fail_by_a_mistake_of_ours_are_each_given_up()
    {
        fails = static item => item < 10 ? new InvalidOperationException("secret") : null;

        Assert.True((await Blame().DoAsync([.. Enumerable.Range(0, 10)], again: false, Stopping)).IsNothing);

        Assert.Equal(10, givenUp.Count);
    }

    [Fact]
    public async Task What_can_not_be_given_up_either_is_held()
    {
        fails = static item => item == 2 ? new InvalidOperationException("secret") : null;
        givingUp = Refusal;

        var held = await Blame().DoAsync([1, 2, 3], again: false, Stopping);

        Assert.Equal((false, 2), (held.All, Assert.Single(held.Items)));
        Assert.Equal([1, 3], done);
        Assert.DoesNotContain("secret", Assert.Single(troubles.Standing).Trouble.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Out_of_memory_is_nobodys_fault_while_anything_else_is_in_hand()
    {
        fails = static _ => new InsufficientMemoryException();
        aloneInHand = false;
        var blame = Blame();

        Assert.Equal([1, 2, 3], (await blame.DoAsync([1, 2, 3], again: false, Stopping)).Items);
        Assert.Empty(givenUp);
        aloneInHand = true;

        Assert.True((await blame.DoAsync([1], again: true, Stopping)).IsNothing);
        Assert.Equal([1], givenUp);
    }

    [Fact]
    public async Task That_the_store_is_out_of_reach_is_no_matter_of_blame()
    {
        fails = static _ => new StoreUnavailableException("away");

        await Assert.ThrowsAsync<StoreUnavailableException>(() => Blame().DoAsync([1], again: false, Stopping));

        Assert.Empty(givenUp);
    }

    private Blame<int> Blame() => new(
        new BlamedWork<int>(
            "test", "Things", TroubleLevel.NotReady,
            (items, _) =>
            {
                tries++;
                if (items.Select(fails).FirstOrDefault(failure => failure is not null) is { } failure)
                {
                    throw failure;
                }
                done.AddRange(items);
                return Task.CompletedTask;
            },
            (item, _, _) =>
            {
                if (givingUp is not null)
                {
                    throw givingUp;
                }
                givenUp.Add(item);
                return Task.CompletedTask;
            },
            (everything, _) => (everything ? knownGood.Any ?? knownGood.Plain : knownGood.Plain) is { } failure ? throw failure : Task.CompletedTask)
        {
            IsAloneInHand = () => aloneInHand,
        },
        troubles, NullLogger.Instance);
}
