namespace OrderService.Tests.Deployment;

/// <summary>Tests that build and start the whole product take turns.</summary>
[CollectionDefinition(nameof(Deployment))]
public sealed class Deployment;
