using System.Text.RegularExpressions;
using k8s;
using k8s.Models;
using OrderService.Tests.Infrastructure;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace OrderService.Tests.Deployment;

/// <summary>deploy/kubernetes: each overlay is rendered as <c>kubectl apply -k</c> does, read strictly (a misspelt member is a mistake), and held against what the service needs.</summary>
public sealed partial class KubernetesTests
{
    /// <summary>Kinds that other controllers bring, and the members of their specs that are used here, as those controllers' references have them.</summary>
    private static readonly Dictionary<string, string[]> OtherKinds = new(StringComparer.Ordinal)
    {
        ["ScaledObject"] = ["scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "advanced", "triggers"],
        ["TriggerAuthentication"] = ["secretTargetRef"],
        ["PodMonitor"] = ["jobLabel", "selector", "podMetricsEndpoints"],
        ["PrometheusRule"] = ["groups"],
    };

    private static readonly string[] AllRoles = ["orders", "dead-letters", "relay", "api"];

    public static TheoryData<string> Overlays { get; } = ["sqlite", "postgres", "keda", "monitoring"];

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task An_overlay_is_rendered_and_read_strictly(string overlay)
    {
        var objects = await RenderAsync(overlay);

        Assert.Contains(objects, one => one is V1Namespace);
        Assert.All(objects.OfType<IKubernetesObject<V1ObjectMeta>>().Where(one => one is not V1Namespace), one => Assert.Equal("orders", one.Metadata.NamespaceProperty));
        var names = objects.OfType<IKubernetesObject<V1ObjectMeta>>().Select(one => $"{one.Kind}/{one.Metadata.Name}").ToList();
        Assert.Equal(names.Distinct(), names);
        Assert.Equal(overlay == "sqlite" ? ["orders"] : ["api", "dead-letters", "worker"], Pods(objects).Select(pod => pod.Name).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_misspelt_member_is_found() => Assert.ThrowsAny<YamlException>(() => Read(
        Repository.Read("deploy/kubernetes/base/api.yaml").Replace("livenessProbe:", "livenesProbe:", StringComparison.Ordinal)));

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task Pods_have_no_more_rights_than_they_need_and_time_to_end(string overlay)
    {
        foreach (var (name, pod, labels) in Pods(await RenderAsync(overlay)))
        {
            Assert.True(pod.SecurityContext.RunAsNonRoot, name);
            Assert.Equal(1654, pod.SecurityContext.RunAsUser);
            Assert.Equal("RuntimeDefault", pod.SecurityContext.SeccompProfile.Type);
            Assert.False(pod.AutomountServiceAccountToken, name);
            Assert.True(pod.TerminationGracePeriodSeconds > OrderServiceHost.DrainTimeout.TotalSeconds + 5, $"{name} is killed while it drains");
            var container = Assert.Single(pod.Containers);
            Assert.False(container.SecurityContext.AllowPrivilegeEscalation, name);
            Assert.True(container.SecurityContext.ReadOnlyRootFilesystem, name);
            Assert.Equal(["ALL"], container.SecurityContext.Capabilities.Drop);
            Assert.Equal(container.Resources.Requests["memory"], container.Resources.Limits["memory"]);
            Assert.True(container.Resources.Requests.ContainsKey("cpu"), name);
            Assert.Null(container.Env);
            Assert.Matches(@"^ghcr\.io/.+:\d+\.\d+\.\d+$", container.Image);

            Assert.Equal(8081, Assert.Single(container.Ports, port => port.Name == "management").ContainerPort);
            var probes = new[] { container.StartupProbe, container.LivenessProbe, container.ReadinessProbe };
            Assert.Equal(["/health/live", "/health/live", "/health/ready"], probes.Select(probe => probe.HttpGet.Path));
            Assert.All(probes, probe => Assert.Equal("management", probe.HttpGet.Port.Value));
            // What it may write to is on a volume.
            Assert.Superset(new HashSet<string> { "/data", "/tmp", "/run/secrets/orderservice" }, container.VolumeMounts.Select(mount => mount.MountPath).ToHashSet());
            Assert.True(container.VolumeMounts.Single(mount => mount.Name == "secrets").ReadOnlyProperty, name);
            Assert.Equal("orderservice", labels["app.kubernetes.io/name"]);
        }
    }

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task Settings_are_those_that_the_service_knows_and_the_roles_are_all_there(string overlay)
    {
        var objects = await RenderAsync(overlay);
        var folder = Directory.CreateTempSubdirectory("orderservice-kubernetes-").FullName;
        try
        {
            File.WriteAllText(Path.Combine(folder, "broker"), "amqps://orders:secret@rabbitmq.example:5671/");
            File.WriteAllText(Path.Combine(folder, "store"), "Host=db.example;Username=orders;Password=secret;Database=orders;SSL Mode=VerifyFull");
            File.WriteAllText(Path.Combine(folder, "key"), "Hq7-8vTzP2mXw4LrB9cYsK3nDf6gJ1aE");
            var settings = objects.OfType<V1ConfigMap>().Single(map => map.Metadata.Name == "orderservice").Data.ToDictionary(
                setting => setting.Key.Replace("__", ":", StringComparison.Ordinal),
                setting => (string?)setting.Value.Replace("/run/secrets/orderservice", folder, StringComparison.Ordinal));

            var loaded = OrderServiceHost.LoadSettings(settings, environmentVariables: false);

            Assert.Empty(loaded.Mistakes);
            Assert.Equal(overlay == "sqlite" ? "Sqlite" : "Postgres", loaded.Configuration["Store:Provider"]);
            Assert.Equal("amqps://orders:secret@rabbitmq.example:5671/", loaded.Configuration["RabbitMq:Uri"]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
        var roles = Pods(objects).SelectMany(pod => pod.Pod.Containers[0].Args is [_, "--roles", var given] ? given.Split(',') : AllRoles).ToList();
        Assert.Equal(AllRoles.Order(StringComparer.Ordinal), roles.Order(StringComparer.Ordinal));
    }

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task What_selects_pods_finds_some(string overlay)
    {
        var objects = await RenderAsync(overlay);
        var pods = Pods(objects).Select(pod => pod.Labels).ToList();
        var selectors = objects.OfType<V1Service>().Select(service => service.Spec.Selector)
            .Concat(objects.OfType<V1PodDisruptionBudget>().Select(budget => budget.Spec.Selector.MatchLabels))
            .Concat(objects.OfType<V1NetworkPolicy>().Select(policy => policy.Spec.PodSelector.MatchLabels ?? new Dictionary<string, string>()))
            .Concat(objects.OfType<V1Deployment>().Select(deployment => deployment.Spec.Selector.MatchLabels))
            .Concat(objects.OfType<V1StatefulSet>().Select(set => set.Spec.Selector.MatchLabels))
            .ToList();

        Assert.True(selectors.Count >= 4);
        Assert.All(selectors, selector => Assert.Contains(pods, pod => selector.All(label => pod.TryGetValue(label.Key, out var value) && value == label.Value)));
        var service = Assert.Single(objects.OfType<V1Service>());
        Assert.Contains(Pods(objects), pod => pod.Pod.Containers[0].Ports.Any(port => port.Name == service.Spec.Ports[0].TargetPort.Value));
    }

    [Fact]
    public void The_alerts_and_the_dashboard_are_those_of_everybody_else()
    {
        var rules = Repository.Read("deploy/prometheus/rules.yml");
        var wrapped = Repository.Read("deploy/kubernetes/overlays/monitoring/rules.yaml");

        Assert.Equal(
            rules[rules.IndexOf("groups:", StringComparison.Ordinal)..].TrimEnd(),
            Indent().Replace(wrapped[wrapped.IndexOf("  groups:", StringComparison.Ordinal)..], "").TrimEnd());
        Assert.Equal(Repository.Read("deploy/grafana/orders.json"), Repository.Read("deploy/kubernetes/overlays/monitoring/orders.json"));
    }

    private static async Task<List<object>> RenderAsync(string overlay)
    {
        var kubectl = Tool.Require("kubectl", "install it from https://kubernetes.io/docs/tasks/tools/");
        var (code, output) = await Tool.RunAsync(kubectl, ["kustomize", $"deploy/kubernetes/overlays/{overlay}"]);
        Assert.True(code == 0, output);
        return Read(output);
    }

    private static List<object> Read(string text)
    {
        var known = new List<string>();
        foreach (var document in DocumentEnd().Split(text))
        {
            var stream = new YamlStream();
            stream.Load(new StringReader(document));
            var root = (YamlMappingNode)stream.Documents[0].RootNode;
            if (OtherKinds.TryGetValue(((YamlScalarNode)root["kind"]).Value!, out var members))
            {
                Assert.Empty(((YamlMappingNode)root["spec"]).Children.Keys.Select(key => ((YamlScalarNode)key).Value!).Except(members));
            }
            else
            {
                known.Add(document);
            }
        }
        return KubernetesYaml.LoadAllFromString(string.Join("\n---\n", known), null, strict: true);
    }

    private static IEnumerable<(string Name, V1PodSpec Pod, IDictionary<string, string> Labels)> Pods(List<object> objects) =>
    [
        .. objects.OfType<V1Deployment>().Select(one => (one.Metadata.Name, one.Spec.Template.Spec, one.Spec.Template.Metadata.Labels)),
        .. objects.OfType<V1StatefulSet>().Select(one => (one.Metadata.Name, one.Spec.Template.Spec, one.Spec.Template.Metadata.Labels)),
    ];

    [GeneratedRegex("^---$\n?", RegexOptions.Multiline)]
    private static partial Regex DocumentEnd();

    [GeneratedRegex("^  ", RegexOptions.Multiline)]
    private static partial Regex Indent();
}
