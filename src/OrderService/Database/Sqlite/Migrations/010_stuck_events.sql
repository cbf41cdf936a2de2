-- What a subscriber's queue refuses waits here and not in memory. The whole stream is marked with the routing key that its head waits for; the reason stands at the head.
ALTER TABLE outbox ADD COLUMN stuck_key TEXT;
ALTER TABLE outbox ADD COLUMN stuck_reason TEXT;
ALTER TABLE outbox ADD COLUMN stuck_since INTEGER;
CREATE INDEX outbox_stuck ON outbox (stuck_key, id) WHERE stuck_key IS NOT NULL;
CREATE INDEX outbox_stuck_streams ON outbox (order_id, id) WHERE stuck_key IS NOT NULL;

-- What the instances share about a refused routing key: when it was tried last, and how often an operator asked for an attempt.
CREATE TABLE relay_keys (
    routing_key  TEXT    NOT NULL PRIMARY KEY,
    tried_at     INTEGER NOT NULL DEFAULT 0,
    releases     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
