DROP TABLE lease;
DROP INDEX job_node;
ALTER TABLE job DROP COLUMN expires_at;
ALTER TABLE job DROP COLUMN policy;
ALTER TABLE job DROP COLUMN tries;
UPDATE job SET flags = flags & ~16 WHERE state = 6 AND state > 5 AND flags & 16;
-- The version before knows of no timer but that of a scheduled job.
UPDATE job SET timer_at = CASE WHEN state = 11 THEN due_at END WHERE timer_at IS NOT NULL;
