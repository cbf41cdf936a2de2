using System.Diagnostics;

namespace OrderService;

/// <summary>
/// A named point at which a test makes the process die, throw or hang. Exists in debug builds only: a release build has neither the calls
/// nor the switch, which ArchitectureTests prove on the binary.
/// </summary>
internal static class Failpoint
{
#if FAILPOINTS
    // name=action or name=action@subject; actions kill, throw, hang; several separated by ';'.
    private static readonly (string Name, string Action, string? Subject)[] Armed = Parse(Environment.GetEnvironmentVariable("ORDERSERVICE_FAILPOINT"));

    private static (string, string, string?)[] Parse(string? text) =>
        [.. (text ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries).Select(part =>
        {
            var (name, rest) = (part[..part.IndexOf('=', StringComparison.Ordinal)], part[(part.IndexOf('=', StringComparison.Ordinal) + 1)..]);
            var at = rest.IndexOf('@', StringComparison.Ordinal);
            return at < 0 ? (name, rest, (string?)null) : (name, rest[..at], rest[(at + 1)..]);
        })];
#endif

    /// <param name="subject">What the point is passed with, such as an order id; a failpoint that names a subject fires for that one alone.</param>
    [Conditional("FAILPOINTS")]
    public static void Hit(string name, string? subject = null)
    {
#if FAILPOINTS
        foreach (var (armed, action, only) in Armed)
        {
            if (armed != name || (only is not null && only != subject))
            {
                continue;
            }
            switch (action)
            {
                case "kill":
                    // SIGKILL: no finally block, no flush, as when the machine loses its power.
                    Process.GetCurrentProcess().Kill();
                    Thread.Sleep(Timeout.Infinite);
                    break;
                case "hang":
                    Thread.Sleep(Timeout.Infinite);
                    break;
                default:
                    throw new InvalidOperationException($"Failpoint {name}.");
            }
        }
#endif
    }
}
