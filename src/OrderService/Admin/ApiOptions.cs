using System.Text;
using Microsoft.Extensions.Options;
using OrderService.Domain;

namespace OrderService.Admin;

/// <summary>Who may use the HTTP API, and how much of it. Section <c>Api</c>.</summary>
public sealed class ApiOptions
{
    public const string Section = "Api";

    /// <summary>The keys in force. With none, and no <see cref="Jwt"/>, a random key is made at the first start and kept beside the store.</summary>
    public IList<ApiKeyOptions> Keys { get; init; } = [];

    /// <summary>How long the key of the first start lasts, from when its file was written.</summary>
    public TimeSpan FirstKeyLifetime { get; init; } = TimeSpan.FromDays(90);

    /// <summary>Bearer tokens of an OpenID Connect provider, beside or instead of keys.</summary>
    public JwtOptions Jwt { get; init; } = new();

    /// <summary>Refuse a <c>POST</c> of a command without the header <c>Idempotency-Key</c>. Otherwise the key is derived from the command, as for the queue.</summary>
    public bool RequireIdempotencyKey { get; init; }

    /// <summary>Show what is personal (names, addresses, e-mail, phone, the bodies of dead letters) only to keys with the scope <c>personal</c>; others see <c>***</c>.</summary>
    public bool RequirePersonalScope { get; init; }

    /// <summary>How long the answer to an <c>Idempotency-Key</c> is kept. The order itself is protected for its whole life.</summary>
    public TimeSpan KeepAnswersFor { get; init; } = TimeSpan.FromHours(24);

    /// <summary>How long a browser stays signed in.</summary>
    public TimeSpan SessionLifetime { get; init; } = TimeSpan.FromHours(12);

    /// <summary>How long nobody may use a session before it ends. What a page reads by itself to stay up to date is no use.</summary>
    public TimeSpan SessionIdleTimeout { get; init; } = TimeSpan.FromMinutes(30);

    public RateLimitOptions RateLimit { get; init; } = new();

    /// <summary>The address that browsers see, such as <c>https://shop.example.com/orders/</c>, where a proxy in between changes host, scheme or path. With it nothing but the proxy need be asked.</summary>
    public string? PublicUrl { get; init; }

    /// <summary>The path under which a proxy shows the service, such as <c>/orders</c>; it may hand it on or cut it off. From <see cref="PublicUrl"/> when that has one.</summary>
    public string? PathBase { get; init; }

    /// <summary>Addresses (<c>10.0.0.7</c>) or networks (<c>10.0.0.0/24</c>) of proxies whose <c>X-Forwarded-For</c>, <c>-Proto</c>, <c>-Host</c> and <c>-Prefix</c> are believed. Nobody else's are.</summary>
    public IList<string> TrustedProxies { get; init; } = [];

    /// <summary>How many connections there may be on <c>Urls</c>. One more takes the place of the oldest that has not brought a key.</summary>
    public int MaxConnections { get; init; } = 2_000;

    /// <summary>How many of them one address may have (of IPv6, one /64), not counting those that have brought a key. Trusted proxies may have any number.</summary>
    public int MaxConnectionsPerAddress { get; init; } = 256;

    /// <summary>How many live streams (<c>/api/events/stream</c>) may be open at once.</summary>
    public int MaxStreams { get; init; } = 100;

    /// <summary>How many of them one caller may have: a key, or a token's holder.</summary>
    public int MaxStreamsPerCaller { get; init; } = 10;
}

/// <summary>One key. Two keys with different names make a rotation without a gap.</summary>
public sealed class ApiKeyOptions
{
    /// <summary>Shown in logs, the audit log and rate limits.</summary>
    public string Name { get; init; } = "";

    /// <summary>At least 32 characters. A secret: prefer <c>KeyFile</c>.</summary>
    public string Key { get; init; } = "";

    /// <summary><c>publish</c> (send commands), <c>read</c> (see orders and dead letters), <c>operate</c> (replay, discard), <c>personal</c> (see what is personal).</summary>
    public IList<string> Scopes { get; init; } = [];

    /// <summary>With the scope <c>publish</c>: the commands that it may send, such as <c>order.place</c>; all of them when it names none.</summary>
    public IList<string> Commands { get; init; } = [];
}

/// <summary>Tokens of an OpenID Connect provider. Scopes come from the claims <c>scope</c>, <c>scp</c> or <c>roles</c>.</summary>
public sealed class JwtOptions
{
    /// <summary>The issuer, <c>https://login.example.com/realms/shop</c>. Plain http only on this machine.</summary>
    public string? Authority { get; init; }

    /// <summary>What a token's <c>aud</c> must name.</summary>
    public string? Audience { get; init; }

    /// <summary>
    /// The kinds of token that are let in, by their header <c>typ</c>: <c>at+jwt</c> and <c>JWT</c> unless it is set. A provider that writes <c>at+jwt</c> (RFC 9068) needs no other.
    /// ID tokens are never let in.
    /// </summary>
    public IList<string> TokenTypes { get; init; } = [];

    /// <summary>
    /// The algorithms of signatures that are let in; all of <see cref="KnownAlgorithms"/> unless it is set. Where the provider can, <c>ES256</c> or <c>PS256</c> alone:
    /// those that begin with RS use an older padding.
    /// </summary>
    public IList<string> Algorithms { get; init; } = [];

    /// <summary>How long a provider's RSA key must be. 3,072 bits are as hard to break as ES256.</summary>
    public int MinRsaBits { get; init; } = 2048;

    /// <summary>Key pairs of the provider's own: no <c>none</c>, and no shared secret that a public key could be taken for.</summary>
    internal static readonly IReadOnlyList<string> KnownAlgorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];

    /// <summary>What stands before a scope of this service, such as <c>orders:</c> in <c>orders:read</c>, where a provider's scopes are for several services.</summary>
    public string ScopePrefix { get; init; } = "";
}

/// <summary>Requests a second and the burst above them. A request beyond is answered 429 with <c>Retry-After</c>.</summary>
public sealed class RateLimitOptions
{
    public int PerKey { get; init; } = 500;

    public int PerKeyBurst { get; init; } = 1_000;

    public int Global { get; init; } = 2_000;

    public int GlobalBurst { get; init; } = 4_000;

    /// <summary>Requests without a valid key from one address (of IPv6, one /64).</summary>
    public int Anonymous { get; init; } = 20;

    /// <summary>Wrong keys at the sign-in from one address, with a burst of ten times as many. A right key always gets in.</summary>
    public int SignIn { get; init; } = 2;
}

internal sealed class ApiOptionsValidator : IValidateOptions<ApiOptions>
{
    /// <summary>A key with fewer different ones was typed, not made.</summary>
    private const int FewestCharacters = 5;

    public ValidateOptionsResult Validate(string? name, ApiOptions options)
    {
        var mistakes = new List<string>();
        for (var index = 0; index < options.Keys.Count; index++)
        {
            var key = options.Keys[index];
            if (string.IsNullOrWhiteSpace(key.Name) || key.Name.Length > 64 || key.Name.Any(char.IsControl))
            {
                mistakes.Add($"Api:Keys:{index}:Name: must have 1 to 64 characters; the audit log shows it.");
            }
            if (Encoding.UTF8.GetByteCount(key.Key) < 32)
            {
                mistakes.Add(key.Key.Length == 0
                    ? $"Api:Keys:{index}:Key: missing; set it, or name a file with Api:Keys:{index}:KeyFile."
                    : $"Api:Keys:{index}:Key: shorter than 32 bytes; make one with: openssl rand -hex 32");
            }
            else if (key.Key.Any(character => character is < '!' or > '~'))
            {
                mistakes.Add($"Api:Keys:{index}:Key: has a character that an HTTP header can't carry.");
            }
            else if (key.Key.Distinct().Count() < FewestCharacters)
            {
                mistakes.Add($"Api:Keys:{index}:Key: the same few characters again and again, which is soon guessed; make one with: openssl rand -hex 32");
            }
            foreach (var command in key.Commands.Where(command => !CommandType.IsKnown(command)))
            {
                mistakes.Add($"Api:Keys:{index}:Commands: '{command}' is no command; there are {string.Join(", ", CommandType.All)}.");
            }
            if (key.Commands.Count > 0 && !key.Scopes.Contains(Scopes.Publish))
            {
                mistakes.Add($"Api:Keys:{index}:Commands: set, and Api:Keys:{index}:Scopes lacks '{Scopes.Publish}'.");
            }
            if (key.Scopes.Count == 0)
            {
                mistakes.Add($"Api:Keys:{index}:Scopes: missing; name some of {string.Join(", ", Scopes.All)}.");
            }
            foreach (var scope in key.Scopes.Where(scope => !Scopes.All.Contains(scope)))
            {
                mistakes.Add($"Api:Keys:{index}:Scopes: '{scope}' is not a scope; there are {string.Join(", ", Scopes.All)}.");
            }
        }
        foreach (var same in options.Keys.Where(key => key.Name.Length > 0).GroupBy(key => key.Name, StringComparer.OrdinalIgnoreCase).Where(group => group.Count() > 1))
        {
            mistakes.Add($"Api:Keys: two keys are named '{same.Key}'; names must differ.");
        }
        if (options.Keys.Where(key => key.Key.Length > 0).GroupBy(key => key.Key).Any(group => group.Count() > 1))
        {
            mistakes.Add("Api:Keys: two entries hold the same key.");
        }

        if (options.Jwt.Authority is { Length: > 0 } authority)
        {
            if (!Uri.TryCreate(authority, UriKind.Absolute, out var uri) || !(uri.Scheme == Uri.UriSchemeHttps || (uri.Scheme == Uri.UriSchemeHttp && uri.IsLoopback)))
            {
                mistakes.Add("Api:Jwt:Authority: must be an https address.");
            }
            if (string.IsNullOrWhiteSpace(options.Jwt.Audience))
            {
                mistakes.Add("Api:Jwt:Audience: missing; without it every token of the provider would be let in.");
            }
        }
        else if (!string.IsNullOrWhiteSpace(options.Jwt.Audience))
        {
            mistakes.Add("Api:Jwt:Authority: missing, and Api:Jwt:Audience is set.");
        }

        foreach (var algorithm in options.Jwt.Algorithms.Where(algorithm => !JwtOptions.KnownAlgorithms.Contains(algorithm)))
        {
            mistakes.Add($"Api:Jwt:Algorithms: '{algorithm}' is not let in; there are {string.Join(", ", JwtOptions.KnownAlgorithms)}.");
        }

        void CheckTime(TimeSpan value, TimeSpan least, TimeSpan most, string key)
        {
            if (value < least || value > most)
            {
                mistakes.Add($"Api:{key}: must be between {least} and {most}.");
            }
        }

        void CheckNumber(int value, int least, int most, string key)
        {
            if (value < least || value > most)
            {
                mistakes.Add($"Api:{key}: must be between {least} and {most}.");
            }
        }

        CheckTime(options.KeepAnswersFor, TimeSpan.FromMinutes(1), TimeSpan.FromDays(30), nameof(options.KeepAnswersFor));
        CheckTime(options.FirstKeyLifetime, TimeSpan.FromMinutes(1), TimeSpan.FromDays(3650), nameof(options.FirstKeyLifetime));
        CheckTime(options.SessionIdleTimeout, TimeSpan.FromMinutes(1), TimeSpan.FromDays(30), nameof(options.SessionIdleTimeout));
        CheckTime(options.SessionLifetime, TimeSpan.FromMinutes(1), TimeSpan.FromDays(30), nameof(options.SessionLifetime));
        CheckNumber(options.Jwt.MinRsaBits, 2048, 16_384, "Jwt:MinRsaBits");
        CheckNumber(options.MaxConnections, 100, 100_000, nameof(options.MaxConnections));
        CheckNumber(options.MaxConnectionsPerAddress, 10, options.MaxConnections, nameof(options.MaxConnectionsPerAddress));
        CheckNumber(options.MaxStreamsPerCaller, 1, 10_000, nameof(options.MaxStreamsPerCaller));
        CheckNumber(options.MaxStreams, 1, 10_000, nameof(options.MaxStreams));
        CheckNumber(options.RateLimit.PerKey, 1, 1_000_000, "RateLimit:PerKey");
        CheckNumber(options.RateLimit.PerKeyBurst, 1, 1_000_000, "RateLimit:PerKeyBurst");
        CheckNumber(options.RateLimit.Global, 1, 1_000_000, "RateLimit:Global");
        CheckNumber(options.RateLimit.GlobalBurst, 1, 1_000_000, "RateLimit:GlobalBurst");
        CheckNumber(options.RateLimit.Anonymous, 1, 1_000_000, "RateLimit:Anonymous");
        CheckNumber(options.RateLimit.SignIn, 1, 1_000, "RateLimit:SignIn");
        mistakes.AddRange(ProxyRules.Check(options));
        return mistakes.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(mistakes);
    }
}

/// <summary>What a key may do.</summary>
public static class Scopes
{
    /// <summary>Send commands.</summary>
    public const string Publish = "publish";

    /// <summary>See orders, events, dead letters, queues and alerts.</summary>
    public const string Read = "read";

    /// <summary>Replay, edit and discard dead letters, acknowledge incidents.</summary>
    public const string Operate = "operate";

    /// <summary>See what is personal, where <see cref="ApiOptions.RequirePersonalScope"/> asks for it.</summary>
    public const string Personal = "personal";

    public static readonly IReadOnlyList<string> All = [Publish, Read, Operate, Personal];
}
