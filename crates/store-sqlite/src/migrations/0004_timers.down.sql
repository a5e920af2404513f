DROP INDEX job_timer;
ALTER TABLE job DROP COLUMN timer_at;
