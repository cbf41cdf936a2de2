using System.Diagnostics;
using Microsoft.Extensions.Options;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Alerts that were sent, the channels, and a test of a channel.</summary>
internal static class AlertEndpoints
{
    private static readonly TimeSpan TestPatience = TimeSpan.FromSeconds(40);

    public static void MapAlerts(this IEndpointRouteBuilder api)
    {
        var alerts = api.MapGroup("/alerts").RequireAuthorization(Scopes.Read).WithTags("Alerts");
        alerts.MapGet("", ListAsync).WithName("alerts").WithSummary("Alerts with what became of them on each channel, newest first.").Produces<Page<AlertRecord>>().ProducesProblem(400);
        alerts.MapGet("/channels", ChannelsAsync).WithName("alerts.channels").WithSummary("The channels: where they lead and how they did last.").Produces<Page<ChannelView>>();
        alerts.MapPost("/test", TestAsync).Within(limits => limits.Tests, "test alerts").RequireAuthorization(Scopes.Operate).WithName("alerts.test")
            .WithSummary("Sends a test alert through one channel at once and says what the other side answered.").Accepts<TestRequest>("application/json").Produces<TestAnswer>().ProducesProblem(404).ProducesProblem(409);
    }

    private static async Task<IResult> ListAsync(HttpContext context, AlertQueries alerts, string? after, string? limit)
    {
        if (Paging.Read(context, "alerts", out var problem) is not { } page)
        {
            return problem;
        }
        var size = Math.Min(page.Limit, 199);
        var found = await alerts.ListAsync(page.After, size + 1, context.RequestAborted);
        return TypedResults.Ok(new Page<AlertRecord>([.. found.Take(size)], found.Count > size ? Paging.Encode("alerts", found[size - 1].Id) : null));
    }

    private static async Task<IResult> ChannelsAsync(HttpContext context, IDatabase database, IOptions<AlertsOptions> options)
    {
        var (counts, found, channels) = await database.ReadAsync(
            async connection => (await DeliveriesTable.CountsAsync(connection), await DeliveriesTable.ErrorsAsync(connection, 200), await ChannelsTable.ListAsync(connection)), context.RequestAborted);
        var rows = counts.ToDictionary(row => row.Channel);
        var errors = found.GroupBy(row => row.Channel).ToDictionary(group => group.Key, group => group.First().Error);
        var states = channels.ToDictionary(row => row.Channel);
        var alerts = options.Value;
        ChannelView View(string name, bool enabled, string? target)
        {
            var row = rows.GetValueOrDefault(name);
            return new ChannelView(
                name, enabled, target, row?.LastSentAt is { } at ? DateTimeOffset.FromUnixTimeMilliseconds(at) : null, errors.GetValueOrDefault(name), row?.Pending ?? 0, row?.Failed ?? 0)
            {
                State = enabled ? states.GetValueOrDefault(name)?.State ?? "ok" : "off",
                Reason = enabled ? states.GetValueOrDefault(name)?.Reason : null,
                Since = enabled && states.TryGetValue(name, out var state) ? DateTimeOffset.FromUnixTimeMilliseconds(state.Since) : null,
            };
        }
        return TypedResults.Ok(new Page<ChannelView>(
            [
                View("log", alerts.Log.Enabled, "the service's log"),
                View("email", alerts.Email.Enabled, alerts.Email.Host.Length == 0 ? null : $"{alerts.Email.Host} to {alerts.Email.To.Count} address{(alerts.Email.To.Count == 1 ? "" : "es")}"),
                View("webhook", alerts.Webhook.Enabled, Host(alerts.Webhook.Url)),
                View("slack", alerts.Slack.Enabled, Host(alerts.Slack.Url)),
                View("teams", alerts.Teams.Enabled, Host(alerts.Teams.Url)),
            ],
            null));
    }

    private static async Task<IResult> TestAsync(HttpContext context, IEnumerable<INotificationChannel> channels, AuditLog audit, TimeProvider clock)
    {
        var (given, mistake) = await DeadLetterEndpoints.ReadAsync<TestRequest>(context);
        if (mistake is not null)
        {
            return mistake;
        }
        if (given?.Channel is not ("log" or "email" or "webhook" or "slack" or "teams"))
        {
            return Problems.Result(StatusCodes.Status404NotFound, "channel_not_found", "There is no such channel.");
        }
        if (channels.FirstOrDefault(channel => channel.Name == given.Channel) is not { } wanted)
        {
            return Problems.Result(StatusCodes.Status409Conflict, "channel_off", $"The channel {given.Channel} is off, or belongs to another process (the role dead-letters).");
        }
        var who = CallerName.Told(context);
        var subject = $"Test alert, asked for by {who}";
        var content = new AlertContent { Kind = AlertKind.Test, Subject = subject, Summary = "If you can read this, alerts reach you. There is nothing to do." };
        var began = Stopwatch.GetTimestamp();
        (bool Ok, string Answer) outcome;
        try
        {
            using var patience = new CancellationTokenSource(TestPatience, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, context.RequestAborted);
            var answer = await wanted.SendAsync(new Alert(0, AlertKind.Test, null, subject, AlertText.Plain(content), content, 0, clock.GetUtcNow()), either.Token);
            outcome = (answer is ChannelAnswer.Sent, answer.Text ?? "sent");
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            outcome = (false, "no answer in time");
        }
        await audit.TryWriteAsync(CallerRight.CallerOf(context), "alert.test", $"channel {given.Channel}", outcome.Ok ? "sent" : outcome.Answer);
        return TypedResults.Ok(new TestAnswer(given.Channel, outcome.Ok, outcome.Answer, (long)Stopwatch.GetElapsedTime(began).TotalMilliseconds));
    }

    // A chat's webhook address is a secret as a whole; its host is not.
    private static string? Host(string url) => Uri.TryCreate(url, UriKind.Absolute, out var uri) ? uri.Host : null;
}

/// <param name="Target">Where it leads, without secrets.</param>
/// <param name="Pending">Alerts that wait for another attempt.</param>
/// <param name="Failed">Alerts that were set aside.</param>
internal sealed record ChannelView(string Name, bool Enabled, string? Target, DateTimeOffset? LastSentAt, string? LastError, long Pending, long Failed)
{
    /// <summary><c>ok</c>, <c>failing</c>, or <c>off</c>: not switched on, or the other side wants no alerts any more (410).</summary>
    public required string State { get; init; }

    /// <summary>Why it is failing or off.</summary>
    public string? Reason { get; init; }

    /// <summary>Since when it is in this state.</summary>
    public DateTimeOffset? Since { get; init; }
}

internal sealed record TestRequest(string? Channel);

/// <param name="Answer">What the other side said.</param>
internal sealed record TestAnswer(string Channel, bool Ok, string Answer, long Milliseconds);
