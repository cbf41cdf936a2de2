using System.Security.Claims;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Authorization.Policy;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;

namespace OrderService.Admin;

/// <summary>
/// Lets in who brings an API key (<c>Authorization: Bearer</c> or <c>X-Api-Key</c>), a browser's session, or a token of the configured OpenID Connect provider.
/// A key in the query string is never looked at: addresses end up in logs.
/// </summary>
internal sealed class ApiAuthentication(
    IOptionsMonitor<AuthenticationSchemeOptions> options, UrlEncoder encoder, ApiKeyRing keys, BrowserSessions sessions)
    // The framework would write a line for each wrong key, in this class's name; Refusals counts them.
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, NullLoggerFactory.Instance, encoder)
{
    public const string SchemeName = "ApiKey";
    private static readonly TimeSpan ProviderTimeout = TimeSpan.FromSeconds(10);
    internal const string ScopeClaim = "scope";
    private const string CommandClaim = "command";

    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        if (PresentedKey(Context) is { } presented)
        {
            return keys.Find(presented) is { } key
                ? AuthenticateResult.Success(Ticket(key, "key", CallerRight.Of(key)))
                : AuthenticateResult.Fail("The key is not known.");
        }
        if (await sessions.ReadAsync(Context) is { } session)
        {
            if (!BrowserSessions.IsFromThisSite(Context, session))
            {
                Context.Items[CrossSite] = true;
                return AuthenticateResult.Success(new AuthenticationTicket(new ClaimsPrincipal(Identity(CallerName.OfKey(session.Key.Name), [], "session", CallerRight.Of(session))), SchemeName));
            }
            sessions.Use(Context, session);
            return AuthenticateResult.Success(Ticket(session.Key, "session", CallerRight.Of(session)));
        }
        return AuthenticateResult.NoResult();
    }

    /// <summary>Set on requests that a session's browser was made to send by another site.</summary>
    public static readonly object CrossSite = new();

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        Response.Headers.WWWAuthenticate = "Bearer realm=\"orderservice\"";
        return Problems.WriteAsync(Context, StatusCodes.Status401Unauthorized, "unauthorized",
            PresentedKey(Context) is null ? "A key is needed: send Authorization: Bearer KEY, or sign in." : "The key is not valid.");
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties) => Task.CompletedTask;

    /// <summary>The one key that the request brings; null when it brings none.</summary>
    public static string? PresentedKey(HttpContext context)
    {
        if (context.Request.Headers["X-Api-Key"] is [{ Length: > 0 } key])
        {
            return key;
        }
        return context.Request.Headers.Authorization is [{ } authorization] && authorization.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase)
            ? authorization["Bearer ".Length..].Trim()
            : null;
    }

    private static AuthenticationTicket Ticket(ApiKeyRing.Entry key, string kind, CallerRight right) =>
        new(new ClaimsPrincipal(Identity(CallerName.OfKey(key.Name), key.Scopes, kind, right, key.Commands)), SchemeName);

    private static ClaimsIdentity Identity(string name, IEnumerable<string> scopes, string kind, CallerRight right, IReadOnlyList<string>? commands = null) => new(
        [
            new Claim(ClaimTypes.Name, name), new Claim(CallerRight.ClaimType, right.ToString()),
            .. scopes.Select(scope => new Claim(ScopeClaim, scope)), .. (commands ?? []).Select(command => new Claim(CommandClaim, command)),
        ],
        kind);

    /// <summary>Whether the caller may send commands of this type.</summary>
    public static bool MaySend(HttpContext context, string commandType) =>
        !context.User.HasClaim(claim => claim.Type == CommandClaim) || context.User.HasClaim(CommandClaim, commandType);

    public static void Add(IServiceCollection services, IConfiguration configuration)
    {
        var jwt = configuration.GetSection($"{ApiOptions.Section}:Jwt").Get<JwtOptions>() ?? new JwtOptions();
        // Not AddAuthentication: it would bring data protection along, which writes keys of its own to disk that nothing here needs.
        services.AddAuthenticationCore(authenticate => authenticate.DefaultScheme = SchemeName);
        services.AddWebEncoders();
        services.AddSingleton<IAuthenticationConfigurationProvider>(new NoOtherConfiguration(configuration.GetSection("Authentication")));
        var authentication = new AuthenticationBuilder(services).AddScheme<AuthenticationSchemeOptions, ApiAuthentication>(SchemeName, configure =>
        {
            if (!string.IsNullOrEmpty(jwt.Authority))
            {
                // A token has three parts; a key has none.
                configure.ForwardDefaultSelector = context => PresentedKey(context)?.Count(character => character == '.') == 2 ? JwtBearerDefaults.AuthenticationScheme : null;
            }
        });
        if (!string.IsNullOrEmpty(jwt.Authority))
        {
            authentication.AddJwtBearer(bearer =>
            {
                bearer.Authority = jwt.Authority;
                bearer.Audience = jwt.Audience;
                bearer.BackchannelHttpHandler = new SocketsHttpHandler { AllowAutoRedirect = false, ConnectCallback = EveryAddress.ForHttp(null, ProviderTimeout) };
                bearer.RequireHttpsMetadata = !new Uri(jwt.Authority).IsLoopback;
                bearer.MapInboundClaims = false;
                bearer.TokenValidationParameters = new TokenValidationParameters
                {
                    // Signatures of the provider's own key pairs only: no "none", and no shared secret that its public key could be taken for.
                    ValidAlgorithms = jwt.Algorithms.Count > 0 ? jwt.Algorithms : JwtOptions.KnownAlgorithms,
                    ValidateIssuerSigningKey = true,
                    IssuerSigningKeyValidator = (key, _, _) => AccessTokens.IsStrong(key, jwt.MinRsaBits),
                    ValidateAudience = true,
                    ValidateIssuer = true,
                    RequireExpirationTime = true,
                    RequireSignedTokens = true,
                    ClockSkew = TimeSpan.FromSeconds(30),
                    NameClaimType = "sub",
                };
                bearer.Events = new JwtBearerEvents
                {
                    OnTokenValidated = context =>
                    {
                        Accept(context, jwt);
                        return Task.CompletedTask;
                    },
                    OnChallenge = context =>
                    {
                        context.HandleResponse();
                        context.Response.Headers.WWWAuthenticate = "Bearer realm=\"orderservice\", error=\"invalid_token\"";
                        return Problems.WriteAsync(context.HttpContext, StatusCodes.Status401Unauthorized, "unauthorized", "The token is not valid.");
                    },
                    OnForbidden = _ => Task.CompletedTask,
                };
            });
        }
        var authorization = services.AddAuthorizationBuilder();
        foreach (var scope in Scopes.All)
        {
            authorization.AddPolicy(scope, policy => policy.RequireClaim(ScopeClaim, scope));
        }
        // Deny by default: an endpoint that names no scope still needs a known caller.
        authorization.SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build());
        services.AddSingleton<IAuthorizationMiddlewareResultHandler, AuditedRefusals>();
    }

    /// <summary>Makes a token's holder our caller, or refuses a token that is not one for access.</summary>
    private static void Accept(TokenValidatedContext context, JwtOptions options)
    {
        var token = (JsonWebToken)context.SecurityToken;
        if (AccessTokens.WhyNot(token, options.TokenTypes) is { } refusal)
        {
            context.Fail(refusal);
            return;
        }
        var identity = (ClaimsIdentity)context.Principal!.Identity!;
        var granted = identity.FindAll(claim => claim.Type is "scope" or "scp" or "roles").SelectMany(claim => claim.Value.Split(' '))
            .Where(scope => scope.StartsWith(options.ScopePrefix, StringComparison.Ordinal)).Select(scope => scope[options.ScopePrefix.Length..])
            .Distinct().Where(Scopes.All.Contains);
        var right = CallerRight.OfToken(token.ValidTo, identity.FindFirst("preferred_username")?.Value);
        context.Principal = new ClaimsPrincipal(Identity(CallerName.OfToken(token.Issuer, token.Subject), granted, "token", right));
    }
}

/// <summary>Bearer tokens ask for this; ours are configured in the section <c>Api</c> alone.</summary>
internal sealed class NoOtherConfiguration(IConfiguration empty) : IAuthenticationConfigurationProvider
{
    public IConfiguration AuthenticationConfiguration => empty;
}

/// <summary>Answers 401 and 403, and says why in the audit log.</summary>
internal sealed class AuditedRefusals : IAuthorizationMiddlewareResultHandler
{
    private readonly AuthorizationMiddlewareResultHandler standard = new();

    public async Task HandleAsync(RequestDelegate next, HttpContext context, AuthorizationPolicy policy, PolicyAuthorizationResult authorizeResult)
    {
        if (context.Items.ContainsKey(ApiAuthentication.CrossSite))
        {
            await RefuseAsync(context, "cross_site", BrowserSessions.OriginMismatch(context) ?? "The request came from another site, or without the session's token.");
            return;
        }
        if (authorizeResult.Forbidden)
        {
            var missing = policy.Requirements.OfType<Microsoft.AspNetCore.Authorization.Infrastructure.ClaimsAuthorizationRequirement>().SelectMany(requirement => requirement.AllowedValues ?? [])
                .FirstOrDefault(scope => !context.User.HasClaim(ApiAuthentication.ScopeClaim, scope));
            await RefuseAsync(context, "forbidden", missing is null ? "The key does not allow this." : $"The key lacks the scope '{missing}'.");
            return;
        }
        await standard.HandleAsync(next, context, policy, authorizeResult);
    }

    private static Task RefuseAsync(HttpContext context, string code, string detail)
    {
        Refusals.Because(context, detail);
        return Problems.WriteAsync(context, StatusCodes.Status403Forbidden, code, detail);
    }
}
