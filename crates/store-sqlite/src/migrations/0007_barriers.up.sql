-- Jobs that depend on the same others wait at one barrier, which depends on them. It is named after the
-- first of those jobs.
CREATE TABLE barrier (
    workflow_id INTEGER NOT NULL,
    barrier_id INTEGER NOT NULL,
    depends_on INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, barrier_id, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX barrier_dependents ON barrier (depends_on, barrier_id);

CREATE TABLE barrier_member (
    workflow_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    barrier_id INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, job_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX barrier_members ON barrier_member (barrier_id, job_id);
