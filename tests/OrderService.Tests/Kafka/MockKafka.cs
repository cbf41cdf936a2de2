using System.Runtime.InteropServices;
using System.Text;

namespace OrderService.Tests.Kafka;

/// <summary>
/// A Kafka cluster on loopback sockets that speaks the real protocol to any client of any process: the one librdkafka tests itself with, inside the client library.
/// It does not discard repeated records by their sequence numbers and knows no read_committed; never call ListConsumerGroups on it, that ends the process.
/// </summary>
internal sealed class MockKafka : IDisposable
{
    /// <summary>Kinds of requests, for <see cref="FailNext"/> and <see cref="Requests"/>.</summary>
    public const short Produce = 0, OffsetCommit = 8, InitProducerId = 22;

    private readonly nint client;
    private readonly nint cluster;

    static MockKafka() => NativeLibrary.SetDllImportResolver(typeof(MockKafka).Assembly, static (name, assembly, _) =>
    {
        if (name != Native.Library)
        {
            return 0;
        }
        // The order in which the client itself looks.
        foreach (var candidate in new[] { "librdkafka", "centos8-librdkafka", "alpine-librdkafka" })
        {
            if (NativeLibrary.TryLoad(candidate, typeof(Confluent.Kafka.ProducerConfig).Assembly, null, out var handle) || NativeLibrary.TryLoad(candidate, assembly, null, out handle))
            {
                return handle;
            }
        }
        return 0;
    });

    public MockKafka(int brokers = 3)
    {
        var error = new byte[512];
        var settings = Native.rd_kafka_conf_new();
        // This client is only the cluster's shell; that it has no servers of its own is not worth a line.
        _ = Native.rd_kafka_conf_set(settings, "log_level", "3", error, (nuint)error.Length);
        client = Native.rd_kafka_new(0, settings, error, (nuint)error.Length);
        if (client == 0)
        {
            throw new InvalidOperationException(Encoding.UTF8.GetString(error).TrimEnd('\0'));
        }
        cluster = Native.rd_kafka_mock_cluster_new(client, brokers);
        BootstrapServers = Marshal.PtrToStringUTF8(Native.rd_kafka_mock_cluster_bootstraps(cluster))!;
        // With the default of 3 s a group of members with short sessions never forms.
        Native.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 100);
        Native.rd_kafka_mock_start_request_tracking(cluster);
    }

    public string BootstrapServers { get; }

    public MockKafka WithTopic(string topic, int partitions = 3)
    {
        Check(Native.rd_kafka_mock_topic_create(cluster, topic, partitions, 1));
        return this;
    }

    /// <summary>No broker answers; what they hold stays.</summary>
    public void TakeDown() => Check(Native.rd_kafka_mock_broker_set_down(cluster, -1));

    public void BringUp() => Check(Native.rd_kafka_mock_broker_set_up(cluster, -1));

    /// <summary>The next requests of this kind get these answers; -195 drops the connection instead.</summary>
    public void FailNext(short kind, params int[] errors) => Native.rd_kafka_mock_push_request_errors_array(cluster, kind, (nuint)errors.Length, errors);

    /// <summary>How many requests of a kind the brokers saw.</summary>
    public int Requests(short kind)
    {
        var array = Native.rd_kafka_mock_get_requests(cluster, out var length);
        var count = 0;
        for (var index = 0; index < (int)length; index++)
        {
            count += Native.rd_kafka_mock_request_api_key(Marshal.ReadIntPtr(array, index * nint.Size)) == kind ? 1 : 0;
        }
        if (array != 0)
        {
            Native.rd_kafka_mock_request_destroy_array(array, length);
        }
        return count;
    }

    public void Dispose()
    {
        Native.rd_kafka_mock_cluster_destroy(cluster);
        Native.rd_kafka_destroy(client);
    }

    private static void Check(int code)
    {
        if (code != 0)
        {
            throw new InvalidOperationException(Marshal.PtrToStringUTF8(Native.rd_kafka_err2str(code)));
        }
    }

    private static class Native
    {
        public const string Library = "rdkafka-mock";

        [DllImport(Library)] public static extern nint rd_kafka_conf_new();
        [DllImport(Library)] public static extern int rd_kafka_conf_set(nint settings, [MarshalAs(UnmanagedType.LPUTF8Str)] string name, [MarshalAs(UnmanagedType.LPUTF8Str)] string value, byte[] error, nuint size);
        [DllImport(Library)] public static extern nint rd_kafka_new(int type, nint conf, byte[] error, nuint size);
        [DllImport(Library)] public static extern void rd_kafka_destroy(nint client);
        [DllImport(Library)] public static extern nint rd_kafka_err2str(int code);
        [DllImport(Library)] public static extern nint rd_kafka_mock_cluster_new(nint client, int brokers);
        [DllImport(Library)] public static extern void rd_kafka_mock_cluster_destroy(nint cluster);
        [DllImport(Library)] public static extern nint rd_kafka_mock_cluster_bootstraps(nint cluster);
        [DllImport(Library)] public static extern int rd_kafka_mock_topic_create(nint cluster, [MarshalAs(UnmanagedType.LPUTF8Str)] string topic, int partitions, int replication);
        [DllImport(Library)] public static extern int rd_kafka_mock_broker_set_down(nint cluster, int id);
        [DllImport(Library)] public static extern int rd_kafka_mock_broker_set_up(nint cluster, int id);
        [DllImport(Library)] public static extern void rd_kafka_mock_group_initial_rebalance_delay_ms(nint cluster, int milliseconds);
        [DllImport(Library)] public static extern void rd_kafka_mock_push_request_errors_array(nint cluster, short apiKey, nuint count, int[] errors);
        [DllImport(Library)] public static extern void rd_kafka_mock_start_request_tracking(nint cluster);
        [DllImport(Library)] public static extern nint rd_kafka_mock_get_requests(nint cluster, out nuint count);
        [DllImport(Library)] public static extern short rd_kafka_mock_request_api_key(nint request);
        [DllImport(Library)] public static extern void rd_kafka_mock_request_destroy_array(nint array, nuint count);
    }
}
