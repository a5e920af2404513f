-- A job may have a policy: 20 bytes, little-endian: deadline, back-off's base and cap in milliseconds
-- (4 bytes each), how many attempts may fail and be lost (2 each), back-off's factor, its jitter in
-- hundredths, at most once, what it becomes at its end (1 each). tries: attempts that failed, and
-- 65536 for each that was lost. In flags 16 is a dead letter.
ALTER TABLE job ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN policy BLOB;
ALTER TABLE job ADD COLUMN expires_at INTEGER;
-- What a node holds, for when it is gone.
CREATE INDEX job_node ON job (node_id) WHERE node_id IS NOT NULL;

-- Compute nodes that say again and again that they live.
CREATE TABLE lease (
    workflow_id INTEGER NOT NULL,
    node_id INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, node_id)
) STRICT, WITHOUT ROWID;
