namespace OrderService.CommandLine;

/// <summary>How a command ends; scripts rely on these.</summary>
internal static class ExitCode
{
    public const int Done = 0;

    /// <summary>Some items failed, were left undone by Ctrl-C, or something was found to be wrong.</summary>
    public const int SomeFailed = 1;

    /// <summary>The command line can't be understood.</summary>
    public const int Usage = 2;

    /// <summary>The broker or the store is out of reach.</summary>
    public const int Unavailable = 69;

    /// <summary>The service broke down, or its store was taken away; the log says why.</summary>
    public const int Broken = 70;

    /// <summary>The settings are wrong, the store is not as they say, or another process serves it.</summary>
    public const int BadConfiguration = 78;
}
