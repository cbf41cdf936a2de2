-- Intake that somebody paused: for every instance, and over restarts. A queue without a row is taken in.
CREATE TABLE intake_pauses (
    queue      TEXT    NOT NULL PRIMARY KEY,
    paused_at  BIGINT  NOT NULL,
    paused_by  TEXT    NOT NULL,
    reason     TEXT    NOT NULL
);

-- What each instance has left in hand of a paused queue, as it says itself; nothing is written here while nothing is paused.
CREATE TABLE intake_in_hand (
    queue     TEXT    NOT NULL,
    instance  TEXT    NOT NULL,
    in_hand   BIGINT  NOT NULL,
    seen_at   BIGINT  NOT NULL,
    PRIMARY KEY (queue, instance)
);
