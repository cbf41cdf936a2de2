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
        var rotateSeals = new Command(
            "rotate-seals", "Makes a new key for seals, where they are made under a key of the service's own; those of before are kept, for what they sealed. The service takes it with the next seal.");
        rotateSeals.SetAction((_, cancellationToken) => Commands.WithStationsAsync((stations, _) => Task.FromResult(RotateSeals(stations.GetRequiredService<PersonalKeys>().Seals)), cancellationToken));
        return new Command("keys", "Looks after the keys under which personal data is stored, and those of seals.") { rotate, rotateSeals };
    }

    private static int RotateSeals(SealKeys keys)
    {
        if (keys.Rotate() is not { } made)
        {
            Console.Error.WriteLine(
                "The key for seals is one of the settings (Seals:Key): write a new one (openssl rand -base64 32) to a file of its own, set Seals:KeyFile to it and Seals:Old:0:KeyFile to the one of before, and restart.");
            return ExitCode.Usage;
        }
        Console.WriteLine($"Seals are made under the key {made.Id} from now on. The keys of before stay where they are: what was sealed under them is verified with them.");
        return ExitCode.Done;
    }

    private static int Rotate(PersonalKeys keys)
    {
        var rewrapped = keys.Rotate();
        Console.WriteLine($"{rewrapped} keys were wrapped anew; the master key {keys.MasterId()} wraps all of them now. Others are not needed any more, but by backups of the keys.");
        return ExitCode.Done;
    }
}
