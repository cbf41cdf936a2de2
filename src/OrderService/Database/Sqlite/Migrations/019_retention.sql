-- What is left of orders that were taken out: hashes alone, so that a late copy of their messages is known for one. 16 bytes of the SHA-256 of a key or of an order's id.
CREATE TABLE tombstones (
    hash         BLOB    NOT NULL PRIMARY KEY,
    fingerprint  BLOB,                          -- of the message that had the key; NULL for an order's id
    gone_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who takes old rows out now, and what the last round did. One row.
CREATE TABLE retention (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    holder      TEXT,
    held_until  INTEGER NOT NULL DEFAULT 0,
    began_at    INTEGER,
    ended_at    INTEGER,
    done        TEXT    NOT NULL DEFAULT '{}'   -- JSON: how many rows, by kind
) STRICT;
INSERT INTO retention (id) VALUES (1);

-- What was sold with orders that were taken out, by the day they were placed (UTC, days since 1970).
CREATE TABLE sales_kept (
    day          INTEGER NOT NULL,
    currency     TEXT    NOT NULL,
    status       INTEGER NOT NULL,
    orders       INTEGER NOT NULL,
    total_minor  INTEGER NOT NULL,
    PRIMARY KEY (day, currency, status)
) STRICT, WITHOUT ROWID;

-- Rows by age. Nothing of it is written for a plain order.
CREATE INDEX history_by_age ON history (at, id);
CREATE INDEX audit_by_age ON audit (at, id);
CREATE INDEX alerts_by_age ON alerts (created_at, id);
CREATE INDEX dead_letters_settled ON dead_letters (settled_at, id) WHERE settled_at IS NOT NULL;
CREATE INDEX keyless_letters_by_letter ON keyless_letters (letter_id);
CREATE INDEX refused_payments_by_age ON refused_payments (refused_at, id);

-- The messages of an order that left no event: the others are found by their events.
CREATE INDEX inbox_without_event ON inbox (order_id) WHERE outcome <> 1 OR reason IS NOT NULL;

-- Orders by where they stand and when they changed.
CREATE INDEX orders_by_change ON orders (status, updated_at, seq);
