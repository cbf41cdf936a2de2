namespace OrderService.Chaos.Faults;

/// <summary>Those who are to hear of dead letters don't, or there are very many.</summary>
internal static class AlertFaults
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        Fault.Usual("webhook-fails", "F55", "The alerts' receiver answers 500 for 20 s.", RefuseAsync),
        Fault.Usual("letter-storm", "F56", "Ten thousand broken messages at once.", StormAsync),
    ];

    private static async Task<string> RefuseAsync(Trial trial)
    {
        trial.Receiver.Status = 500;
        // A new incident tells at once.
        await trial.Load.SendAsync(trial.World, [SentMessage.Of("order.dance", "DANCE-1", "{}", "unknown_command")]);
        await Trial.LastAsync(20);
        var refused = trial.Receiver.Refused;
        trial.Receiver.Status = 200;
        return refused > 0 ? $"{refused} alerts were refused" : throw new ChaosException("No alert came that could be refused.");
    }

    private static async Task<string> StormAsync(Trial trial)
    {
        var before = trial.Receiver.Heard.Count;
        await trial.Load.SendAsync(trial.World, Enumerable.Range(0, 10_000).Select(number => SentMessage.Malformed($"STORM-{number}")));
        trial.Figures.Add($"{trial.Receiver.Heard.Count - before} alerts while the storm was sent");
        return "10,000 broken messages were confirmed";
    }
}
