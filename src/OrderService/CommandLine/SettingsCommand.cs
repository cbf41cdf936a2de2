using System.CommandLine;
using OrderService.Configuration;
using Spectre.Console;

namespace OrderService.CommandLine;

/// <summary><c>settings</c>: what is in force and where it came from. Connects to nothing.</summary>
internal static class SettingsCommand
{
    public static Command Create()
    {
        var changed = new Option<bool>("--changed") { Description = "Only what is not the default." };
        var json = JsonOutput.Option();
        var command = new Command("settings", "Prints every setting that is in force and where its value came from; secrets are masked. Exit code 78 when there are mistakes, which are named.") { changed, json };
        command.SetAction((parsed, _) => ShowAsync(parsed.GetValue(changed), parsed.GetValue(json)));
        return command;
    }

    private static async Task<int> ShowAsync(bool changed, bool json)
    {
        var settings = OrderServiceHost.LoadSettings();
        var found = SettingsInForce.Read(settings.Configuration, OrderServiceHost.Rules)
            .Where(setting => !changed || setting.Origin != SettingsInForce.Default)
            .ToList();
        if (json)
        {
            JsonOutput.Write(found);
        }
        else
        {
            var table = DeadLetterCommands.NewTable("setting", "value", "from");
            foreach (var setting in found)
            {
                table.AddRow(DeadLetterCommands.Cells(setting.Key, setting.Value, setting.Origin));
            }
            DeadLetterCommands.Write(table);
        }
        return await Commands.ReportAsync(settings) ? ExitCode.Done : ExitCode.BadConfiguration;
    }
}
