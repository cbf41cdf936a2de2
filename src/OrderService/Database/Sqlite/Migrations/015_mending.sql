-- Payments that orders did not take, until an alert tells of them.
CREATE TABLE refused_payments (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id           TEXT    NOT NULL,
    key                TEXT    NOT NULL,
    payment_reference  TEXT    NOT NULL,
    amount             TEXT,                    -- as the message named it
    code               TEXT    NOT NULL,
    reason             TEXT    NOT NULL,
    refused_at         INTEGER NOT NULL,
    alert_id           INTEGER                  -- the alert that tells of it; NULL while it waits for one
) STRICT;
CREATE INDEX refused_payments_untold ON refused_payments (id) WHERE alert_id IS NULL;
INSERT INTO schedules (name, last_at) VALUES ('payments', 0);
