namespace OrderService.Observability;

/// <summary>A station whose loops run beside the host's. When one of them breaks down the process ends: a restart finds everything in broker and store, and a half-dead station would be noticed by nobody.</summary>
internal interface IStation
{
    /// <summary>They end when the station stops; one that ends with an exception has broken down.</summary>
    IReadOnlyList<Task> Loops { get; }
}
