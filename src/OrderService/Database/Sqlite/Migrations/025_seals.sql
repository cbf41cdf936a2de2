-- Evidence that nobody without the key changed events, dead letters or the audit log: see docs/decisions/0037-seals-behind-the-commit.md.

-- Who wrote the event: the id of a key and an HMAC under it over the event's hash. NULL for events of before.
ALTER TABLE events ADD COLUMN mark BLOB;

-- One chain for all three tables; each seal covers some rows of one of them.
CREATE TABLE seals (
    number     INTEGER NOT NULL PRIMARY KEY,    -- from 1, without a gap
    subject    TEXT    NOT NULL,                -- events, dead_letters, audit
    first_row  INTEGER NOT NULL,
    last_row   INTEGER NOT NULL,
    row_count  INTEGER NOT NULL,
    found_to   INTEGER NOT NULL,                -- up to this number rows are sealed as they are found, for they are older than seals; 0 once all of those are sealed
    sealed_at  INTEGER NOT NULL,
    key_id     TEXT    NOT NULL,
    previous   BLOB    NOT NULL,                -- hash of the seal before; zeros before the first one
    root       BLOB    NOT NULL,                -- SHA-256 of the manifest
    signature  BLOB    NOT NULL,                -- HMAC-SHA256 over all of the above
    manifest   BLOB    NOT NULL                 -- the number of each row, what became of it, and its SHA-256
) STRICT;
CREATE INDEX seals_by_row ON seals (subject, last_row);
CREATE INDEX seals_by_subject ON seals (subject, number);

-- What was added, changed or taken out, and has no seal yet. Each is signed, so that nobody else can have something sealed.
CREATE TABLE seal_marks (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    subject  TEXT    NOT NULL,
    row_id   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,                  -- 1 added, 2 changed, 3 taken out
    nonce    BLOB    NOT NULL,
    mark     BLOB    NOT NULL
) STRICT;
CREATE INDEX seal_marks_by_row ON seal_marks (subject, row_id);

-- The newest rows of before.
CREATE TABLE seal_beginnings (
    subject   TEXT    NOT NULL PRIMARY KEY,
    found_to  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO seal_beginnings (subject, found_to)
    SELECT 'events', coalesce(max(position), 0) FROM events UNION ALL SELECT 'dead_letters', coalesce(max(id), 0) FROM dead_letters UNION ALL SELECT 'audit', coalesce(max(id), 0) FROM audit;

INSERT INTO schedules (name, last_at) VALUES ('seal-head', 0);
