-- Who is called so. A table of its own, in the place of an index on job_detail, so that names of tasks that
-- are over can go later, many from one page: they come in no order, and each would dirty a page of its own.
CREATE TABLE job_name (
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, name, job_id)
) STRICT, WITHOUT ROWID;
INSERT INTO job_name (workflow_id, name, job_id)
    SELECT workflow_id, name, job_id FROM job_detail ORDER BY workflow_id, name, job_id;
DROP INDEX job_detail_name;

-- Names in job_name of tasks that are over, by the batch that ended them: a JSON array of arrays of a
-- workflow, a name and a job. Some of them may have gone.
CREATE TABLE gone_names (
    lsn INTEGER PRIMARY KEY,
    names TEXT NOT NULL
) STRICT;
