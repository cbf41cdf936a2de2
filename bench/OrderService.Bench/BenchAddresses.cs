namespace OrderService.Bench;

/// <summary>Where broker and database are. <c>eng/bench</c> starts both and says so in environment variables.</summary>
/// <param name="Amqp">AMQP address of a user who may make virtual hosts.</param>
/// <param name="Management">The management API's address, same user.</param>
/// <param name="Postgres">Connection string of a user who may make databases.</param>
/// <param name="RabbitMqContainer">Whose CPU time is the broker's; null where that can't be read.</param>
/// <param name="PostgresContainer">Whose CPU time is the database's.</param>
internal sealed record BenchAddresses(string Amqp, string Management, string Postgres, string? RabbitMqContainer, string? PostgresContainer)
{
    public static BenchAddresses FromEnvironment() => new(
        Required("ORDERSERVICE_BENCH_AMQP"),
        Required("ORDERSERVICE_BENCH_MANAGEMENT"),
        Required("ORDERSERVICE_BENCH_POSTGRES"),
        Environment.GetEnvironmentVariable("ORDERSERVICE_BENCH_RABBITMQ_CONTAINER"),
        Environment.GetEnvironmentVariable("ORDERSERVICE_BENCH_POSTGRES_CONTAINER"));

    private static string Required(string name) =>
        Environment.GetEnvironmentVariable(name) ?? throw new BenchException($"{name} is not set. Run eng/bench, which starts broker and database and sets it.");
}
