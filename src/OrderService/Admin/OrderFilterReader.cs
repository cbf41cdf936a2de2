using System.Globalization;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Projections;

namespace OrderService.Admin;

/// <summary>Reads what a list of orders is asked for: <c>status=placed,paid&amp;customerId=C-7&amp;placedFrom=2026-11-01&amp;placedTo=2026-12-01&amp;sort=-updatedAt</c>.</summary>
internal static class OrderFilterReader
{
    public const string ByChange = "-updatedAt";
    public const string Newest = "-placedAt";
    public const string Oldest = "placedAt";

    /// <param name="list">The name of the list with its filters: a cursor holds for this one alone.</param>
    public static OrderFilter? Read(HttpContext context, OrdersOptions options, out string list, out IResult problem)
    {
        list = "";
        if (!Paging.TryReadOne(context, "status", out var status, out problem) || !Paging.TryReadOne(context, "customerId", out var customerId, out problem)
            || !TryReadTime(context, "placedFrom", out var from, out problem) || !TryReadTime(context, "placedTo", out var to, out problem)
            || !Paging.TryReadOne(context, "sort", out var sort, out problem) || !TryReadParts(context, options, out var parts, out problem))
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
        if (parts is not null && (from is not null || to is not null || sort == ByChange))
        {
            problem = Paging.BadParameter("sort", $"attribute, paymentStatus and fulfillmentStatus go with status, customerId and sort={Oldest} alone.");
            return null;
        }
        list = string.Create(CultureInfo.InvariantCulture, $"orders|{string.Join(',', statuses.Distinct().Order())}|{customerId}|{from}|{to}|{sort ?? Newest}{(parts is null ? "" : $"|{parts}")}");
        return new OrderFilter(statuses, customerId, from, to, sort switch { Oldest => OrderSort.Oldest, ByChange => OrderSort.LatestChange, _ => OrderSort.Newest }) { Parts = parts };
    }

    /// <summary>What an order has or how far it is; null when nothing of it is asked for.</summary>
    private static bool TryReadParts(HttpContext context, OrdersOptions options, out OrderParts? parts, out IResult problem)
    {
        parts = null;
        if (!TryReadAttribute(context, options, out var attribute, out problem) || !Paging.TryReadOne(context, "paymentStatus", out var paid, out problem)
            || !Paging.TryReadOne(context, "fulfillmentStatus", out var fulfilled, out problem))
        {
            return false;
        }
        var payment = paid is null ? null : PartialStatusNames.ParsePayment(paid);
        var fulfillment = fulfilled is null ? null : PartialStatusNames.ParseFulfillment(fulfilled);
        if (paid is not null && payment is null)
        {
            problem = Paging.BadParameter("paymentStatus", $"paymentStatus is one of {string.Join(", ", PartialStatusNames.Payment)}.");
            return false;
        }
        if (fulfilled is not null && fulfillment is null)
        {
            problem = Paging.BadParameter("fulfillmentStatus", $"fulfillmentStatus is one of {string.Join(", ", PartialStatusNames.Fulfillment)}.");
            return false;
        }
        parts = attribute is null && payment is null && fulfillment is null ? null : new OrderParts(attribute, payment, fulfillment);
        return true;
    }

    private static bool TryReadAttribute(HttpContext context, OrdersOptions options, out OrderAttribute? attribute, out IResult problem)
    {
        attribute = null;
        if (!Paging.TryReadOne(context, "attribute", out var given, out problem))
        {
            return false;
        }
        if (given is null)
        {
            return true;
        }
        var colon = given.IndexOf(':', StringComparison.Ordinal);
        if (colon < 1 || !options.SearchableAttributes.Contains(given[..colon]))
        {
            problem = Paging.BadParameter("attribute", options.SearchableAttributes.Count == 0
                ? "No attribute can be searched for; name some in the setting Orders:SearchableAttributes."
                : $"attribute is NAME:VALUE, and NAME is one of {string.Join(", ", options.SearchableAttributes)} (the setting Orders:SearchableAttributes).");
            return false;
        }
        attribute = new OrderAttribute(given[..colon], given[(colon + 1)..]);
        return true;
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
