-- What was begun by which process, so that only an end that nothing else explains counts against a message. Marks of the version before are no evidence.
DROP TABLE started;
CREATE TABLE started (
    fingerprint  BLOB    NOT NULL PRIMARY KEY,
    life         TEXT    NOT NULL,              -- the process that began it last
    company      INTEGER NOT NULL,              -- how many others it was begun with
    ends         INTEGER NOT NULL,              -- processes that ended over it in company
    ends_alone   INTEGER NOT NULL,              -- processes that ended over it alone
    last_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Processes that take orders in. A stop takes its row away; what is left ended in another way.
CREATE TABLE lives (
    life      TEXT    NOT NULL PRIMARY KEY,
    began_at  INTEGER NOT NULL,
    ended_at  INTEGER                           -- when another process found that it had ended
) STRICT, WITHOUT ROWID;

-- Copies are counted with what they are copies of: a million of them are no million rows.
ALTER TABLE inbox ADD COLUMN copies INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN last_copy_at INTEGER;
