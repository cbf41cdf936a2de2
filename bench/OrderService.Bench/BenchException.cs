namespace OrderService.Bench;

/// <summary>A run that can't count; the message says why.</summary>
internal sealed class BenchException(string message) : Exception(message);
