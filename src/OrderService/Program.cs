using OrderService;
using OrderService.CommandLine;

// A delivery comes in, is decoded, deduplicated and decided, appended, relayed, projected and notified; a dead letter is parked, notified, replayed.
// The stations are put together in OrderServiceHost; what can be typed is in CommandLine; where log lines go is in ServiceLog.
return await Commands.RunAsync(args, ServiceLog.Add);
