-- What changes of a lane of a workflow without an end: how many of its jobs are claimed or running, and
-- whether anything of it is handed out. A lane without a row has nothing held and is not paused.
CREATE TABLE lane_state (
    lane_id INTEGER PRIMARY KEY,
    held INTEGER NOT NULL,
    is_paused INTEGER NOT NULL
) STRICT;
INSERT INTO lane_state (lane_id, held, is_paused)
    SELECT lane_id, count(*), 0 FROM job
    WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1) AND state IN (3, 4)
    GROUP BY lane_id;
-- From this version on tasks may wait for others.
