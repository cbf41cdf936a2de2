using System.Text;
using OrderService.Inbox;

namespace OrderService.Tests.Inbox;

public sealed class RecurringTextTests
{
    [Fact]
    public void A_text_is_its_own_however_many_others_there_are()
    {
        // Many more than there are places, in parallel: most take the place of another one.
        Parallel.For(0, 100_000, number =>
        {
            var text = $"KB-{number}";
            Assert.Equal(text, RecurringText.Of(Encoding.ASCII.GetBytes(text)));
        });
    }
}
