using OrderService.Domain;

namespace OrderService.Store;

/// <summary>
/// The log of what happened, and everything that has to be written with it or not at all: the inbox, the stream heads,
/// the outbox, deferred commands, rejections, and the letters that a decision settles.
/// </summary>
public interface IOrderEventStore
{
    /// <summary>
    /// Reads what <paramref name="query"/> names, lets <paramref name="decide"/> answer, and writes the answer: all of it or nothing.
    /// When another instance came first, it reads and asks again, so <paramref name="decide"/> is pure and may run more than once.
    /// </summary>
    /// <param name="cancellationToken">Gives up waiting for a turn; a COMMIT that has begun is never cancelled.</param>
    /// <exception cref="Store.StoreUnavailableException">The store is out of reach; nothing may be settled.</exception>
    Task<Append> AppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken);

    /// <summary>Does what <see cref="AppendAsync"/> does and undoes it: throws what an append would meet.</summary>
    Task TryAppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken);

    /// <summary>What a batch would be decided on now, for those who only want to know: writes nothing.</summary>
    /// <exception cref="StoreUnavailableException">The store is out of reach for now.</exception>
    Task<BatchState> ReadAsync(BatchQuery query, CancellationToken cancellationToken);

    /// <summary>Whether messages that come steadily are worth waiting for a moment, because a commit of few costs nearly what one of many does.</summary>
    bool IsGatheringWorthwhile => false;

    /// <summary>What was begun by which process: the evidence when a message ends processes.</summary>
    Store.Lives Lives { get; }

    /// <summary>The keys under which what is personal is written.</summary>
    PersonalKeys Keys { get; }
}

/// <summary>What speaks against a message that came back again and again.</summary>
/// <param name="InCompany">How many processes ended, without having been told to stop, while it was begun together with others.</param>
/// <param name="Alone">How many while it was begun alone.</param>
/// <param name="Ended">How many ended lately at all, for whatever reason.</param>
public readonly record struct Suspicion(int InCompany, int Alone, int Ended);

/// <summary>What a batch has to know before it can decide.</summary>
/// <param name="PaidOrderIds">Those of <paramref name="OrderIds"/> that a payment names: of them the payments so far are read too.</param>
/// <param name="Fingerprints">Of every message, for letters that are found by their content; looked up only while there is such a letter.</param>
public sealed record BatchQuery(
    IReadOnlyCollection<string> Keys, IReadOnlyCollection<string> OrderIds, IReadOnlyCollection<string> PaidOrderIds, IReadOnlyList<byte[]> Fingerprints)
{
    public BatchQuery(IReadOnlyCollection<string> keys, IReadOnlyCollection<string> orderIds) : this(keys, orderIds, [], []) { }

    /// <summary>Those of <see cref="OrderIds"/> whose whole stream is read; so it is for every order that is beyond the plain course.</summary>
    public IReadOnlyCollection<string> WholeOrderIds { get; init; } = [];
}

/// <summary>What the store knew when the batch was decided.</summary>
/// <param name="capacity">How many messages the batch has: deciding it adds as many entries.</param>
public sealed class BatchState(int capacity = 0)
{
    /// <summary>The store's present epoch.</summary>
    public long Epoch { get; init; } = StoreEpoch.First;

    public Dictionary<string, InboxEntry> Inbox { get; } = new(capacity, StringComparer.Ordinal);

    public Dictionary<string, OrderHead> Heads { get; } = new(capacity, StringComparer.Ordinal);

    /// <summary>Orders that were closed and have been taken out of the store, where that is remembered.</summary>
    public HashSet<string> Gone { get; } = new(StringComparer.Ordinal);

    /// <summary>
    /// Commands that wait for their order, by order id, in the order in which they are to be decided; at most <see cref="DeferredCommand.MostAtOnce"/> of each order.
    /// An order that exists has some too while those that came before it are being decided.
    /// </summary>
    public Dictionary<string, List<DeferredCommand>> Deferred { get; } = new(StringComparer.Ordinal);

    /// <summary>Orders for which more commands wait than were read.</summary>
    public HashSet<string> Backlog { get; } = new(StringComparer.Ordinal);

    /// <summary>Dead letters that are still open, by idempotency key, or by the key that their replay goes out with.</summary>
    public Dictionary<string, List<OpenLetter>> Letters { get; } = new(StringComparer.Ordinal);

    /// <summary>Open letters that brought no valid key, by the fingerprints that their bytes have under other types; as hex.</summary>
    public Dictionary<string, List<OpenLetter>> KeylessLetters { get; } = new(StringComparer.Ordinal);

    /// <summary>Adds what was read for other messages. What is known already stays as it is.</summary>
    public void Add(BatchState other)
    {
        Add(Inbox, other.Inbox);
        Add(Heads, other.Heads);
        Add(Deferred, other.Deferred);
        Add(Letters, other.Letters);
        Add(KeylessLetters, other.KeylessLetters);
        Backlog.UnionWith(other.Backlog);
        Gone.UnionWith(other.Gone);

        static void Add<T>(Dictionary<string, T> known, Dictionary<string, T> more)
        {
            foreach (var (key, value) in more)
            {
                known.TryAdd(key, value);
            }
        }
    }
}

/// <summary>How a message was decided. The numbers are stored.</summary>
public enum InboxOutcome
{
    Accepted = 1,
    Refused = 2,
    Deferred = 3,
    Rejected = 4,
}

/// <summary>What became of a message, and of which bytes.</summary>
public readonly record struct InboxEntry(byte[] Fingerprint, InboxOutcome Outcome, string? Reason)
{
    /// <summary>The <see cref="Reason"/> of a message that was accepted and left no event, as what it asked for was so already.</summary>
    public const string WithoutEvent = "already-done";
}

/// <summary>The newest state of a stream, enough to decide on and to chain the next event to.</summary>
public sealed record OrderHead(Order Order, byte[] LastHash);

/// <summary>A command whose order does not exist yet.</summary>
/// <param name="Properties">The message's properties as JSON.</param>
/// <param name="TraceContext">See <see cref="TraceText"/>.</param>
public sealed record DeferredCommand(
    string Key, string OrderId, string Type, byte[] Body, string Properties, byte[] Fingerprint,
    string CorrelationId, string? TraceContext, long ReceivedAt, long ExpiresAt)
{
    /// <summary>How many that wait for one order are decided in one transaction.</summary>
    public const int MostAtOnce = 500;

    /// <summary>The <see cref="ExpiresAt"/> of a command whose order exists and that stands behind those that came before the order.</summary>
    public const long Never = long.MaxValue;

    /// <summary>
    /// Those that came before the order, in the order of an order's life; then those that came after it, as they came. SQL over the table's columns.
    /// </summary>
    internal static readonly string InTurn =
        $"CASE WHEN expires_at = 9223372036854775807 THEN {CommandType.All.Count} ELSE CASE type {string.Join(' ', CommandType.All.Select((type, rank) => $"WHEN '{type}' THEN {rank}"))} ELSE 0 END END, received_at, key";
}

/// <summary>A dead letter that a delivery of the same key may settle.</summary>
/// <param name="Replayed">An admin sent it again and its outcome is awaited.</param>
/// <param name="Twins">What its bytes' fingerprints are under other types, 32 bytes each: the same message where only the type was wrong.</param>
/// <param name="IsConflict">It is a <c>key_conflict</c>: another message has its key, so no copy of that one settles it.</param>
public sealed record OpenLetter(long Id, byte[] Fingerprint, bool Replayed, byte[]? Twins = null, bool IsConflict = false)
{
    /// <summary>Whether a message with that fingerprint says the same.</summary>
    public bool IsSameAs(ReadOnlySpan<byte> fingerprint)
    {
        if (IsConflict)
        {
            return false;
        }
        for (var at = 0; at < Twins?.Length; at += fingerprint.Length)
        {
            if (Twins.AsSpan(at, fingerprint.Length).SequenceEqual(fingerprint))
            {
                return true;
            }
        }
        return fingerprint.SequenceEqual(Fingerprint);
    }
}

/// <summary>An event as it stands in the log.</summary>
/// <param name="RecordedAt">Unix milliseconds.</param>
/// <param name="CausationId">The idempotency key of the message that caused it.</param>
/// <param name="TraceContext">See <see cref="TraceText"/>; part of the hash as it stands.</param>
/// <param name="Hash">SHA-256 over the hash of the stream's previous event and this one, see <see cref="EventHash"/>.</param>
public sealed record RecordedEvent(
    string OrderId, long Version, string Type, ReadOnlyMemory<byte> Data, string CorrelationId, string CausationId,
    string? TraceContext, long RecordedAt, byte[] Hash)
{
    /// <summary>The W3C trace context of the message that caused it; null where there was none.</summary>
    public string? TraceParent => TraceText.Parent(TraceContext);

    /// <summary>What the tracing systems on the way wrote beside it.</summary>
    public string? TraceState => TraceText.State(TraceContext);

    /// <summary>The place in the log, in the order of commits; set when the event was appended.</summary>
    public long Position { get; set; }

    /// <summary>Unique, and the same however often the event is published.</summary>
    public string EventId => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{OrderId}.{Version}{StoreEpoch.Suffix(Epoch)}");

    /// <summary>The epoch of the store in which it was recorded.</summary>
    public long Epoch => StoreEpoch.Of(Position);

    /// <summary>The decided event; kept for those in the process who want it, read back from <see cref="Data"/> otherwise.</summary>
    public OrderEvent? Event { get; init; }
}

/// <summary>Everything one transaction writes.</summary>
/// <param name="capacity">How many messages it answers: most have a row in each of the first four lists.</param>
public sealed class Append(int capacity = 0)
{
    public List<InboxRow> Inbox { get; } = new(capacity);
    public List<RecordedEvent> Events { get; } = new(capacity);
    public List<HeadChange> Heads { get; } = new(capacity);
    public List<OutboxRow> Outbox { get; } = new(capacity);
    public List<DeferredCommand> Deferred { get; } = [];
    public List<string> DeferredDecided { get; } = [];
    public List<RejectionRow> Rejections { get; } = [];
    public List<HistoryRow> History { get; } = [];
    public List<LetterChange> Letters { get; } = [];
    public List<RefusedPayment> RefusedPayments { get; } = [];

    /// <summary>What orders can be searched for by.</summary>
    public List<AttributeRow> Attributes { get; } = [];

    /// <summary>Orders that were amended: what they were found by before counts no more.</summary>
    public HashSet<string> AttributesReplaced { get; } = new(StringComparer.Ordinal);

    public List<byte[]> StartedDone { get; } = [];

    /// <summary>How many more copies came of messages that were decided before, by idempotency key. They are counted with the message: a row for each would be a million rows some day.</summary>
    public Dictionary<string, int> Copies { get; } = new(StringComparer.Ordinal);

    /// <summary>When the copies came.</summary>
    public long CopiesAt { get; set; }

    /// <summary>Orders for which more commands wait than one transaction decides; they are decided next, in transactions of their own.</summary>
    public HashSet<string> Backlog { get; } = new(StringComparer.Ordinal);

    public bool IsEmpty => Inbox.Count == 0 && Events.Count == 0 && Outbox.Count == 0 && Rejections.Count == 0
        && History.Count == 0 && Letters.Count == 0 && StartedDone.Count == 0 && DeferredDecided.Count == 0 && Copies.Count == 0;
}

/// <param name="Replaces">The key stands already (a deferred command was decided, a rejected one was replayed): its row is rewritten.</param>
public readonly record struct InboxRow(string Key, byte[] Fingerprint, InboxOutcome Outcome, string? Reason, string? OrderId, long DecidedAt, bool Replaces);

/// <summary>A stream's head row, which is the read model's row too.</summary>
/// <param name="ExpectedVersion">0 makes the row; any other must be what stands there.</param>
/// <param name="LineCount">Null where it is not known and did not change.</param>
public sealed record HeadChange(
    string OrderId, long ExpectedVersion, long Version, OrderStatus Status, string CustomerId, string Currency,
    long TotalMinor, int? LineCount, long At, byte[] LastHash)
{
    public PaymentStatus Payment { get; init; }

    public FulfillmentStatus Fulfillment { get; init; }

    /// <summary>Decisions take the whole stream from now on.</summary>
    public bool NeedsStream { get; init; }
}

/// <summary>An attribute by which an order can be found.</summary>
public readonly record struct AttributeRow(string OrderId, string Name, string Value);

/// <summary>What an outbox row publishes. The numbers are stored.</summary>
public enum OutboxKind
{
    Event = 1,
    Announcement = 2,
    Replay = 3,
}

/// <summary>A message that has to go out.</summary>
/// <param name="Event">The event of kind <see cref="OutboxKind.Event"/>.</param>
/// <param name="Message">JSON of exchange, routing key and properties, for the other kinds.</param>
public sealed record OutboxRow(OutboxKind Kind, string OrderId, long Version, RecordedEvent? Event, string? Message, byte[]? Body, long CreatedAt)
{
    private const int Overhead = 600;

    /// <summary>Set when the row was written.</summary>
    public long Id { get; set; }

    /// <summary>What it takes in memory, roughly, once it is rendered to be sent.</summary>
    public long Memory => MemoryOf((Body?.Length ?? 0) + (Message?.Length ?? 0) + (Event?.Data.Length ?? 0));

    internal static long MemoryOf(long bytes) => Overhead + (2 * bytes);
}

/// <summary>Why a delivery is rejected; written before the reject leaves.</summary>
/// <param name="Claims">The envelope was sound, so the key is taken by this rejection and no other copy may be accepted.</param>
public sealed record RejectionRow(
    string Key, byte[] Fingerprint, string Reason, string Detail, string? Field, string? Exception, string? OrderId,
    byte[]? Body, string Properties, long At);

/// <summary>A line of an order's timeline beside its events.</summary>
public readonly record struct HistoryRow(string? OrderId, string? Key, long At, string Kind, string Detail);

/// <summary>A dead letter that is settled by the decision of this transaction.</summary>
/// <param name="Resolved">True: a replay succeeded; false: another copy was decided, the letter is superseded.</param>
public readonly record struct LetterChange(long LetterId, bool Resolved, string Detail, long At);

/// <summary>A payment that an order did not take: money that somebody has to look after, so an alert tells of it.</summary>
/// <param name="Amount">As it was named, for example <c>49.90</c>; null where the message named none.</param>
/// <param name="Code">One of <see cref="RefusalCode"/>.</param>
public readonly record struct RefusedPayment(string OrderId, string Key, string PaymentReference, string? Amount, string Code, string Reason, long At);

/// <summary>Is told of each append after its commit, in the order of the commits; must be quick and must not throw.</summary>
public delegate void Committed(Append append);

/// <summary>What an intake waits for after each batch: that those who work on what it committed catch up. Never for long.</summary>
public delegate Task GiveWay(CancellationToken cancellationToken);
