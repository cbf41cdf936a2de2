using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Net.Http.Headers;

namespace OrderService.Admin;

/// <summary>What holds for every request: limits, headers that protect browsers, and the refusal of what can't be answered.</summary>
internal static class HttpRules
{
    /// <summary>1 MiB, as for a message on the queue.</summary>
    public const int LargestBody = 1024 * 1024;

    public static void Limit(KestrelServerOptions kestrel)
    {
        kestrel.AddServerHeader = false;
        kestrel.Limits.MaxRequestBodySize = LargestBody;
        kestrel.Limits.MaxRequestLineSize = 8 * 1024;
        kestrel.Limits.MaxRequestHeadersTotalSize = 32 * 1024;
        kestrel.Limits.MaxRequestHeaderCount = 100;
        // How many connections there may be is ConnectionLimit's to say: Kestrel would write a line for each that it does not take.
        kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(15);
        kestrel.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(20);
    }

    /// <summary>Nothing of a page may come from elsewhere, nothing may frame it, and what a message contains is never taken for markup.</summary>
    public static Task Protect(HttpContext context, RequestDelegate next)
    {
        // On starting, because an error handler clears what was set before it.
        context.Response.OnStarting(static state =>
        {
            SetHeaders((HttpContext)state);
            return Task.CompletedTask;
        }, context);
        return next(context);
    }

    private static void SetHeaders(HttpContext context)
    {
        var headers = context.Response.Headers;
        headers.XContentTypeOptions = "nosniff";
        headers.ContentSecurityPolicy = "default-src 'none'; object-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; manifest-src 'self'; base-uri 'none'; frame-ancestors 'none'";
        headers.XFrameOptions = "DENY";
        headers["Referrer-Policy"] = "no-referrer";
        headers["Cross-Origin-Opener-Policy"] = "same-origin";
        headers["Cross-Origin-Resource-Policy"] = "same-origin";
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";
        if (context.Request.IsHttps)
        {
            headers.StrictTransportSecurity = "max-age=31536000; includeSubDomains";
        }
        if (context.Request.Path.StartsWithSegments("/api"))
        {
            headers.CacheControl = "no-store";
        }
    }

    /// <summary>406 before the work is done rather than after it.</summary>
    public static Task CheckAccept(HttpContext context, RequestDelegate next)
    {
        if (context.Request.Path.StartsWithSegments("/api") && context.Request.Headers.Accept.Count > 0
            && MediaTypeHeaderValue.TryParseList(context.Request.Headers.Accept, out var accepted) && accepted.Count > 0
            && !accepted.Any(type => type.Quality is not 0 && IsServed(type)))
        {
            var (code, detail) = Problems.ForStatus(StatusCodes.Status406NotAcceptable);
            return Problems.WriteAsync(context, StatusCodes.Status406NotAcceptable, code, detail);
        }
        return next(context);
    }

    /// <summary>A zero character is in no id, name or text of ours, and PostgreSQL takes it in none.</summary>
    public static Task CheckQuery(HttpContext context, RequestDelegate next)
    {
        const string Detail = "A parameter contains the character U+0000, which no value has.";
        foreach (var (name, values) in context.Request.Query)
        {
            if (values.Any(value => value?.Contains('\0', StringComparison.Ordinal) == true))
            {
                return Problems.WriteAsync(context, StatusCodes.Status400BadRequest, "bad_parameter", Detail, [new FieldError("#" + name, "bad_parameter", Detail)]);
            }
        }
        return next(context);
    }

    private static bool IsServed(MediaTypeHeaderValue type) =>
        type.MatchesAllTypes
        || type.Type.Equals("application", StringComparison.OrdinalIgnoreCase) && (type.MatchesAllSubTypes || type.SubTypeWithoutSuffix.Equals("json", StringComparison.OrdinalIgnoreCase) || type.Suffix.Equals("json", StringComparison.OrdinalIgnoreCase) || type.SubType.Value is "octet-stream" or "x-ndjson")
        || type.Type.Equals("text", StringComparison.OrdinalIgnoreCase) && type.SubType.Value is "event-stream" or "csv";
}
