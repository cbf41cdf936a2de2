-- Times are Unix milliseconds, amounts are minor units of the currency, hashes are raw SHA-256 bytes.

-- What became of each message that had a valid envelope, for the life of its order.
CREATE TABLE inbox (
    key          TEXT    NOT NULL PRIMARY KEY,
    fingerprint  BLOB    NOT NULL,
    outcome      INTEGER NOT NULL,              -- 1 accepted, 2 refused, 3 deferred, 4 rejected
    reason       TEXT,
    order_id     TEXT,
    decided_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The log. position is the order of commits; version is the place in the order's own stream.
CREATE TABLE events (
    position        INTEGER PRIMARY KEY,
    order_id        TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    type            TEXT    NOT NULL,
    data            BLOB    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    TEXT    NOT NULL,
    traceparent     TEXT,
    recorded_at     INTEGER NOT NULL,
    hash            BLOB    NOT NULL,
    UNIQUE (order_id, version)
) STRICT;

-- The head of each stream and the read model in one row, written with the events it sums up.
CREATE TABLE orders (
    seq           INTEGER PRIMARY KEY,
    order_id      TEXT    NOT NULL UNIQUE,
    version       INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    customer_id   TEXT    NOT NULL,
    currency      TEXT    NOT NULL,
    total_minor   INTEGER NOT NULL,
    line_count    INTEGER NOT NULL,
    placed_at     INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    last_hash     BLOB    NOT NULL
) STRICT;
CREATE INDEX orders_by_customer ON orders (customer_id, seq);

-- What still has to be published. A row leaves the table when the broker confirmed it.
-- kind 1: the event (order_id, version); 2: a published-only message; 3: a replayed command. 2 and 3 bring their own message.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    shard        INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    order_id     TEXT    NOT NULL,
    version      INTEGER NOT NULL DEFAULT 0,
    message      TEXT,
    body         BLOB,
    created_at   INTEGER NOT NULL
) STRICT;

-- Commands that came before their order.
CREATE TABLE deferred (
    key             TEXT    NOT NULL PRIMARY KEY,
    order_id        TEXT    NOT NULL,
    type            TEXT    NOT NULL,
    body            BLOB    NOT NULL,
    properties      TEXT    NOT NULL,
    fingerprint     BLOB    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    traceparent     TEXT,
    received_at     INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deferred_by_order ON deferred (order_id);
CREATE INDEX deferred_by_expiry ON deferred (expires_at);

-- Why a delivery was rejected, written before the reject leaves, with the bytes until its dead letter is parked.
CREATE TABLE rejections (
    key           TEXT    NOT NULL,
    fingerprint   BLOB    NOT NULL,
    reason        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    field         TEXT,
    exception     TEXT,
    order_id      TEXT,
    body          BLOB,
    properties    TEXT,
    rejected_at   INTEGER NOT NULL,
    parked        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX rejections_unparked ON rejections (rejected_at) WHERE parked = 0;

-- Deliveries that were begun alone because they came back several times: what is left here after a crash names its cause.
CREATE TABLE started (
    fingerprint  BLOB    NOT NULL PRIMARY KEY,
    attempts     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to an order beside its events: duplicates, refusals, waits, letters, replays, alerts.
CREATE TABLE history (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id    TEXT,
    key         TEXT,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    letter_id   INTEGER
) STRICT;
CREATE INDEX history_by_order ON history (order_id, id);
CREATE INDEX history_by_key ON history (key, id);

CREATE TABLE dead_letters (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    key              TEXT    NOT NULL,
    fingerprint      BLOB    NOT NULL,           -- of type and body: which message this is
    incident         TEXT    NOT NULL,           -- of the failure: which incident it belongs to
    status           TEXT    NOT NULL,           -- parked, replayed, resolved, discarded, superseded
    reason           TEXT    NOT NULL,
    detail           TEXT    NOT NULL,
    field            TEXT,
    content_type     TEXT,
    type             TEXT,
    message_id       TEXT,
    correlation_id   TEXT,
    order_id         TEXT,
    customer_id      TEXT,
    currency         TEXT,
    value_minor      INTEGER,
    parked_at        INTEGER NOT NULL,
    opened_at        INTEGER NOT NULL,           -- when it was parked last: it comes back when a replay fails
    copies           INTEGER NOT NULL DEFAULT 1,
    replays          INTEGER NOT NULL DEFAULT 0,
    replayed_at      INTEGER,
    settled_at       INTEGER,
    settled_by       TEXT,
    settle_reason    TEXT,
    alert_id         INTEGER,                    -- the alert that covers it; NULL while it waits for one
    -- What may be long comes last, so that the rest is read without it.
    exception        TEXT,
    body             BLOB    NOT NULL,
    properties       TEXT    NOT NULL,           -- JSON: all AMQP properties and headers as they came
    deaths           TEXT,                       -- JSON: the broker's x-death table
    UNIQUE (key, fingerprint)
) STRICT;
CREATE INDEX dead_letters_by_status ON dead_letters (status, id);
CREATE INDEX dead_letters_by_incident ON dead_letters (incident, status, id);
CREATE INDEX dead_letters_by_incident_id ON dead_letters (incident, id);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason, id);
CREATE INDEX dead_letters_by_status_reason ON dead_letters (status, reason, id);
-- All that is asked about many letters at once: how many orders and customers they hold up, and how much money.
CREATE INDEX dead_letters_held ON dead_letters (status, incident, order_id, customer_id, currency, value_minor, parked_at);
CREATE INDEX dead_letters_by_order ON dead_letters (order_id);
CREATE INDEX dead_letters_uncovered ON dead_letters (opened_at) WHERE alert_id IS NULL AND status <> 'superseded';
CREATE INDEX dead_letters_by_alert ON dead_letters (alert_id);
CREATE INDEX dead_letters_by_time ON dead_letters (parked_at, incident, status);

CREATE TABLE incidents (
    fingerprint     TEXT    NOT NULL PRIMARY KEY,
    reason          TEXT    NOT NULL,
    title           TEXT    NOT NULL,
    field           TEXT,
    exception       TEXT,
    state           TEXT    NOT NULL,            -- new, acknowledged, resolved, regressed
    letters         INTEGER NOT NULL,
    first_seen      INTEGER NOT NULL,
    last_seen       INTEGER NOT NULL,
    first_build     TEXT    NOT NULL,
    last_build      TEXT    NOT NULL,
    regressed_build TEXT,
    state_by        TEXT,
    state_at        INTEGER,
    muted_until     INTEGER,
    last_alert_at   INTEGER,
    escalated_at    INTEGER
) STRICT;

CREATE TABLE alerts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT    NOT NULL,                -- first, digest, reminder, escalation, recovery, test, service
    incident    TEXT,
    subject     TEXT    NOT NULL,
    text        TEXT    NOT NULL,
    data        TEXT    NOT NULL,                -- JSON for webhooks
    letters     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    dispatched  INTEGER NOT NULL DEFAULT 0  -- 1 once it has a row in alert_deliveries for each channel
) STRICT;
CREATE INDEX alerts_undispatched ON alerts (id) WHERE dispatched = 0;
CREATE INDEX alerts_by_kind ON alerts (kind, created_at);

CREATE TABLE alert_deliveries (
    alert_id         INTEGER NOT NULL,
    channel          TEXT    NOT NULL,
    status           TEXT    NOT NULL,           -- pending, sent, failed
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER NOT NULL,
    last_error       TEXT,
    sent_at          INTEGER,
    PRIMARY KEY (alert_id, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_deliveries_pending ON alert_deliveries (next_attempt_at) WHERE status = 'pending';

-- When a job that only one instance may do at a time was done last; updating the row is the lock.
CREATE TABLE schedules (
    name     TEXT    NOT NULL PRIMARY KEY,
    last_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO schedules (name, last_at) VALUES ('digest', 0), ('reminders', 0);

CREATE TABLE replays (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    letter_id     INTEGER NOT NULL,
    job_id        INTEGER,
    body          BLOB,                          -- the edited body; NULL when the original bytes went out
    requested_by  TEXT    NOT NULL,
    reason        TEXT,
    requested_at  INTEGER NOT NULL,
    outcome       TEXT,                          -- NULL while under way; resolved, failed, refused, deferred
    detail        TEXT,
    finished_at   INTEGER
) STRICT;
CREATE INDEX replays_by_letter ON replays (letter_id);

CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL
) STRICT;

-- How far a reader of the log has come (Kafka, the customer's mail).
CREATE TABLE checkpoints (
    reader    TEXT    NOT NULL PRIMARY KEY,
    position  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may publish the first occurrences of which streams. A holder that comes back late can only add duplicates.
CREATE TABLE relay_leases (
    shard       INTEGER NOT NULL PRIMARY KEY,
    owner       TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Answers to HTTP requests with an Idempotency-Key, for a day. status is NULL while the first request is under way.
CREATE TABLE http_requests (
    principal    TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    status       INTEGER,
    location     TEXT,
    body         TEXT,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX http_requests_by_age ON http_requests (created_at);

-- Bulk replays: how fast, how far. The counts are written with the letters they count.
CREATE TABLE replay_jobs (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    state          TEXT    NOT NULL,             -- running, paused, stopped, cancelled, done
    mode           TEXT    NOT NULL,             -- canary, all
    rate           REAL NOT NULL,
    letter_limit   INTEGER,
    confirmed      INTEGER NOT NULL DEFAULT 0,   -- 1: letters that another program put there are meant too
    reason         TEXT    NOT NULL,
    requested_by   TEXT    NOT NULL,
    requested_at   INTEGER NOT NULL,
    started_at     INTEGER,
    finished_at    INTEGER,
    state_by       TEXT    NOT NULL,
    state_at       INTEGER NOT NULL,
    waiting        TEXT,
    stop_reason    TEXT,
    total          INTEGER NOT NULL,
    sent           INTEGER NOT NULL DEFAULT 0,
    succeeded      INTEGER NOT NULL DEFAULT 0,
    failed         INTEGER NOT NULL DEFAULT 0,
    skipped        INTEGER NOT NULL DEFAULT 0,
    runner         TEXT,                         -- the instance that works on it, until runner_until
    runner_until   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX replay_jobs_open ON replay_jobs (id) WHERE state = 'running' OR sent > succeeded + failed;

-- The letters of a job are fixed when it is made: later ones are not swept in.
CREATE TABLE replay_job_letters (
    job_id     INTEGER NOT NULL,
    letter_id  INTEGER NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'untouched', -- untouched, sent, succeeded, failed, skipped
    reason     TEXT,
    detail     TEXT,
    PRIMARY KEY (job_id, letter_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_job_letters_by_state ON replay_job_letters (job_id, state, letter_id);
CREATE INDEX replays_by_job ON replays (job_id, letter_id) WHERE job_id IS NOT NULL;
