-- The moment at which something happens to a job by itself, if it is left as it is: what the machine
-- says of the row, kept so that the soonest are found. Those of a scheduled job were looked for by
-- their state before.
ALTER TABLE job ADD COLUMN timer_at INTEGER;
UPDATE job SET timer_at = due_at WHERE state = 11 AND state > 5;
CREATE INDEX job_timer ON job (timer_at) WHERE timer_at IS NOT NULL;
