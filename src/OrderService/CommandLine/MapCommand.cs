using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using OrderService.Configuration;
using OrderService.Inbox;
using OrderService.Observability;

namespace OrderService.CommandLine;

/// <summary><c>map</c>: shows what the mapping makes of a message of another shape, and what the service would say to it.</summary>
internal static class MapCommand
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create()
    {
        var file = new Argument<string>("FILE") { Description = "The message's body as it comes; - for standard input." };
        var mapping = new Option<string>("--mapping") { HelpName = "FILE", Description = "The rules; Inbox:MappingFile when left out." };
        var type = new Option<string>("--type") { Description = "The message's AMQP property type." };
        var headers = new Option<string[]>("--header") { HelpName = "NAME=VALUE", Description = "A header of the message; may be given several times." };
        var command = new Command("map", "Shows the command that the mapping makes of a message of another shape. Exit code 1 when the service would not take it.") { file, mapping, type, headers };
        command.Validators.Add(result =>
        {
            foreach (var wrong in (result.ValueOf(headers) ?? []).Where(header => header.IndexOf('=') < 1))
            {
                result.AddError($"--header takes NAME=VALUE, not {wrong}.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithExitCodeAsync(
            () => RunAsync(
                parsed.GetValue(file)!,
                parsed.GetValue(mapping),
                new MessageProperties
                {
                    Type = parsed.GetValue(type),
                    Headers = (parsed.GetValue(headers) ?? []).Select(header => header.Split('=', 2)).ToDictionary(pair => pair[0], pair => (object?)pair[1], StringComparer.Ordinal),
                },
                cancellationToken),
            cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(string file, string? mappingFile, MessageProperties properties, CancellationToken cancellationToken)
    {
        mappingFile ??= Settings.Load(OrderServiceHost.Rules).Configuration[$"{InboxOptions.Section}:{nameof(InboxOptions.MappingFile)}"];
        if (string.IsNullOrEmpty(mappingFile))
        {
            StandardError.Say("There are no rules: name a file with --mapping, or set Inbox:MappingFile.");
            return ExitCode.BadConfiguration;
        }
        var mapping = MappingFile.Read(mappingFile, out var mistakes);
        if (mistakes.Count > 0)
        {
            foreach (var mistake in mistakes)
            {
                StandardError.Say($"{mappingFile}: {mistake}.");
            }
            return ExitCode.BadConfiguration;
        }
        if (await BodyAsync(file, cancellationToken) is not { } body)
        {
            return ExitCode.SomeFailed;
        }
        if (mapping.Map(properties, body) is not { } mapped)
        {
            StandardError.Say($"No rule is for this message, so it is taken as it is. The rules are {string.Join(", ", mapping.Rules.Select(rule => rule.Name))}; give --type or --header as the producer does.");
            return ExitCode.SomeFailed;
        }
        return Tell(mapped);
    }

    private static int Tell(MappedBody mapped)
    {
        Console.WriteLine($"{mapped.Rule.Command} (rule {mapped.Rule.Name})");
        var rejection = mapped.Rejection;
        if (rejection is null)
        {
            EnvelopeDecoder.TryDecodeBody(mapped.Rule.Command, mapped.Body.Span, orderIdFromPath: null, out _, out rejection);
            if (rejection?.Reason is not (RejectionReason.MalformedJson or RejectionReason.BodyEmpty or RejectionReason.BodyTooLarge or RejectionReason.InvalidEncoding or RejectionReason.DepthExceeded))
            {
                using var document = JsonDocument.Parse(mapped.Body);
                Console.WriteLine(JsonSerializer.Serialize(document.RootElement, Indented));
            }
        }
        if (rejection is null)
        {
            Console.WriteLine("The service takes it.");
            return ExitCode.Done;
        }
        StandardError.Say($"It would be a dead letter ({rejection.Reason}{(rejection.Field is { Length: > 0 } field ? $", {field}" : "")}): {rejection.Detail}");
        return ExitCode.SomeFailed;
    }

    private static async Task<byte[]?> BodyAsync(string file, CancellationToken cancellationToken)
    {
        try
        {
            if (file != "-")
            {
                return await File.ReadAllBytesAsync(file, cancellationToken);
            }
            using var all = new MemoryStream();
            await Console.OpenStandardInput().CopyToAsync(all, cancellationToken);
            return all.ToArray();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            StandardError.Say($"{file} can't be read: {exception.Message}");
            return null;
        }
    }
}
