using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Which parked letters: by number, or by filter.</summary>
/// <param name="UpTo">Only letters up to this number.</param>
/// <param name="Confirmed">Letters that another program put among the dead letters are meant too.</param>
public sealed record LetterSelection(IReadOnlyList<long>? Ids, LetterFilter Filter, long? UpTo = null, long? Limit = null, bool Confirmed = false)
{
    /// <summary>The most letters that may be named by number.</summary>
    public const int MostIds = 5_000;

    internal string Where(DynamicParameters parameters)
    {
        var where = (Filter with { Status = LetterStatus.Parked }).Where(parameters);
        if (Ids is { } ids)
        {
            where += ids.Count == 0 ? " AND 1 = 0" : $" AND l.id IN {SqlList.Of(ids)}";
        }
        if (UpTo is { } last)
        {
            parameters.Add("up_to", last);
            where += " AND l.id <= @up_to";
        }
        return where;
    }
}
