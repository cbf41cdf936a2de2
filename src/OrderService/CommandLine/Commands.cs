using System.CommandLine;
using System.CommandLine.Parsing;
using OrderService.Configuration;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary>The commands of the one binary, and what they have in common: how they read settings, report trouble and end.</summary>
public static class Commands
{
    /// <summary>Runs the command that <paramref name="arguments"/> name.</summary>
    /// <param name="logging">Where <c>serve</c> logs to.</param>
    /// <returns>The process's exit code.</returns>
    public static async Task<int> RunAsync(string[] arguments, Action<ILoggingBuilder, IConfiguration> logging)
    {
        var root = new RootCommand("Takes orders from RabbitMQ, records what happens to them, and keeps what can't be processed for you to mend.")
        {
            ServeCommand.Create(logging),
            PublishCommand.Create(),
            StoreCommands.CreateOrder(),
            DeadLetterCommands.Create(),
            StoreCommands.CreateWhy(),
            IntakeCommands.Create(),
            MapCommand.Create(),
            RelayCommands.Create(),
            RetentionCommands.Create(),
            TopologyCommand.Create(),
            StoreCommands.CreateMigrate(),
            new Command("store", "Looks after the store as a whole.") { StoreFileCommands.CreateBackup(), StoreFileCommands.CreateRestore(), StoreSizesCommand.Create(), StoreCopyCommand.Create() },
            StoreCommands.CreateProjection(),
            StoreCommands.CreateVerify(),
            KeyCommand.Create(),
            KeysCommand.Create(),
            CustomerCommands.CreateForget(),
            CustomerCommands.CreateCustomer(),
            DoctorCommand.Create(),
            SettingsCommand.Create(),
            HealthCommand.Create(),
        };
        var parsed = root.Parse(arguments);
        if (parsed.Errors.Count > 0)
        {
            foreach (var error in parsed.Errors)
            {
                await Console.Error.WriteLineAsync(error.Message);
            }
            foreach (var suggestion in Suggestions(parsed))
            {
                await Console.Error.WriteLineAsync(suggestion);
            }
            await Console.Error.WriteLineAsync($"See: orderservice {(parsed.CommandResult.Command == root ? "" : Path(parsed.CommandResult.Command) + " ")}--help");
            return ExitCode.Usage;
        }
        // serve handles signals itself; the others get a token that Ctrl-C cancels, and print what was done so far.
        var serves = parsed.CommandResult.Command.Name == ServeCommand.Name;
        var code = await parsed.InvokeAsync(new InvocationConfiguration
        {
            EnableDefaultExceptionHandler = false,
            ProcessTerminationTimeout = serves ? null : TimeSpan.FromSeconds(20),
        });
        // Whoever typed a command reads what it says; a service ends though nobody reads.
        await StandardError.FlushAsync(serves ? ServiceLog.FlushTimeout : Timeout.InfiniteTimeSpan);
        return code;
    }

    /// <summary>Checks the settings, opens the stations without running them, and turns what goes wrong into one line and an exit code.</summary>
    internal static async Task<int> WithStationsAsync(
        Func<IServiceProvider, CancellationToken, Task<int>> work, CancellationToken cancellationToken, bool needsStore = true, IEnumerable<KeyValuePair<string, string?>>? overrides = null)
    {
        var settings = OrderServiceHost.LoadSettings(overrides);
        if (!await ReportAsync(settings))
        {
            return ExitCode.BadConfiguration;
        }
        var services = new ServiceCollection();
        OrderServiceHost.AddStations(services, settings.Configuration, ServiceRoles.All);
        services.AddLogging(logging => logging.ClearProviders());
        await using var provider = services.BuildServiceProvider();
        return await WithExitCodeAsync(async () =>
        {
            if (needsStore)
            {
                // Whoever looks changes nothing: the store may belong to a service of another version.
                await provider.GetRequiredService<IDatabase>().RequireSchemaAsync(cancellationToken);
            }
            return await work(provider, cancellationToken);
        }, cancellationToken);
    }

    internal static async Task<int> WithExitCodeAsync(Func<Task<int>> work, CancellationToken cancellationToken)
    {
        try
        {
            return await work();
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            StandardError.Say("Interrupted.");
            return ExitCode.SomeFailed;
        }
        catch (StoreSettingsException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.BadConfiguration;
        }
        catch (RabbitMq.TopologyMismatchException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.BadConfiguration;
        }
        catch (StoreFileException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.SomeFailed;
        }
        catch (StoreInUseException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.BadConfiguration;
        }
        catch (StoreMissingException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.Unavailable;
        }
        catch (StoreUnavailableException exception)
        {
            StandardError.Say($"The store can't be used: {exception.Message}");
            return ExitCode.Unavailable;
        }
        catch (BrokerOutOfReachException exception)
        {
            StandardError.Say(exception.Message);
            return ExitCode.Unavailable;
        }
    }

    /// <summary>Prints every mistake on its own line; true when there is none.</summary>
    internal static async Task<bool> ReportAsync(LoadedSettings settings)
    {
        foreach (var mistake in settings.Mistakes)
        {
            StandardError.Say(mistake);
        }
        if (settings.Mistakes.Count == 0)
        {
            foreach (var warning in settings.Warnings)
            {
                StandardError.Say("Warning: " + warning);
            }
        }
        await StandardError.FlushAsync(ServiceLog.FlushTimeout);
        return settings.Mistakes.Count == 0;
    }

    /// <summary>What a misspelt command or option was meant to be.</summary>
    private static IEnumerable<string> Suggestions(ParseResult parsed)
    {
        var command = parsed.CommandResult.Command;
        string[] known = [.. command.Subcommands.Select(one => one.Name), .. command.Options.SelectMany(one => one.Aliases.Append(one.Name))];
        // A misspelt option may have been taken for an argument.
        var options = parsed.Tokens.Where(token => token.Type == TokenType.Argument && token.Value.StartsWith("--", StringComparison.Ordinal)).Select(token => token.Value);
        foreach (var token in parsed.UnmatchedTokens.Union(options))
        {
            // Of "--option=value" the value may be a secret that somebody put there by mistake.
            var name = token.Split('=')[0];
            if (Spelling.Nearest(name, known.Where(one => one.StartsWith('-') == name.StartsWith('-'))) is { } meant)
            {
                yield return $"Did you mean {meant}?";
            }
        }
    }

    private static string Path(Command command) =>
        command.Parents.OfType<Command>().FirstOrDefault(parent => parent is not RootCommand) is { } parent ? $"{Path(parent)} {command.Name}" : command.Name;
}

/// <summary>The broker can't be reached; the message says which, without credentials, and why.</summary>
internal sealed class BrokerOutOfReachException(string message) : Exception(message);
