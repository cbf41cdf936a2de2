-- Letters whose bodies a version before the keys of customers stored as they came; each leaves the list when its body lies under a key.
CREATE TABLE plain_letters (
    id  INTEGER NOT NULL PRIMARY KEY
) STRICT;
INSERT INTO plain_letters (id) SELECT id FROM dead_letters;

-- Events of which something personal was taken out after they were written, and who vouches for that.
CREATE TABLE redactions (
    order_id     TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    hash         BLOB    NOT NULL,               -- the event's, which stays what it was
    data_hash    BLOB    NOT NULL,               -- SHA-256 of what is left of the data
    redacted_at  INTEGER NOT NULL,
    signature    BLOB    NOT NULL,               -- HMAC-SHA256 over all of these, under a key of the keys' own store
    PRIMARY KEY (order_id, version)
) STRICT, WITHOUT ROWID;

-- Who was forgotten, here: the list itself lies with the keys and is applied again where this row is missing.
CREATE TABLE forgotten_customers (
    customer_id   TEXT    NOT NULL,
    forgotten_at  INTEGER NOT NULL,
    orders        INTEGER NOT NULL,
    events        INTEGER NOT NULL,
    letters       INTEGER NOT NULL,
    PRIMARY KEY (customer_id, forgotten_at)
) STRICT, WITHOUT ROWID;

-- Customers whose data the law wants kept: they can't be forgotten until that ends.
CREATE TABLE customer_holds (
    customer_id  TEXT    NOT NULL PRIMARY KEY,
    reason       TEXT    NOT NULL,
    held_by      TEXT    NOT NULL,
    held_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

