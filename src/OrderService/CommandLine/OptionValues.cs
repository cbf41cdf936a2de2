using System.CommandLine;
using System.CommandLine.Parsing;

namespace OrderService.CommandLine;

/// <summary>What validators read options with: the library throws over a value that it can't read, and reports it by itself as soon as nobody throws.</summary>
internal static class OptionValues
{
    /// <summary>The option's value; the default of its type when it can't be read.</summary>
    public static T? ValueOf<T>(this CommandResult result, Option<T> option) => Read(() => result.GetValue(option));

    /// <inheritdoc cref="ValueOf{T}(CommandResult, Option{T})"/>
    public static T? ValueOf<T>(this OptionResult result) => Read(result.GetValueOrDefault<T>);

    private static T? Read<T>(Func<T?> read)
    {
        try
        {
            return read();
        }
        catch (InvalidOperationException)
        {
            return default;
        }
    }
}
