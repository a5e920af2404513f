DROP TABLE lane_state;
-- The version before knows of no task that waits for others: it waits for nothing more. Nor does it know of
-- one that has ended and is awaited (flag 32).
DELETE FROM dependency WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
DELETE FROM job_detail WHERE job_id IN (
    SELECT j.id FROM job j JOIN workflow_state w ON w.id = j.workflow_id AND w.is_endless = 1
    WHERE j.state IN (5, 6, 7, 8) AND j.flags & 16 = 0);
DELETE FROM job WHERE state IN (5, 6, 7, 8) AND flags & 16 = 0
    AND workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
UPDATE job SET timer_at = NULL WHERE state IN (5, 6, 7, 8) AND flags & 32 <> 0;
UPDATE job SET state = CASE WHEN due_at IS NULL THEN 2 ELSE 11 END,
    timer_at = CASE WHEN due_at IS NULL THEN expires_at ELSE min(due_at, coalesce(expires_at, due_at)) END
    WHERE state = 1 AND workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
UPDATE job SET flags = flags & ~32 WHERE flags & 32 <> 0;
UPDATE workflow_state SET
    blocked = 0,
    ready = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 2),
    scheduled = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 11),
    completed = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 5),
    failed = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 6),
    canceled = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 7),
    terminated = (SELECT count(*) FROM job j WHERE j.workflow_id = workflow_state.id AND j.state = 8)
    WHERE is_endless = 1;
