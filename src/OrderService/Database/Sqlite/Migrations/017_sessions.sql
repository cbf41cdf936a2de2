-- Signed-in browsers. Of the cookie there is only the SHA-256, in hex; times are Unix milliseconds.
CREATE TABLE sessions (
    hash       TEXT    NOT NULL PRIMARY KEY,
    key_id     TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    ended_at   INTEGER,
    -- 1 when its own browser signed out.
    signed_out INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
