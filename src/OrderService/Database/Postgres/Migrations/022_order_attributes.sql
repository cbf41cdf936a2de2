-- Attributes by which orders are found: only those that Orders:SearchableAttributes names.
CREATE TABLE order_attributes (
    name   TEXT    NOT NULL,
    value  TEXT    NOT NULL,
    seq    BIGINT  NOT NULL,                    -- orders.seq
    PRIMARY KEY (name, value, seq)
);
CREATE INDEX order_attributes_by_order ON order_attributes (seq);
