namespace OrderService.Store;

/// <summary>Streams are spread over a fixed number of shards; a shard's relay is one instance at a time.</summary>
public static class Shard
{
    public const int Count = 16;

    /// <summary>The shard of a stream, the same on every machine and in every version (FNV-1a over the id's characters).</summary>
    public static int Of(string orderId)
    {
        var hash = 2166136261u;
        foreach (var character in orderId)
        {
            hash = (hash ^ character) * 16777619u;
        }
        return (int)(hash % Count);
    }
}
