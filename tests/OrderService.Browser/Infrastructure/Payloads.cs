namespace OrderService.Browser.Infrastructure;

/// <summary>Texts that run as code wherever a page takes text for markup, for an address or for script.</summary>
public static class Payloads
{
    // Each of them would be heard: the visitor listens to alert().
    private static readonly string[] Codes =
    [
        "alert(1)", "alert`1`", "window['al'+'ert'](1)", "top.alert(1)", "self[`alert`](1)", "(alert)(1)", "setTimeout('alert(1)')", "eval('alert(1)')", "[1].map(alert)", "Function('alert(1)')()",
    ];

    private static readonly Func<string, string>[] Frames =
    [
        code => $"<script>{code}</script>",
        code => $"</script><script>{code}</script>",
        code => $"\"><script>{code}</script>",
        code => $"<img src=x onerror={code}>",
        code => $"<img src=x onerror=\"{code}\">",
        code => $"<svg onload={code}>",
        code => $"<svg><script>{code}</script></svg>",
        code => $"<iframe srcdoc=\"<script>parent.{code}</script>\"></iframe>",
        code => $"<a href=\"javascript:{code}\">open</a>",
        code => $"javascript:{code}",
        code => $"<details open ontoggle={code}>x</details>",
        code => $"<input autofocus onfocus={code}>",
        code => $"\" autofocus onfocus={code} x=\"",
        code => $"' onmouseover='{code}' '",
        code => $"<style>@import'javascript:{code}';</style>",
        code => $"<math><mtext><img src=x onerror={code}></mtext></math>",
        code => $"<template><img src=x onerror={code}></template>",
        code => $"<object data=\"javascript:{code}\"></object>",
        code => $"${{{code}}}",
        code => $"{{{{constructor.constructor('{code.Replace("'", "\\'", StringComparison.Ordinal)}')()}}}}",
    ];

    /// <summary>200 of them.</summary>
    public static IReadOnlyList<string> All { get; } = [.. Frames.SelectMany(frame => Codes.Select(frame))];
}
