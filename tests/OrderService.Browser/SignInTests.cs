using System.Net;
using System.Net.Http.Json;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class SignInTests(Shop shop)
{
    [Fact]
    public Task Somebody_signs_in_with_a_key_and_out_again() => shop.VisitAsync(async visitor =>
    {
        await visitor.LoadAsync("/");
        await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
        await visitor.ScreenshotAsync("sign-in-light");
        await visitor.AssertAccessibleAsync("sign in");

        await visitor.Page.GetByLabel("API key").FillAsync("wrong");
        await visitor.Button("Sign in").ClickAsync();
        await Expect(visitor.Page.GetByRole(AriaRole.Alert)).ToHaveTextAsync("The service does not know this key.");

        await visitor.Page.GetByLabel("API key").FillAsync(RunningService.ApiKey);
        await visitor.Button("Sign in").ClickAsync();
        await Expect(visitor.Heading("Overview")).ToBeVisibleAsync();

        await visitor.Button("Signed in as tests").ClickAsync();
        await visitor.Button("Sign out").ClickAsync();
        await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
        await visitor.LoadAsync("/");
        await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
    }, signedIn: false);

    [Fact]
    public Task The_signed_link_leaves_no_key_in_the_address_or_in_storage() => shop.VisitAsync(async visitor =>
    {
        await visitor.LoadAsync($"/#key={RunningService.ApiKey}");
        await Expect(visitor.Heading("Overview")).ToBeVisibleAsync();

        Assert.DoesNotContain(RunningService.ApiKey, visitor.Page.Url, StringComparison.Ordinal);
        Assert.DoesNotContain(RunningService.ApiKey, await visitor.Page.EvaluateAsync<string>("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"), StringComparison.Ordinal);
        var cookie = Assert.Single(await visitor.Page.Context.CookiesAsync());
        Assert.True(cookie.HttpOnly);
        Assert.Equal(SameSiteAttribute.Strict, cookie.SameSite);
    }, signedIn: false);

    [Fact]
    public Task Signed_in_browsers_are_listed_and_one_of_them_is_ended() => shop.VisitAsync(async visitor =>
    {
        using var other = new HttpClient { BaseAddress = new Uri(visitor.Page.Url) };
        // Not with the key of all the other visitors here, whose sessions are theirs.
        using var signIn = await other.PostAsJsonAsync("/api/session", new { key = Shop.ReaderKey }, TestContext.Current.CancellationToken);
        signIn.EnsureSuccessStatusCode();

        await visitor.Button("Signed in as tests").ClickAsync();
        await visitor.Page.GetByRole(AriaRole.Link, new() { Name = "Signed-in browsers" }).ClickAsync();
        await Expect(visitor.Heading("Signed-in browsers")).ToBeVisibleAsync();
        await Expect(visitor.Page.GetByText("this browser")).ToHaveCountAsync(1);
        var ends = visitor.Page.GetByRole(AriaRole.Button, new() { Name = "End the session of reader from 127.0.0.1" });
        await Expect(ends.First).ToBeVisibleAsync();
        await visitor.ScreenshotAsync("sessions");
        await visitor.AssertAccessibleAsync("sessions");
        await ends.First.ClickAsync();

        await Expect(visitor.Page.GetByText("1 session ended.")).ToBeVisibleAsync();
        await Eventually.TrueAsync(async () =>
        {
            using var again = await other.GetAsync(new Uri("/api/session", UriKind.Relative), TestContext.Current.CancellationToken);
            return again.StatusCode == HttpStatusCode.Unauthorized;
        });
    });

    [Fact]
    public Task A_session_that_ended_asks_for_the_key_and_comes_back_to_the_same_place() => shop.VisitAsync(async visitor =>
    {
        await visitor.Page.Context.ClearCookiesAsync();
        await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
        await visitor.Page.GetByLabel("API key").FillAsync(RunningService.ApiKey);
        await visitor.Button("Sign in").ClickAsync();
        await Expect(visitor.Heading("Queues")).ToBeVisibleAsync();
    }, at: "#/queues");
}
