namespace OrderService.RabbitMq;

/// <summary>
/// Whether a message ends the connections that it is handed out on. The broker closes the connection over a message that it can't put into words of AMQP 0.9.1, the client
/// library over one that it can't read, and we see neither message: only that the connection ends. One end says little, so what was in hand is taken again in portions; when
/// a connection ends over a portion too, that is taken one by one, and from then on the message costs nobody else a return. Three ends in a row with nothing in hand and the
/// same message at the head blame it. Nothing is done to it then either: the broker counts its returns and moves it on.
/// </summary>
internal sealed class Doubt
{
    private const int Portion = 32;
    private const int EndsToBlame = 3;

    // A message that can't be handed out ends the connection at once; what ends one that was quiet is something else.
    private static readonly TimeSpan SoonAfter = TimeSpan.FromSeconds(5);

    private readonly Lock gate = new();
    private int doubtful;
    private int single;
    private int endsAtHead;

    /// <summary>What a consumer may be allowed.</summary>
    public int Cap
    {
        get
        {
            lock (gate)
            {
                return single > 0 ? 1 : doubtful > 0 ? Portion : int.MaxValue;
            }
        }
    }

    public bool IsOneByOne
    {
        get
        {
            lock (gate)
            {
                return single > 0;
            }
        }
    }

    /// <summary>How often in a row the connection ended over the message that is at the head now.</summary>
    public int EndsAtHead
    {
        get
        {
            lock (gate)
            {
                return endsAtHead;
            }
        }
    }

    public bool Blames => EndsAtHead >= EndsToBlame;

    /// <summary>Whether the end of a connection may be the doing of a message.</summary>
    /// <param name="sinceHandedOut">For how long nothing had been handed out on it.</param>
    public static bool IsSoonEnough(TimeSpan sinceHandedOut) => sinceHandedOut < SoonAfter;

    /// <summary>A delivery came, so it is not the one.</summary>
    public void Delivered()
    {
        lock (gate)
        {
            endsAtHead = 0;
            doubtful = Math.Max(0, doubtful - 1);
            single = Math.Max(0, single - 1);
        }
    }

    /// <summary>A connection ended while it could deliver.</summary>
    /// <param name="inHand">How many deliveries were unsettled.</param>
    /// <param name="allowed">How many the broker could have handed out, whether or not they arrived.</param>
    /// <param name="isHeadKnown">A message waited when it was alone that could be handed out.</param>
    /// <param name="isMessage">It is certain that a message ended it.</param>
    public void Ended(int inHand, int allowed, bool isHeadKnown, bool isMessage)
    {
        lock (gate)
        {
            endsAtHead = single > 0 && inHand == 0 && isHeadKnown ? endsAtHead + 1 : 0;

            // Acknowledgements that were on their way are lost with the connection; the broker had no more unsettled than it was allowed.
            var unheard = single > 0 ? 1 : doubtful > 0 ? Portion : allowed;
            var back = allowed + inHand + unheard;

            // What goes back is handed out first again, so the message is behind as many at most. What came since the end before comes once more and counts once more.
            if (doubtful > 0 || isMessage)
            {
                single += back;
            }

            doubtful += back;
        }
    }

    /// <summary>Nothing came and nothing ended for a while: had there been such a message, it would have come first.</summary>
    public void Calm()
    {
        lock (gate)
        {
            (doubtful, single, endsAtHead) = (0, 0, 0);
        }
    }
}
