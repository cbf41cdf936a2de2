using System.Globalization;
using System.Net;
using System.Text;

namespace OrderService.Notifications;

/// <summary>An alert's words, for people: plain text and HTML.</summary>
public static class AlertText
{
    private const int LongestSubject = 200;

    /// <summary>One line: control characters (a mail header ends at a line break) and directions of text become blanks, too long ones are cut.</summary>
    public static string Line(string text, int longest = LongestSubject)
    {
        var line = new StringBuilder(Math.Min(text.Length, longest));
        foreach (var rune in text.EnumerateRunes())
        {
            if (line.Length + rune.Utf16SequenceLength >= longest)
            {
                line.Append('…');
                break;
            }
            line.Append(Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator ? " " : rune.ToString());
        }
        return line.ToString();
    }

    public static string Plain(AlertContent content)
    {
        var text = new StringBuilder();
        text.AppendLine(content.Summary);
        if (content.Held is { } held)
        {
            text.AppendLine().AppendLine("Held now");
            foreach (var (label, value) in Facts(held))
            {
                text.Append("  ").Append(label.PadRight(11)).AppendLine(value);
            }
        }
        if (content.Incidents.Count > 0)
        {
            text.AppendLine().AppendLine("Incidents");
            foreach (var incident in content.Incidents)
            {
                text.Append("  ").Append(incident.Fingerprint).Append("  ").Append(incident.Title).Append(" (").Append(incident.Reason).Append("): ").AppendLine(Letters(incident));
            }
            if (content.MoreIncidents > 0)
            {
                text.AppendLine(CultureInfo.InvariantCulture, $"  and {content.MoreIncidents:N0} more");
            }
        }
        if (content.OrderIds.Count > 0)
        {
            text.AppendLine().Append("Orders: ").AppendLine(Orders(content));
        }
        if (content.Advice is not null)
        {
            text.AppendLine().AppendLine(content.Advice);
        }
        if (content.Link is not null)
        {
            text.AppendLine().AppendLine(content.Link);
        }
        if (content.Seal is not null)
        {
            text.AppendLine().Append("Newest seal: ").AppendLine(content.Seal);
        }
        return text.ToString();
    }

    public static string Html(AlertContent content)
    {
        var html = new StringBuilder();
        html.Append("<!doctype html><html><body style=\"font-family:system-ui,sans-serif;max-width:42rem\">");
        html.Append("<h2 style=\"font-size:1.1rem\">").Append(Encode(content.Subject)).Append("</h2><p>").Append(Encode(content.Summary)).Append("</p>");
        if (content.Held is { } held)
        {
            html.Append("<table cellpadding=\"4\">");
            foreach (var (label, value) in Facts(held))
            {
                html.Append("<tr><td style=\"color:#666\">").Append(label).Append("</td><td>").Append(Encode(value)).Append("</td></tr>");
            }
            html.Append("</table>");
        }
        if (content.Incidents.Count > 0)
        {
            html.Append("<table cellpadding=\"4\" style=\"border-collapse:collapse\"><tr align=\"left\"><th>Incident</th><th>What</th><th>Letters</th></tr>");
            foreach (var incident in content.Incidents)
            {
                html.Append("<tr style=\"border-top:1px solid #ddd\"><td><code>").Append(Encode(incident.Fingerprint)).Append("</code></td><td>")
                    .Append(Encode(incident.Title)).Append(" <small>").Append(Encode(incident.Reason)).Append("</small></td><td>").Append(Encode(Letters(incident))).Append("</td></tr>");
            }
            html.Append("</table>");
            if (content.MoreIncidents > 0)
            {
                html.Append(CultureInfo.InvariantCulture, $"<p>and {content.MoreIncidents:N0} more</p>");
            }
        }
        if (content.OrderIds.Count > 0)
        {
            html.Append("<p>Orders: ").Append(Encode(Orders(content))).Append("</p>");
        }
        if (content.Advice is not null)
        {
            html.Append("<p>").Append(Encode(content.Advice)).Append("</p>");
        }
        if (content.Link is not null)
        {
            html.Append("<p><a href=\"").Append(Encode(content.Link)).Append("\">").Append(Encode(content.Link)).Append("</a></p>");
        }
        if (content.Seal is not null)
        {
            html.Append("<p><small>Newest seal: <code style=\"word-break:break-all\">").Append(Encode(content.Seal)).Append("</code></small></p>");
        }
        return html.Append("</body></html>").ToString();
    }

    /// <summary>What is held, as label and value.</summary>
    public static IEnumerable<(string Label, string Value)> Facts(AlertHeld held)
    {
        yield return ("messages", held.Letters.ToString("N0", CultureInfo.InvariantCulture));
        yield return ("orders", held.Orders.ToString("N0", CultureInfo.InvariantCulture));
        yield return ("customers", held.Customers.ToString("N0", CultureInfo.InvariantCulture));
        yield return ("value", held.Value.Count == 0 ? "not known" : string.Join(", ", held.Value.Select(value => $"{value.Amount} {value.Currency}")));
        if (held.OldestSince is { } oldest)
        {
            yield return ("oldest", oldest.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture));
        }
    }

    private static string Letters(AlertIncident incident) => incident.Letters switch
    {
        0 => "none new",
        1 => $"1 letter (number {incident.FirstLetter})",
        _ => string.Create(CultureInfo.InvariantCulture, $"{incident.Letters:N0} letters (numbers {incident.FirstLetter} to {incident.LastLetter})"),
    };

    private static string Orders(AlertContent content)
    {
        var more = (content.Held?.Orders ?? 0) - content.OrderIds.Count;
        return string.Join(", ", content.OrderIds) + (more > 0 ? string.Create(CultureInfo.InvariantCulture, $" and {more:N0} more") : "");
    }

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
