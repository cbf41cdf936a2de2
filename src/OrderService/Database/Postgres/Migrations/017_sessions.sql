-- Signed-in browsers. Of the cookie there is only the SHA-256, in hex; times are Unix milliseconds.
CREATE TABLE sessions (
    hash       TEXT    NOT NULL PRIMARY KEY,
    key_id     TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    started_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    ends_at    BIGINT NOT NULL,
    ended_at   BIGINT,
    -- 1 when its own browser signed out.
    signed_out BIGINT NOT NULL DEFAULT 0
);
