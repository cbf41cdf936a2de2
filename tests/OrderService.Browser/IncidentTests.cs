using System.Text.RegularExpressions;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class IncidentTests(Shop shop)
{
    [Fact]
    public async Task An_incident_is_acknowledged_muted_and_resolved()
    {
        await shop.OpenAsync();
        await shop.PublishBrokenAsync(new TestMessage(null, shop.NewId("incident"), "{\"orderId\":\"I-1\",\"orderId\":\"I-1\"}"u8.ToArray()));
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.Locator(".incident-title").First.ClickAsync();
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("duplicate_field");
            await visitor.Button("Acknowledge").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("acknowledged");

            await visitor.Button("Mute").ClickAsync();
            await visitor.Dialog.GetByLabel("4 hours").CheckAsync();
            await visitor.Dialog.GetByLabel("Reason").FillAsync("known, mended tomorrow");
            await visitor.AssertAccessibleAsync("mute");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Mute", Exact = true }).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("muted");
            await visitor.Button("Unmute").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("acknowledged");

            await visitor.Button("Resolve").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("resolved");
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("tests");
        }, at: "#/incidents?q=duplicate_field");
    }

    [Fact]
    public Task Letters_of_one_cause_are_one_incident_with_the_money_it_holds() => shop.VisitAsync(async visitor =>
    {
        var incident = visitor.Page.Locator(".incident").First;
        await Expect(incident).ToContainTextAsync("quantity_out_of_range");
        await Expect(incident.Locator(".incident-held")).ToContainTextAsync("EUR");
        await Expect(incident.GetByRole(AriaRole.Img)).ToHaveAttributeAsync("aria-label", new Regex(@"^Letters in each of the last 24 hours: [1-9]\d* in the last one"));
        await Expect(incident.Locator(".bars rect")).ToHaveCountAsync(24);
        await incident.Locator(".incident-title").ClickAsync();
        await Expect(visitor.Page.Locator("tbody tr", new() { HasTextString = "W-201" })).ToBeVisibleAsync();
        await Expect(visitor.Page.Locator("tbody tr", new() { HasTextString = "W-101" })).ToHaveCountAsync(0);
    }, at: "#/incidents?q=quantity_out_of_range");
}
