-- Which store this is, and its lives between restores: see docs/decisions/0032-epochs.md.
CREATE TABLE store_identity (
    id  TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO store_identity (id) VALUES (lower(hex(randomblob(16))));

CREATE TABLE epochs (
    number         INTEGER NOT NULL PRIMARY KEY,
    began_at       INTEGER NOT NULL,
    last_position  INTEGER NOT NULL,             -- the newest event when it began: what lies behind it in epochs before is not in this store
    cause          TEXT    NOT NULL              -- first, restore, in-place, deleted
) STRICT;
INSERT INTO epochs (number, began_at, last_position, cause) VALUES (1, CAST(unixepoch('subsec') * 1000 AS INTEGER), 0, 'first');
