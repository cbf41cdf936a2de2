namespace OrderService.Customers;

public static class CustomersSetup
{
    public static IServiceCollection AddCustomers(this IServiceCollection services)
    {
        services.AddSingleton<CustomerForgetting>();
        services.AddSingleton<CustomerHolds>();
        services.AddSingleton<CustomerExport>();
        return services;
    }
}
