using OrderService.Observability;

namespace OrderService.Notifications;

/// <summary>
/// Alerts that leave without the store, when it is the store that fails: kept in memory, one for each trouble, and tried on each of this process's channels until it has taken it.
/// What is left when the store works again is handed over to it.
/// </summary>
internal sealed partial class DirectAlerts(IReadOnlyList<INotificationChannel> channels, AlertsOptions options, OrderMetrics metrics, TimeProvider clock, ILogger logger)
{
    private readonly Dictionary<string, Letter> letters = new(StringComparer.Ordinal);
    private long number;

    public IEnumerable<string> Channels => channels.Select(channel => channel.Name);

    /// <summary>Everything that the store does not know yet.</summary>
    public IReadOnlyList<Letter> Unsaved => [.. letters.Values.Where(letter => letter.Attempts > 0)];

    /// <summary>Adds an alert; one of the same trouble that is still on its way is replaced by it.</summary>
    public void Add(string key, AlertContent content)
    {
        var now = clock.GetUtcNow();
        var alert = new Alert(--number, content.Kind, null, AlertText.Line(content.Subject), AlertText.Plain(content), content, content.Letters, now) { Sender = Guid.NewGuid().ToString("N")[..8] };
        letters[key] = new Letter(key, alert) { DueAt = clock.GetTimestamp() };
    }

    /// <summary>The store has them.</summary>
    public void Saved(IEnumerable<Letter> saved)
    {
        foreach (var letter in saved)
        {
            if (letters.GetValueOrDefault(letter.Key) == letter)
            {
                letters.Remove(letter.Key);
            }
        }
    }

    /// <summary>Tries what is due.</summary>
    public async Task SendAsync(CancellationToken cancellationToken)
    {
        foreach (var letter in letters.Values.Where(letter => letter.DueAt <= clock.GetTimestamp() && letter.Served.Count < channels.Count).ToList())
        {
            letter.Attempts++;
            await Task.WhenAll(channels.Where(channel => channel.Name != options.Fallback).Select(channel => TryAsync(channel, letter, cancellationToken)));
            if (channels.FirstOrDefault(channel => channel.Name == options.Fallback) is { } fallback)
            {
                if (letter.Served.Keys.Any(name => name != "log"))
                {
                    letter.Served.TryAdd(fallback.Name, null);
                }
                else
                {
                    await TryAsync(fallback, letter, cancellationToken);
                }
            }
            letter.DueAt = clock.GetTimestamp() + (long)(Backoff.Pause(letter.Attempts, options).TotalSeconds * clock.TimestampFrequency);
        }
    }

    private async Task TryAsync(INotificationChannel channel, Letter letter, CancellationToken cancellationToken)
    {
        lock (letter)
        {
            if (letter.Served.ContainsKey(channel.Name))
            {
                return;
            }
        }
        ChannelAnswer answer;
        try
        {
            answer = await channel.SendAsync(letter.Alert with { Recipients = letter.Recipients.GetValueOrDefault(channel.Name) }, cancellationToken);
        }
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
        {
            answer = new ChannelAnswer.Retry($"{exception.GetType().Name}: {AlertText.Line(exception.Message)}");
        }
        lock (letter)
        {
            letter.Recipients[channel.Name] = answer.Recipients;
            if (answer is ChannelAnswer.Sent)
            {
                letter.Served.Add(channel.Name, clock.GetUtcNow());
                metrics.AlertSent(channel.Name, "sent");
                return;
            }
        }
        metrics.AlertSent(channel.Name, "retried");
        LogRetry(channel.Name, letter.Alert.Subject, answer.Text ?? "");
    }

    [LoggerMessage(LogLevel.Warning, "An alert that needs no store did not leave by {Channel} and is tried again: {Subject}: {Reason}")]
    private partial void LogRetry(string channel, string subject, string reason);

    /// <summary>One alert on its way.</summary>
    internal sealed class Letter(string key, Alert alert)
    {
        public string Key => key;
        public Alert Alert => alert;
        public int Attempts { get; set; }
        public long DueAt { get; set; }

        /// <summary>Which channels took it, and when; null for a fallback that was not needed.</summary>
        public Dictionary<string, DateTimeOffset?> Served { get; } = [];

        /// <summary>What a channel noted of its recipients.</summary>
        public Dictionary<string, string?> Recipients { get; } = [];
    }
}
