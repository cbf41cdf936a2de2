-- An order writes a random page of every index that is not in the order of arrival, whole, and that was most of what a commit wrote. So events are found by their
-- stream's number, which grows, and an inbox row lies where it came, with only its key in the index.
-- An event without its order's row stops this migration: mend the store with `verify --repair` of the version before.

CREATE TABLE events_by_stream (
    position        INTEGER PRIMARY KEY,
    stream          INTEGER NOT NULL,           -- orders.seq
    order_id        TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    type            TEXT    NOT NULL,
    data            BLOB    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    TEXT    NOT NULL,
    traceparent     TEXT,
    recorded_at     INTEGER NOT NULL,
    hash            BLOB    NOT NULL,
    UNIQUE (stream, version)
) STRICT;
INSERT INTO events_by_stream (position, stream, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash)
    SELECT position, (SELECT seq FROM orders WHERE orders.order_id = events.order_id), order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash
    FROM events ORDER BY position;
DROP TABLE events;
ALTER TABLE events_by_stream RENAME TO events;

CREATE TABLE inbox_by_arrival (
    key          TEXT    NOT NULL UNIQUE,
    fingerprint  BLOB    NOT NULL,
    outcome      INTEGER NOT NULL,              -- 1 accepted, 2 refused, 3 deferred, 4 rejected
    reason       TEXT,
    order_id     TEXT,
    decided_at   INTEGER NOT NULL
) STRICT;
INSERT INTO inbox_by_arrival (key, fingerprint, outcome, reason, order_id, decided_at)
    SELECT key, fingerprint, outcome, reason, order_id, decided_at FROM inbox ORDER BY decided_at;
DROP TABLE inbox;
ALTER TABLE inbox_by_arrival RENAME TO inbox;
