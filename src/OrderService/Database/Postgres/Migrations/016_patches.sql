-- What the body's fingerprint is under other types: a copy that was accepted under one of them settles the letter too. 32 bytes each.
ALTER TABLE dead_letters ADD COLUMN twins BYTEA;
-- The key that the replay under way goes out with, where it is another than the letter's.
ALTER TABLE dead_letters ADD COLUMN replay_key TEXT;
CREATE INDEX dead_letters_by_replay_key ON dead_letters (replay_key) WHERE replay_key IS NOT NULL;
-- The same fingerprints of letters that brought no valid key: these are found by their content alone.
CREATE TABLE keyless_letters (
    fingerprint  BYTEA    NOT NULL,
    letter_id    BIGINT NOT NULL,
    PRIMARY KEY (fingerprint, letter_id)
);
ALTER TABLE dead_letters ADD COLUMN keyless BIGINT NOT NULL DEFAULT 0;
CREATE INDEX dead_letters_keyless ON dead_letters (id) WHERE keyless = 1 AND status IN ('parked', 'replayed');

-- What a replay changed beside the body, and what a job changes in each of its letters; JSON.
ALTER TABLE replays ADD COLUMN change TEXT;
ALTER TABLE replay_jobs ADD COLUMN patch TEXT;
