-- Troubles of the service that somebody was told of, so that of several instances, and after a restart, nobody says it twice.
CREATE TABLE service_troubles (
    key      TEXT    NOT NULL PRIMARY KEY,
    subject  TEXT    NOT NULL,
    state    TEXT    NOT NULL,                   -- new (not told yet), standing, over
    size     INTEGER NOT NULL,                   -- how much of it there was when it was told
    told_at  INTEGER NOT NULL,
    seen_at  INTEGER NOT NULL                    -- when an instance in which it stands said so last
) STRICT, WITHOUT ROWID;
-- The messages in orders.unreadable had an alert of their own before.
INSERT INTO service_troubles (key, subject, state, size, told_at, seen_at)
    SELECT 'unreadable', subject, 'standing', letters, created_at, created_at
    FROM (SELECT subject, letters, created_at FROM alerts WHERE kind = 'service' ORDER BY created_at DESC, id DESC LIMIT 1) last WHERE letters > 0;

-- How a channel does, for whoever shows it: the process that sends may be another one.
CREATE TABLE alert_channels (
    channel  TEXT    NOT NULL PRIMARY KEY,
    state    TEXT    NOT NULL,                   -- ok, failing, off
    reason   TEXT,
    since    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which recipients of a mail have it or never will, as JSON; and when the channel was first asked for the alert.
ALTER TABLE alert_deliveries ADD COLUMN recipients TEXT;
ALTER TABLE alert_deliveries ADD COLUMN begun_at INTEGER;

-- Confirmations that customers wait for, each with its own time for the next attempt.
CREATE TABLE order_mails (
    position         INTEGER NOT NULL PRIMARY KEY,  -- of the event that the mail tells of
    order_id         TEXT    NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER NOT NULL,
    begun_at         INTEGER NOT NULL
) STRICT;
CREATE INDEX order_mails_due ON order_mails (next_attempt_at);

-- clock-steps counts the steps of the store's clock that deadlines were moved for; clock-seen is when that clock was last looked at while something waited.
INSERT INTO schedules (name, last_at) VALUES ('clock-steps', 0), ('clock-seen', 0);
