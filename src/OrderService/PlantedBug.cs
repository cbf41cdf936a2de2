using System.Diagnostics;

namespace OrderService;

/// <summary>
/// A mistake that somebody could make here, planted to see whether <c>eng/chaos</c> finds it (<c>eng/chaos --self-test</c>, docs/chaos.md). Only a build with <c>PLANTED_BUGS</c> has any:
/// elsewhere neither the calls nor the switch are in the binary, which ArchitectureTests prove.
/// </summary>
internal static class PlantedBug
{
#if PLANTED_BUGS
    private static readonly string? Planted = Environment.GetEnvironmentVariable("ORDERSERVICE_PLANTED_BUG");
#endif

    /// <summary>Runs <paramref name="bug"/> when it is the one that was asked for.</summary>
    [Conditional("PLANTED_BUGS")]
    public static void Plant(string name, Action bug)
    {
#if PLANTED_BUGS
        if (Planted == name)
        {
            bug();
        }
#endif
    }
}
