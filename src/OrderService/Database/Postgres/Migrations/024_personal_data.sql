-- Letters whose bodies a version before the keys of customers stored as they came; each leaves the list when its body lies under a key.
CREATE TABLE plain_letters (
    id  BIGINT  NOT NULL PRIMARY KEY
);
INSERT INTO plain_letters (id) SELECT id FROM dead_letters;

-- Events of which something personal was taken out after they were written, and who vouches for that.
CREATE TABLE redactions (
    order_id     TEXT COLLATE "C" NOT NULL,
    version      BIGINT  NOT NULL,
    hash         BYTEA   NOT NULL,               -- the event's, which stays what it was
    data_hash    BYTEA   NOT NULL,               -- SHA-256 of what is left of the data
    redacted_at  BIGINT  NOT NULL,
    signature    BYTEA   NOT NULL,               -- HMAC-SHA256 over all of these, under a key of the keys' own store
    PRIMARY KEY (order_id, version)
);

-- Who was forgotten, here: the list itself lies with the keys and is applied again where this row is missing.
CREATE TABLE forgotten_customers (
    customer_id   TEXT    NOT NULL,
    forgotten_at  BIGINT  NOT NULL,
    orders        BIGINT  NOT NULL,
    events        BIGINT  NOT NULL,
    letters       BIGINT  NOT NULL,
    PRIMARY KEY (customer_id, forgotten_at)
);

-- Customers whose data the law wants kept: they can't be forgotten until that ends.
CREATE TABLE customer_holds (
    customer_id  TEXT    NOT NULL PRIMARY KEY,
    reason       TEXT    NOT NULL,
    held_by      TEXT    NOT NULL,
    held_at      BIGINT  NOT NULL
);

