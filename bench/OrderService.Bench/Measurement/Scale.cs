using System.Diagnostics;
using System.Globalization;
using OrderService.Bench.Contestants;
using OrderService.Configuration;
using OrderService.Store;

namespace OrderService.Bench.Measurement;

/// <summary>What an order costs in a store of a given size.</summary>
/// <param name="Events">Events in the store before the drains; each is a stream of its own with its inbox row, the case with the most rows per event.</param>
/// <param name="ReadStreamP50">Milliseconds to read one order's stream, random orders.</param>
internal sealed record ScalePoint(string Contestant, long Events, double Rate, double CpuPerThousand, double? DatabaseCpuPerThousand, double StartSeconds, long PeakMemory, long StoreBytes, double ReadStreamP50, double ReadStreamP99);

/// <summary>A size nobody waited for: cost = a + b log2(events), fitted to the measured points.</summary>
internal sealed record Extrapolation(string Contestant, long Events, double Rate, double StoreGigabytes);

/// <summary>Fills a store step by step, and drains the same number of orders into it at each size.</summary>
internal sealed class Scale(BenchAddresses addresses, Throughput throughput, string folder)
{
    private const int Chunk = 250_000;

    public async Task<IReadOnlyList<ScalePoint>> RunAsync(Contestant contestant, IReadOnlyList<long> sizes, int orders, int rounds, Action<ScalePoint> measured, CancellationToken cancellationToken)
    {
        var points = new List<ScalePoint>();
        await using var store = await StoreRun.CreateAsync(addresses, contestant.Store, $"bench-scale-{contestant.Store}".ToLowerInvariant(), Path.Combine(folder, "data"));
        await using var stations = Stations(contestant, store);
        await stations.GetRequiredService<IDatabase>().MigrateAsync(cancellationToken);
        long filled = 0;
        var drained = 0;
        foreach (var size in sizes.Order())
        {
            await FillAsync(store, filled, size);
            filled = size;
            var drains = new List<Drain>();
            for (var round = 1; round <= rounds; round++)
            {
                var workload = Workload.WithCopies(orders, drained);
                drains.Add(await throughput.RunAsync(contestant, round, workload, cancellationToken, prepared: store));
                drained += workload.Distinct;
            }
            var (p50, p99) = await ReadStreamsAsync(stations.GetRequiredService<EventQueries>(), size > 0 ? size : drained, size > 0, cancellationToken);
            var point = new ScalePoint(
                contestant.Name, size, Percentile.Median(drains.Select(drain => drain.Rate)), Percentile.Median(drains.Select(drain => drain.CpuPerThousand)),
                drains[0].DatabaseCpuPerThousand is null ? null : Percentile.Median(drains.Select(drain => drain.DatabaseCpuPerThousand ?? 0)),
                Percentile.Median(drains.Select(drain => drain.StartSeconds)), drains.Max(drain => drain.PeakMemory), drains[^1].StoreBytes, p50, p99);
            points.Add(point);
            measured(point);
        }
        return points;
    }

    /// <summary>Fits and extends; the store's caches are the part no formula knows: past the memory of the machine, reads of the inbox go to the disk.</summary>
    public static IEnumerable<Extrapolation> Extrapolate(IReadOnlyList<ScalePoint> points, IEnumerable<long> sizes)
    {
        var filled = points.Where(point => point.Events > 0).ToList();
        if (filled.Count < 2)
        {
            yield break;
        }
        double[] x = [.. filled.Select(point => Math.Log2(point.Events))];
        double[] y = [.. filled.Select(point => 1 / point.Rate)];
        double meanX = x.Average(), meanY = y.Average();
        var slope = x.Zip(y, (a, b) => (a - meanX) * (b - meanY)).Sum() / x.Sum(a => (a - meanX) * (a - meanX));
        var bytesPerEvent = (double)(filled[^1].StoreBytes - filled[0].StoreBytes) / (filled[^1].Events - filled[0].Events);
        foreach (var size in sizes)
        {
            // A cost that fell with size in the measurement is noise; no store gets faster as it grows.
            var cost = meanY + Math.Max(0, slope) * (Math.Log2(size) - meanX);
            yield return new Extrapolation(filled[0].Contestant, size, 1 / cost, bytesPerEvent * size / 1e9);
        }
    }

    private static ServiceProvider Stations(Contestant contestant, StoreRun store)
    {
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(
        [
            new("Store:Provider", contestant.Store.ToString()),
            new("Store:Path", contestant.Store == StoreKind.Sqlite ? store.SqlitePath : null),
            new("Store:ConnectionString", contestant.Store == StoreKind.Postgres ? store.PostgresConnection : null),
        ]).Build();
        var services = new ServiceCollection();
        OrderServiceHost.AddStations(services, configuration, ServiceRoles.All);
        return services.BuildServiceProvider();
    }

    private static async Task FillAsync(StoreRun store, long from, long to)
    {
        for (var first = from; first < to; first += Chunk)
        {
            await store.ExecuteAsync(store.Kind == StoreKind.Postgres ? FillPostgres : FillSqlite, new { first = first + 1, last = Math.Min(first + Chunk, to) });
        }
        if (to > from)
        {
            await store.ExecuteAsync(store.Kind == StoreKind.Postgres ? "VACUUM ANALYZE" : "PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    private static string FilledOrderId(long number) => string.Create(CultureInfo.InvariantCulture, $"{(uint)(number * 2_654_435_761):X8}-P{number:D8}");

    private static async Task<(double P50, double P99)> ReadStreamsAsync(EventQueries events, long orders, bool filled, CancellationToken cancellationToken)
    {
        var random = new Random(7);
        var times = new List<double>();
        for (var read = 0; read < 500; read++)
        {
            var number = random.NextInt64(orders);
            var began = Stopwatch.GetTimestamp();
            var stream = await events.StreamAsync(filled ? FilledOrderId(number + 1) : Workload.OrderId((int)number), cancellationToken);
            times.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
            if (stream.Count == 0)
            {
                throw new BenchException("An order that was put into the store can't be read.");
            }
        }
        times.Sort();
        return (Percentile.Of(times, 0.5), Percentile.Of(times, 0.99));
    }

    // Rows as the service writes them, in size and in the order of their keys; only the contents are made up.
    private const string FillSqlite = """
        PRAGMA synchronous = OFF;
        PRAGMA cache_size = -1000000;
        PRAGMA temp_store = MEMORY;
        BEGIN IMMEDIATE;
        CREATE TEMP TABLE filling AS
            WITH RECURSIVE numbers (n) AS (SELECT @first UNION ALL SELECT n + 1 FROM numbers WHERE n < @last)
            SELECT n, printf('%08X-P%08d', (n * 2654435761) & 4294967295, n) AS order_id, lower(hex(randomblob(16))) AS key FROM numbers;
        INSERT INTO inbox (key, fingerprint, outcome, order_id, decided_at) SELECT key, randomblob(32), 1, order_id, 1750000000000 FROM filling ORDER BY key;
        INSERT INTO orders (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash)
            SELECT order_id, 1, 1, 'C-' || (n % 100000), 'EUR', 12345, 8, 1750000000000, 1750000000000, randomblob(32) FROM filling ORDER BY order_id;
        INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash)
            SELECT seq, order_id, 1, 'ORDER_PLACED', CAST(hex(randomblob(280)) AS BLOB), key, key, 1750000000000, randomblob(32) FROM filling JOIN orders USING (order_id) ORDER BY seq;
        COMMIT;
        DROP TABLE filling;
        """;

    private const string FillPostgres = """
        SET synchronous_commit = off;
        CREATE TEMP TABLE filling AS
            SELECT n, upper(lpad(to_hex((n * 2654435761) & 4294967295), 8, '0')) || '-P' || lpad(n::text, 8, '0') AS order_id, gen_random_uuid()::text AS key
            FROM generate_series(@first::bigint, @last::bigint) AS n;
        INSERT INTO inbox (key, fingerprint, outcome, order_id, decided_at)
            SELECT key, sha256(key::bytea), 1, order_id, 1750000000000 FROM filling ORDER BY key;
        INSERT INTO orders (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash)
            SELECT order_id, 1, 1, 'C-' || (n % 100000), 'EUR', 12345, 8, 1750000000000, 1750000000000, sha256(order_id::bytea) FROM filling ORDER BY order_id;
        INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash)
            SELECT seq, order_id, 1, 'ORDER_PLACED', convert_to(repeat(md5(key), 4) || repeat(md5(order_id), 4) || repeat(md5(key || order_id), 4) || repeat(md5(order_id || key), 5), 'UTF8'),
                key, key, 1750000000000, sha256(order_id::bytea)
            FROM filling JOIN orders USING (order_id) ORDER BY seq;
        DROP TABLE filling;
        """;
}
