using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Configuration;

/// <summary>docs/configuration.md names every setting there is.</summary>
public sealed class ConfigurationPageTests
{
    [Fact]
    public void Every_setting_is_on_the_page()
    {
        var page = Repository.Read("docs/configuration.md");
        var settings = OrderServiceHost.Rules.Sections.SelectMany(section => Keys(section.Value, section.Key)).ToList();

        Assert.True(settings.Count > 60, $"only {settings.Count} settings were found");
        Assert.DoesNotContain(settings, setting => !page.Contains($"`{setting}`", StringComparison.Ordinal));
    }

    private static IEnumerable<string> Keys(Type type, string path)
    {
        foreach (var property in type.GetProperties().Where(property => property.SetMethod is not null))
        {
            var key = $"{path}:{property.Name}";
            var declared = property.PropertyType;
            if (declared.IsGenericType && declared.GetGenericTypeDefinition() == typeof(IList<>))
            {
                key += ":N";
                declared = declared.GetGenericArguments()[0];
            }
            if (declared.Namespace!.StartsWith("OrderService", StringComparison.Ordinal) && declared.IsClass)
            {
                foreach (var inner in Keys(declared, key))
                {
                    yield return inner;
                }
            }
            else
            {
                yield return key;
            }
        }
    }
}
