-- Attributes by which orders are found: only those that Orders:SearchableAttributes names.
CREATE TABLE order_attributes (
    name   TEXT    NOT NULL,
    value  TEXT    NOT NULL,
    seq    INTEGER NOT NULL,                    -- orders.seq
    PRIMARY KEY (name, value, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX order_attributes_by_order ON order_attributes (seq);
