INSERT OR IGNORE INTO dependency (workflow_id, job_id, depends_on)
SELECT m.workflow_id, m.job_id, b.depends_on
FROM barrier_member m JOIN barrier b ON b.workflow_id = m.workflow_id AND b.barrier_id = m.barrier_id;
DROP TABLE barrier_member;
DROP TABLE barrier;
