using System.Globalization;

namespace OrderService.Bench;

/// <summary>What was asked for on the command line.</summary>
internal sealed record BenchOptions
{
    public const string Help = """
        eng/bench [options]

          --orders N             messages per throughput round, 5 % of them copies (60000); slow contestants get a fixed share of it
          --rounds R             throughput rounds, contestants taking turns (3)
          --latency-seconds S    seconds per latency run; 0 leaves latency out (25)
          --latency-rounds R     latency rounds (3)
          --rates R,R            orders a second in latency runs (200,1000)
          --contestants A,B      who takes part (all)
          --sink classic|quorum  type of the queue that collects the events, the same for all (classic)
          --output FILE          results as JSON (artifacts/bench/results.json)
          --quick                3,000 orders, one round, latency for 3 s at 100/s: shows that everything works, measures nothing

        Instead of throughput and latency:
          --scale-store N,N      how cost grows with the store: drains into stores filled with N events (1000000,5000000), for both stores
          --instances K,K        how throughput changes with K processes on one queue and one PostgreSQL
          --partitions K,K       how throughput changes with K queues beside orders, by order id (RabbitMq:Partitions; 0 is the plain queue, otherwise at least 2)
          --profile NAME         one drain of twice the orders under perf; the top of the profile is printed and written beside the results
        """;

    public int Orders { get; init; } = 60_000;
    public int Rounds { get; init; } = 3;
    public double LatencySeconds { get; init; } = 25;
    public int LatencyRounds { get; init; } = 3;
    public IReadOnlyList<int> Rates { get; init; } = [200, 1000];
    public IReadOnlyList<string> Contestants { get; init; } = [];
    public string Sink { get; init; } = "classic";
    public string Output { get; init; } = Path.Combine("artifacts", "bench", "results.json");
    public IReadOnlyList<long> ScaleStore { get; init; } = [];
    public IReadOnlyList<int> Instances { get; init; } = [];
    public IReadOnlyList<int> Partitions { get; init; } = [];
    public string? Profile { get; init; }

    public static BenchOptions Parse(IReadOnlyList<string> arguments)
    {
        var options = new BenchOptions();
        if (arguments.Contains("--quick"))
        {
            options = options with { Orders = 3000, Rounds = 1, LatencySeconds = 3, LatencyRounds = 1, Rates = [100] };
        }
        for (var index = 0; index < arguments.Count; index++)
        {
            var name = arguments[index];
            if (name == "--quick")
            {
                continue;
            }
            if (++index == arguments.Count)
            {
                throw new BenchException($"{name} needs a value, or is no option at all.\n\n{Help}");
            }
            var value = arguments[index];
            try
            {
                options = name switch
                {
                    "--orders" => options with { Orders = Number(value) },
                    "--rounds" => options with { Rounds = Number(value) },
                    "--latency-seconds" => options with { LatencySeconds = double.Parse(value, CultureInfo.InvariantCulture) },
                    "--latency-rounds" => options with { LatencyRounds = Number(value) },
                    "--rates" => options with { Rates = [.. value.Split(',').Select(Number)] },
                    "--contestants" => options with { Contestants = value.Split(',') },
                    "--sink" when value is "classic" or "quorum" => options with { Sink = value },
                    "--output" => options with { Output = value },
                    "--scale-store" => options with { ScaleStore = [.. value.Split(',').Select(part => (long)Number(part))] },
                    "--instances" => options with { Instances = [.. value.Split(',').Select(Number)] },
                    "--partitions" => options with { Partitions = [.. value.Split(',').Select(Number)] },
                    "--profile" => options with { Profile = value },
                    _ => throw new BenchException($"{name} {value}: no such option.\n\n{Help}"),
                };
            }
            catch (FormatException)
            {
                throw new BenchException($"{name}: '{value}' is not a number.");
            }
        }
        return options;
    }

    private static int Number(string text) => int.Parse(text, NumberStyles.AllowThousands, CultureInfo.InvariantCulture);
}
