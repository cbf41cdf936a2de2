using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;
using OrderService.DeadLetters;
using OrderService.Inbox;

namespace OrderService.Admin;

/// <summary>The OpenAPI document: what the endpoints say of themselves, and what holds for all of them (keys, limits, problem documents) or for a parameter wherever it appears.</summary>
internal static class ApiDocument
{
    private const string ProblemJson = "application/problem+json";

    public static void Add(IServiceCollection services) => services.AddOpenApi("v1", openApi =>
    {
        openApi.AddOperationTransformer(DescribeOperation);
        openApi.AddDocumentTransformer(DescribeDocumentAsync);
    });

    private static Task DescribeOperation(OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        var isApi = context.Description.RelativePath?.StartsWith("api/", StringComparison.Ordinal) == true;
        operation.Responses ??= [];
        if (metadata.OfType<IAllowAnonymous>().Any())
        {
            // An empty requirement stands for no key at all.
            operation.Security = [new OpenApiSecurityRequirement()];
        }
        else
        {
            var scopes = metadata.OfType<IAuthorizeData>().Select(needed => needed.Policy).OfType<string>().Distinct().ToList();
            var needs = scopes.Count == 0 ? "Needs a key, whatever its scopes." : $"Needs a key with the scope{(scopes.Count == 1 ? "" : "s")} {string.Join(" and ", scopes.Select(scope => $"`{scope}`"))}.";
            operation.Description = operation.Description is { Length: > 0 } said ? $"{said} {needs}" : needs;
            AddProblem(operation, 401);
            AddProblem(operation, 403);
        }
        if (isApi)
        {
            AddProblem(operation, 406);
            AddProblem(operation, 429);
            AddProblem(operation, 503);
        }
        if (metadata.OfType<IAcceptsMetadata>().Any())
        {
            AddProblem(operation, 400);
            AddProblem(operation, 413);
            AddProblem(operation, 415);
        }
        foreach (var (status, answer) in operation.Responses)
        {
            if (answer is OpenApiResponse response && (ApiTexts.Responses.GetValueOrDefault(status) ?? (status[0] is '4' or '5' ? throw new InvalidOperationException($"Nothing says what {status} means.") : null)) is { } text)
            {
                response.Description = text;
            }
        }
        foreach (var parameter in (operation.Parameters ?? []).OfType<OpenApiParameter>())
        {
            var text = ApiTexts.Parameters.GetValueOrDefault($"{operation.OperationId} {parameter.Name}") ?? ApiTexts.OfCommand(operation.OperationId, parameter.Name) ?? ApiTexts.Parameters.GetValueOrDefault(parameter.Name!)
                ?? throw new InvalidOperationException($"Nothing says what the parameter {parameter.Name} of {operation.OperationId} is.");
            parameter.Description = text.Description;
            parameter.Schema = text.Schema();
        }
        foreach (var (name, header) in ApiTexts.Headers.Where(pair => pair.Key.Split(' ')[0] == operation.OperationId).Select(pair => (pair.Key.Split(' ')[1], pair.Value)))
        {
            operation.Parameters ??= [];
            operation.Parameters.Add(new OpenApiParameter { Name = name, In = ParameterLocation.Header, Description = header.Description, Schema = header.Schema() });
        }
        if (operation.OperationId is { } id && ApiTexts.Example(id) is { } example && operation.RequestBody?.Content is { } bodies)
        {
            bodies["application/json"].Example = JsonNode.Parse(example);
        }
        if (operation.OperationId is { } answers && operation.Responses.FirstOrDefault(pair => pair.Key[0] == '2').Value is OpenApiResponse success)
        {
            if (ApiTexts.Files.GetValueOrDefault(answers) is { } types)
            {
                success.Content = types.ToDictionary(type => type, _ => new OpenApiMediaType());
            }
            if (ApiTexts.Answers.GetValueOrDefault(answers) is { } answer)
            {
                success.Content!["application/json"].Example = JsonNode.Parse(answer);
            }
        }
        if (operation.Responses.TryGetValue("202", out var accepted) && accepted is OpenApiResponse { Headers: null } taken && ApiTexts.Locations.GetValueOrDefault(operation.OperationId ?? "") is { } location)
        {
            taken.Headers = new Dictionary<string, IOpenApiHeader> { ["Location"] = new OpenApiHeader { Description = location, Schema = new OpenApiSchema { Type = JsonSchemaType.String } } };
        }
        return Task.CompletedTask;
    }

    private static void AddProblem(OpenApiOperation operation, int status)
    {
        if (operation.Responses!.ContainsKey($"{status}"))
        {
            return;
        }
        operation.Responses[$"{status}"] = new OpenApiResponse { Content = new Dictionary<string, OpenApiMediaType> { [ProblemJson] = new OpenApiMediaType() } };
    }

    private static async Task DescribeDocumentAsync(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellationToken)
    {
        document.Info.Title = "OrderService";
        document.Info.Version = "1";
        document.Info.Description =
            """
            Commands go in and are answered 202; what became of them is read back. Errors are problem documents (RFC 9457) with a stable `code`.

            Lists answer `{"items":[...],"next":...}`; hand `next` back as `after` for the next page. Times are RFC 3339 in UTC. Members may be added to answers at any time.
            Each request needs an API key (`Authorization: Bearer KEY` or `X-Api-Key: KEY`), a token, or the session cookie of a signed-in browser, whose changes also carry `X-CSRF-Token`.
            """;
        // Made of the request: under a path, the path; never a host, which a request may claim.
        document.Servers = document.Servers?.Select(server => Uri.TryCreate(server.Url, UriKind.Absolute, out var address) ? address.AbsolutePath.TrimEnd('/') : "").FirstOrDefault() is { Length: > 0 } path
            ? [new OpenApiServer { Url = path }]
            : [];
        document.AddComponent("Problem", await ProblemSchemaAsync(context, cancellationToken));
        foreach (var operation in document.Paths.Values.SelectMany(path => path.Operations?.Values ?? Enumerable.Empty<OpenApiOperation>()))
        {
            foreach (var (status, answer) in operation.Responses ?? [])
            {
                if (answer is OpenApiResponse response && response.Content?.ContainsKey(ProblemJson) == true)
                {
                    response.Content = new Dictionary<string, OpenApiMediaType> { [ProblemJson] = new OpenApiMediaType { Schema = new OpenApiSchemaReference("Problem", document) } };
                    if (status is "429" or "503")
                    {
                        response.Headers = new Dictionary<string, IOpenApiHeader>
                        {
                            ["Retry-After"] = new OpenApiHeader { Description = "After how many seconds to try again.", Schema = new OpenApiSchema { Type = JsonSchemaType.Integer } },
                        };
                    }
                }
            }
        }
        // Replaced above wherever it was meant.
        document.Components!.Schemas!.Remove("ProblemDetails");
        document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
        {
            ["bearer"] = new OpenApiSecurityScheme { Type = SecuritySchemeType.Http, Scheme = "bearer", Description = "An API key, or a token of the configured OpenID Connect provider." },
            ["apiKey"] = new OpenApiSecurityScheme { Type = SecuritySchemeType.ApiKey, In = ParameterLocation.Header, Name = "X-Api-Key", Description = "An API key." },
            ["session"] = new OpenApiSecurityScheme { Type = SecuritySchemeType.ApiKey, In = ParameterLocation.Cookie, Name = BrowserSessions.PlainCookie, Description = "A signed-in browser, see `POST /api/session`; over TLS its name begins with `__Host-`." },
        };
        document.Security = [.. new[] { "bearer", "apiKey", "session" }.Select(scheme => new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(scheme, document)] = [] })];
    }

    private static async Task<OpenApiSchema> ProblemSchemaAsync(OpenApiDocumentTransformerContext context, CancellationToken cancellationToken)
    {
        var schema = await context.GetOrCreateSchemaAsync(typeof(Problems.Problem), cancellationToken: cancellationToken);
        schema.Description = "What went wrong (RFC 9457). `code` is stable and meant for programs, `detail` for people; `errors` names fields by JSON pointer. Never a stack trace, never a value that was sent.";
        // Left out where there are none.
        schema.Required?.Remove("errors");
        schema.Examples = [JsonNode.Parse(
            """
            {"type":"urn:orderservice:problem:currency_unknown","title":"Bad Request","status":400,"detail":"The currency is not an ISO 4217 code.","code":"currency_unknown","traceId":"4bf92f3577b34da6a3ce929d0e0e4736",
             "errors":[{"pointer":"/currency","code":"currency_unknown","detail":"The currency is not an ISO 4217 code."}]}
            """)!];
        return schema;
    }
}

/// <summary>A parameter or header in the document.</summary>
internal sealed record ApiText(string Description, Func<OpenApiSchema> Schema);

/// <summary>What the document says of statuses, parameters and headers, and its examples.</summary>
internal static class ApiTexts
{
    public static readonly IReadOnlyDictionary<string, string> Responses = new Dictionary<string, string>
    {
        ["400"] = "The request can't be understood; `errors` says which field or parameter.",
        ["401"] = "No key, or one that is not known.",
        ["403"] = "The key lacks the scope, or the request came from another site.",
        ["404"] = "There is no such thing (yet).",
        ["406"] = "The header Accept allows nothing that is served here.",
        ["409"] = "Somebody was faster, or its state does not allow it; `detail` says who and when.",
        ["410"] = "The store was put back since and what was at this position is not in it; `goOnAfter` is the position to go on from.",
        ["413"] = "The body is larger than 1 MiB.",
        ["415"] = "The body is not application/json, or compressed.",
        ["422"] = "It was understood and can't be done as it is; `errors` says why.",
        ["429"] = "More requests came than this key may send.",
        ["503"] = "The broker, the store or a stream is not to be had for now; the same request may succeed later.",
    };

    /// <summary>By name, or by operation and name.</summary>
    public static readonly IReadOnlyDictionary<string, ApiText> Parameters = new Dictionary<string, ApiText>
    {
        ["routingKey"] = new("The routing key, as `GET /api/relay` has it.", Text),
        ["after"] = new("The `next` of the page before.", Text),
        ["events.list after"] = new("Only events after this position.", () => Number(0, null)),
        ["events.stream after"] = new("Goes on after this position; the header Last-Event-ID wins.", () => Number(0, null)),
        ["limit"] = new("How many items a page has at most.", () => Number(1, Paging.MaxLimit, Paging.DefaultLimit)),
        ["id"] = new("The number of a dead letter or of a replay job.", () => Number(0, null)),
        ["attempt"] = new("The `id` of one of the letter's attempts.", () => Number(0, null)),
        ["orders.list status"] = new("Only orders in this state, or in one of several with commas between: `placed,paid`.", () => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = "^(placed|paid|shipped|delivered|cancelled)(,(placed|paid|shipped|delivered|cancelled))*$" }),
        ["placedFrom"] = new("Only orders that were recorded at this time or later: a day in UTC or an RFC 3339 time.", Text),
        ["placedTo"] = new("Only orders that were recorded before this time.", Text),
        ["sort"] = new("`-placedAt` (the default) and `placedAt` go by when an order was recorded; `-updatedAt`, the last change first, goes with `status` alone.", () => OneOf(OrderFilterReader.Newest, OrderFilterReader.Oldest, OrderFilterReader.ByChange)),
        ["day"] = new("A day in UTC, such as 2026-11-26.", () => new OpenApiSchema { Type = JsonSchemaType.String, Format = "date" }),
        ["attribute"] = new("Only orders with this attribute, as `name:value`; the name is one of the setting `Orders:SearchableAttributes`.", Text),
        ["paymentStatus"] = new("Only orders that are paid so far.", () => OneOf([.. Domain.PartialStatusNames.Payment])),
        ["fulfillmentStatus"] = new("Only orders that are fulfilled so far.", () => OneOf([.. Domain.PartialStatusNames.Fulfillment])),
        ["customerId"] = new("Only orders of this customer.", Text),
        ["samples"] = new("How many of the last seconds `series` holds.", () => Number(0, Health.StationReadings.MaxSamples, 0)),
        ["who"] = new("Only what this key, user or token did.", Text),
        ["action"] = new("Only this action, for instance `dead-letter.discard`.", Text),
        ["status"] = new("Only letters of this status; without it, and with `all`, of every status.", () => OneOf([.. LetterStatus.All, "all"])),
        ["reason"] = new("Only letters that were given up for this reason.", () => OneOf([.. RejectionReason.All])),
        ["fingerprint"] = new("The fingerprint of an incident.", Text),
        ["orderId"] = new("Only letters of this order.", Text),
        ["q"] = new("Exactly an order id, customer id, message id, key or correlation id, or part of the detail.", Text),
        ["incidents.list q"] = new("Part of the title or of the reason, or a fingerprint.", Text),
        ["state"] = new("Only incidents in this state; `open` (the default) are the new, acknowledged and regressed ones that are not muted.", () => OneOf("open", "new", "acknowledged", "muted", "resolved", "regressed", "all")),
        ["format"] = new("`ndjson` (the default) has the messages' bytes; `csv` is safe for spreadsheets.", () => OneOf("ndjson", "csv")),
        ["orders.show id"] = new("The order's id.", OrderId),
        ["orders.events id"] = new("The order's id.", OrderId),
        ["orders.timeline id"] = new("The order's id.", OrderId),
        ["customers.show id"] = new("The customer's id.", OrderId),
        ["customers.export id"] = new("The customer's id.", OrderId),
        ["customers.forget id"] = new("The customer's id.", OrderId),
        ["customers.hold id"] = new("The customer's id.", OrderId),
        ["customers.unhold id"] = new("The customer's id.", OrderId),
        ["session.end id"] = new("The session's `id` in `GET /api/sessions`.", Text),
        ["session.end-all key"] = new("Only sessions of the key with this name.", Text),
        ["why id"] = new("An order's id, a message's key or id, or a letter's number.", Text),
    };

    /// <summary>What a parameter of a command is; null where it is none.</summary>
    public static ApiText? OfCommand(string? operation, string? parameter) =>
        parameter == "id" && CommandShapes.All.Any(shape => shape.Type == operation) ? Parameters["orders.show id"] : null;

    /// <summary>The example of a request's body.</summary>
    public static string? Example(string operation) => CommandShapes.All.FirstOrDefault(shape => shape.Type == operation)?.Example ?? Examples.GetValueOrDefault(operation);

    private const string KeyRule = "1 to 255 visible ASCII characters";

    /// <summary>By operation and name.</summary>
    public static readonly IReadOnlyDictionary<string, ApiText> Headers = CommandShapes.All.Select(shape => shape.Type)
        .SelectMany(command => new KeyValuePair<string, ApiText>[]
        {
            new($"{command} {IdempotencyKey.Header}", new ApiText($"Names this command, {KeyRule}: a repetition takes effect once and gets the first answer. Derived from the command when absent.", Text)),
            new($"{command} {ExpectedVersion.Header}", new ApiText("The ETag of the order as the sender saw it; the command is refused when the order is at another version.", Text)),
            new($"{command} X-Correlation-Id", new ApiText($"Goes along with the command and its events, {KeyRule}; the trace's id when absent.", Text)),
        })
        .Append(new("events.stream Last-Event-ID", new ApiText("The position of the last event that was read; goes on after it.", () => Number(0, null))))
        .ToDictionary();

    /// <summary>Of request bodies, by operation.</summary>
    public static readonly IReadOnlyDictionary<string, string> Examples = new Dictionary<string, string>
    {
        ["session.sign-in"] = """{"key":"the API key"}""",
        ["dead-letters.check"] = """{"body":"{\"orderId\":\"A-1001\",\"customerId\":\"C-7\",\"currency\":\"EUR\",\"lines\":[{\"sku\":\"KB-01\",\"quantity\":2,\"unitPrice\":49.90}]}"}""",
        ["dead-letters.replay"] = """{"reason":"The shop mended its prices."}""",
        ["customers.forget"] = """{"reason":"He asked for it on 2026-11-27."}""",
        ["customers.hold"] = """{"reason":"Court case 7 O 12/26"}""",
        ["customers.unhold"] = """{"reason":"The case is closed."}""",
        ["dead-letters.discard"] = """{"reason":"A test order."}""",
        ["intake.pause"] = """{"reason":"The database moves at ten.","queues":["orders"]}""",
        ["intake.resume"] = """{"reason":"It has moved."}""",
        ["relay.release"] = """{"reason":"The queue has room again."}""",
        ["dead-letters.restore"] = """{"reason":"It was a real one."}""",
        ["dead-letters.discards"] = """{"filter":{"reason":"currency_unknown"},"upTo":123,"reason":"Orders of a test shop."}""",
        ["replays.what-if"] = """{"filter":{"fingerprint":"3f9a52c07711aa01"},"patch":{"type":"order.place"}}""",
        ["replays.start"] = """{"filter":{"fingerprint":"3f9a52c07711aa01"},"upTo":123,"mode":"canary","ratePerSecond":10,"reason":"The currency is known now."}""",
        ["incidents.acknowledge"] = """{"reason":"I look after it."}""",
        ["incidents.resolve"] = """{"reason":"Mended in 1.0.1."}""",
        ["incidents.mute"] = """{"until":"2026-01-06T08:00:00Z","reason":"Known; mended tomorrow."}""",
        ["alerts.test"] = """{"channel":"email"}""",
    };

    /// <summary>Of answers, by operation.</summary>
    public static readonly IReadOnlyDictionary<string, string> Answers = new Dictionary<string, string>
    {
        ["order.place"] = """{"orderId":"A-1001","command":"order.place","idempotencyKey":"b1946ac9","correlationId":"4bf92f3577b34da6a3ce929d0e0e4736","status":"accepted for processing"}""",
        ["orders.show"] =
            """
            {"orderId":"A-1001","status":"paid","version":3,"customerId":"C-7","currency":"EUR","total":99.80,"paid":99.80,"due":0.00,"overpaid":0.00,"lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"lineId":"1","name":null,"discount":null,"tax":null,"attributes":{},"shipped":0,"cancelled":0,"returned":0,"open":2}],"placedAt":null,
             "paymentReference":"PAY-778","paidAmount":99.80,"carrier":null,"trackingNumber":null,"cancelReason":null,"recordedAt":"2026-01-05T10:00:00Z","updatedAt":"2026-01-05T10:05:00Z",
             "shippingCost":null,"shippingTax":null,"discounts":[],"taxes":[],"channel":"web","attributes":{},"externalReferences":{},
             "paymentStatus":"paid","fulfillmentStatus":"unfulfilled","authorized":0.00,"refunded":0.00,"held":false,"holdReason":null,"payments":[{"paymentReference":"PAY-778","amount":99.80}],"refunds":[],"shipments":[],"returns":[],
             "email":"anna@example.com","name":"Anna Muster","phone":null,"billingAddress":null,"shippingAddress":{"lines":["Am Ring 7"],"city":"Köln","postalCode":"50667","country":"DE"},"forgotten":null}
            """,
        ["dead-letters.discards"] = """{"count":14,"upTo":123,"discarded":14}""",
        ["replays.what-if"] =
            """
            {"count":2,"checked":2,"upTo":123,"outcomes":{"succeeds":1,"already_applied":0,"still_fails":1,"conflicts":0,"waits":0,"refused":0},
             "items":[{"id":17,"orderId":"A-1001","outcome":"still_fails","reason":"currency_unknown","detail":"The currency is not an ISO 4217 code."}]}
            """,
        ["queues"] =
            """
            {"items":[{"name":"orders","purpose":"commands in","exists":true,"ready":120,"unacknowledged":null,"total":null,"consumers":1,"oldestAgeSeconds":4.2,"at":"2026-01-05T10:00:00Z"}],"unsafePolicies":[],"policiesUnknown":null,"managementError":null,"unconsumed":[],"lastError":null}
            """,
    };

    /// <summary>Answers that are not JSON, by operation.</summary>
    public static readonly IReadOnlyDictionary<string, string[]> Files = new Dictionary<string, string[]>
    {
        ["dead-letters.body"] = ["application/octet-stream"],
        ["dead-letters.attempt-body"] = ["application/octet-stream"],
        ["dead-letters.export"] = ["application/x-ndjson", "text/csv"],
        ["events.stream"] = ["text/event-stream"],
    };

    /// <summary>What the header Location of a 202 leads to, by operation.</summary>
    public static readonly IReadOnlyDictionary<string, string> Locations = CommandShapes.All
        .Select(shape => KeyValuePair.Create(shape.Type, "The order."))
        .Append(new("replays.start", "The job."))
        .Append(new("relay.release", "What waits."))
        .ToDictionary();

    private static OpenApiSchema Text() => new() { Type = JsonSchemaType.String };

    private static OpenApiSchema OrderId() => new() { Type = JsonSchemaType.String, Pattern = "^[A-Za-z0-9._-]{1,64}$" };

    private static OpenApiSchema Number(int least, int? most, int? otherwise = null) => new()
    {
        Type = JsonSchemaType.Integer,
        Minimum = $"{least}",
        Maximum = most is null ? null : $"{most}",
        Default = otherwise is null ? null : JsonValue.Create(otherwise.Value),
    };

    private static OpenApiSchema OneOf(params string[] values) => new() { Type = JsonSchemaType.String, Enum = [.. values.Select(value => (JsonNode)JsonValue.Create(value))] };
}
