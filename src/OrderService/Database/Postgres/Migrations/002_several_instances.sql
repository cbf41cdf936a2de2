INSERT INTO relay_leases (shard, owner, epoch, expires_at) SELECT shard, '', 0, 0 FROM generate_series(0, 15) AS shard;

-- The instances that relay; they share the leases evenly.
CREATE TABLE relay_members (
    owner       TEXT    NOT NULL PRIMARY KEY,
    expires_at  BIGINT  NOT NULL
);

-- Ends an append that was decided on what is no longer true; it is read and decided again.
CREATE FUNCTION append_conflict(what TEXT) RETURNS BOOLEAN LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = what;
END $$;

-- Rows come and go by the thousand a second: dead ones are cleaned away early, and updates of a head find room on its page.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE orders SET (fillfactor = 85);
ALTER TABLE relay_leases SET (fillfactor = 50);
