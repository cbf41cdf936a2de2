using System.Globalization;
using System.Text;
using Dapper;

namespace OrderService.Store;

/// <summary>Lists in statements that both stores run: Dapper's own <c>IN @list</c> hands PostgreSQL an array, which <c>IN</c> does not take.</summary>
internal static class SqlList
{
    /// <summary>Adds each value as a parameter and answers the list for <c>IN</c>, for example <c>(@key0, @key1)</c>. It must not be empty.</summary>
    public static string Add<T>(DynamicParameters parameters, string name, IReadOnlyCollection<T> values)
    {
        ArgumentOutOfRangeException.ThrowIfZero(values.Count);
        var list = new StringBuilder("(");
        var index = 0;
        foreach (var value in values)
        {
            var parameter = name + index.ToString(CultureInfo.InvariantCulture);
            parameters.Add(parameter, value);
            list.Append(index == 0 ? "@" : ", @").Append(parameter);
            index++;
        }
        return list.Append(')').ToString();
    }

    /// <summary>The same for numbers, written out: SQLite looks each parameter up among all others, which thousands of them make slow. It must not be empty.</summary>
    public static string Of(IReadOnlyCollection<long> numbers)
    {
        ArgumentOutOfRangeException.ThrowIfZero(numbers.Count);
        return $"({string.Join(", ", numbers.Select(number => number.ToString(CultureInfo.InvariantCulture)))})";
    }
}
