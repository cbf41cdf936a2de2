-- Which store this is, and its lives between restores: see docs/decisions/0032-epochs.md.
CREATE TABLE store_identity (
    id  TEXT NOT NULL PRIMARY KEY
);
INSERT INTO store_identity (id) VALUES (replace(gen_random_uuid()::text, '-', ''));

CREATE TABLE epochs (
    number         BIGINT NOT NULL PRIMARY KEY,
    began_at       BIGINT NOT NULL,
    last_position  BIGINT NOT NULL,              -- the newest event when it began: what lies behind it in epochs before is not in this store
    cause          TEXT   NOT NULL               -- first, restore, in-place, deleted
);
INSERT INTO epochs (number, began_at, last_position, cause) VALUES (1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 0, 'first');
