-- An order writes a random page of every index that is not in the order of arrival; after each checkpoint the log gets that page whole. So events are found by their
-- stream's number, which grows.
-- An event without its order's row stops this migration: mend the store with `verify --repair` of the version before.

ALTER TABLE events ADD COLUMN stream BIGINT;    -- orders.seq
UPDATE events SET stream = orders.seq FROM orders WHERE orders.order_id = events.order_id;
ALTER TABLE events
    ALTER COLUMN stream SET NOT NULL,
    DROP CONSTRAINT events_order_id_version_key,
    ADD CONSTRAINT events_stream_version_key UNIQUE (stream, version);
