using System.CommandLine;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>keys rotate</c>: the keys of customers under another master key.</summary>
internal static class KeysCommand
{
    public static Command Create()
    {
        var rotate = new Command(
            "rotate", "Wraps the keys of all customers by the master key of the settings (Keys:MasterKeyFile). Nothing that is stored under them changes; the service may go on running if it has both master keys.");
        rotate.SetAction((_, cancellationToken) => Commands.WithStationsAsync((stations, _) => Task.FromResult(Rotate(stations.GetRequiredService<PersonalKeys>())), cancellationToken));
        return new Command("keys", "Looks after the keys under which personal data is stored.") { rotate };
    }

    private static int Rotate(PersonalKeys keys)
    {
        var rewrapped = keys.Rotate();
        Console.WriteLine($"{rewrapped} keys were wrapped anew; the master key {keys.MasterId()} wraps all of them now. Others are not needed any more, but by backups of the keys.");
        return ExitCode.Done;
    }
}
