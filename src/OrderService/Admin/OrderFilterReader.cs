using System.Globalization;
using OrderService.Domain;
using OrderService.Projections;

namespace OrderService.Admin;

/// <summary>Reads what a list of orders is asked for: <c>status=placed,paid&amp;customerId=C-7&amp;placedFrom=2026-11-01&amp;placedTo=2026-12-01&amp;sort=-updatedAt</c>.</summary>
internal static class OrderFilterReader
{
    public const string ByChange = "-updatedAt";
    public const string Newest = "-placedAt";
    public const string Oldest = "placedAt";

    /// <param name="list">The name of the list with its filters: a cursor holds for this one alone.</param>
    public static OrderFilter? Read(HttpContext context, out string list, out IResult problem)
    {
        list = "";
        if (!Paging.TryReadOne(context, "status", out var status, out problem) || !Paging.TryReadOne(context, "customerId", out var customerId, out problem)
            || !TryReadTime(context, "placedFrom", out var from, out problem) || !TryReadTime(context, "placedTo", out var to, out problem)
            || !Paging.TryReadOne(context, "sort", out var sort, out problem))
        {
            return null;
        }
        var statuses = new List<OrderStatus>();
        foreach (var name in status?.Split(',') ?? [])
        {
            if (!OrderStatusNames.TryParse(name, out var parsed) || parsed == OrderStatus.None)
            {
                problem = Paging.BadParameter("status", "status is one of placed, paid, shipped, delivered, cancelled, or several of them with commas between.");
                return null;
            }
            statuses.Add(parsed);
        }
        if (sort is not (null or Newest or Oldest or ByChange))
        {
            problem = Paging.BadParameter("sort", $"sort is {Newest} (the default), {Oldest} or {ByChange}.");
            return null;
        }
        if (sort == ByChange && (customerId is not null || from is not null || to is not null))
        {
            problem = Paging.BadParameter("sort", $"{ByChange} goes with status alone: a customer's orders, and those of a time, come by when they were placed.");
            return null;
        }
        list = string.Create(CultureInfo.InvariantCulture, $"orders|{string.Join(',', statuses.Distinct().Order())}|{customerId}|{from}|{to}|{sort ?? Newest}");
        return new OrderFilter(statuses, customerId, from, to, sort switch { Oldest => OrderSort.Oldest, ByChange => OrderSort.LatestChange, _ => OrderSort.Newest });
    }

    /// <summary>A day in UTC, or a moment of RFC 3339.</summary>
    private static bool TryReadTime(HttpContext context, string name, out long? milliseconds, out IResult problem)
    {
        milliseconds = null;
        if (!Paging.TryReadOne(context, name, out var text, out problem) || text is null)
        {
            return problem == Results.Empty;
        }
        if (DateTimeOffset.TryParseExact(
            text, ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK"], CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time))
        {
            milliseconds = time.ToUnixTimeMilliseconds();
            return true;
        }
        problem = Paging.BadParameter(name, $"{name} is a day in UTC, such as 2026-11-26, or a time, such as 2026-11-26T08:00:00Z.");
        return false;
    }
}
