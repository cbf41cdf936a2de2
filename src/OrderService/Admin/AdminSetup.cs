using System.Text.Json.Serialization;
using Microsoft.AspNetCore.StaticFiles;
using Microsoft.Extensions.Options;

namespace OrderService.Admin;

public static class AdminSetup
{
    /// <summary>Registers the HTTP API: keys and sessions, rate limits, problem documents, OpenAPI.</summary>
    public static IServiceCollection AddAdmin(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<ApiOptions>().BindConfiguration(ApiOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<ApiOptions>, ApiOptionsValidator>();
        services.AddSingleton<ApiKeyRing>();
        services.AddSingleton<BrowserSessions>();
        services.AddSingleton<LivingSessions>();
        services.AddSingleton<RightsWatch>();
        services.AddSingleton<AuditLog>();
        services.AddSingleton<Refusals>();
        services.AddSingleton<CallerLimits>();
        services.AddSingleton<HttpRequests>();
        services.AddSingleton<CommandIntake>();
        services.AddSingleton<LiveStream>();
        services.AddSingleton<StoreCounts>();
        services.AddSingleton<IntakeView>();
        services.AddSingleton<RetentionView>();
        services.AddSingleton<IncidentList>();
        ApiAuthentication.Add(services, configuration);
        RateLimits.Add(services);
        services.AddExceptionHandler<UnexpectedErrors>();
        services.AddProblemDetails();
        // A number is a number, in answers, in bodies and in the document about them.
        services.ConfigureHttpJsonOptions(json => json.SerializerOptions.NumberHandling = JsonNumberHandling.Strict);
        ApiDocument.Add(services);
        return services;
    }

    /// <summary>What every request passes, in this order; <paramref name="app"/>'s endpoints come after it.</summary>
    public static void UseAdminRules(this WebApplication app)
    {
        ProxyRules.Use(app);
        app.UseExceptionHandler();
        app.Use(HttpRules.Protect);
        app.UseStatusCodePages(context =>
        {
            var (code, detail) = Problems.ForStatus(context.HttpContext.Response.StatusCode);
            return Problems.WriteAsync(context.HttpContext, context.HttpContext.Response.StatusCode, code, detail);
        });
        app.Use(Listeners.KeepApart);
        app.UseHostFiltering();
        app.Use(Onlookers.LookAtHost);
        ProxyRules.UsePublicAddress(app);
    }

    private static Task KnowCaller(HttpContext context, RequestDelegate next)
    {
        if (context.User.Identity?.IsAuthenticated == true)
        {
            ConnectionLimit.Know(context);
        }
        return next(context);
    }

    /// <summary>Every text of the page is UTF-8, and says so.</summary>
    private static FileExtensionContentTypeProvider TypesWithCharset()
    {
        var types = new FileExtensionContentTypeProvider();
        foreach (var (extension, type) in types.Mappings.Where(pair => pair.Value is "application/json" or "image/svg+xml" || pair.Value.StartsWith("text/", StringComparison.Ordinal)).ToList())
        {
            types.Mappings[extension] = type + "; charset=utf-8";
        }
        return types;
    }

    /// <summary>The API and the admin page. Only <c>/health</c>, <c>/metrics</c>, the page's own files and the sign-in answer without a key.</summary>
    public static void MapAdmin(this WebApplication app)
    {
        app.Use(app.Services.GetRequiredService<Refusals>().CountAsync);
        app.Use(static (context, next) =>
        {
            if (context.Request.Path == "/signin")
            {
                context.Request.Path = "/index.html";
            }
            return next(context);
        });
        app.UseDefaultFiles();
        app.UseStaticFiles(new StaticFileOptions { ContentTypeProvider = TypesWithCharset() });
        app.UseRouting();
        app.UseAuthentication();
        app.Use(KnowCaller);
        app.Use(app.Services.GetRequiredService<RightsWatch>().WatchAsync);
        app.UseRateLimiter();
        app.UseAuthorization();
        app.Use(HttpRules.CheckAccept);
        app.Use(HttpRules.CheckQuery);
        app.MapOpenApi("/openapi/{documentName}.json").RequireAuthorization(Scopes.Read);
        var api = app.MapGroup("/api").ReadsWithin(limits => limits.Reads);
        api.MapSession();
        api.MapCommands();
        api.MapOrders();
        api.MapEvents();
        api.MapOperations();
        api.MapIntake();
        api.MapRelay();
        api.MapCustomers();
        api.MapRetention();
        api.MapDeadLetters();
        api.MapReplays();
        api.MapAlerts();
    }
}
