using Samples;

// dotnet run --project samples/csharp publish ORDER_ID | consume QUEUE [HOW_MANY] | verify SECRET ID TIMESTAMP SIGNATURE <body
return args switch
{
    ["publish", var orderId] => await Publish.RunAsync(orderId),
    ["consume", var queue, .. var howMany] => await Consume.RunAsync(queue, howMany is [var count] ? int.Parse(count, System.Globalization.CultureInfo.InvariantCulture) : int.MaxValue),
    ["verify", var secret, var id, var timestamp, var signatures] => Verify.Run(secret, id, timestamp, signatures),
    _ => 2,
};
