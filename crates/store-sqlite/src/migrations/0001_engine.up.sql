-- What the engine keeps. No constraint but the keys: what the machine decided cannot be refused.

-- One row each: the number of the last committed batch, and the boot epoch of the last start.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('lsn', 0), ('epoch', 0);

-- High-water marks: ids below them may be in use.
CREATE TABLE sequence (
    name TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The hot row of a workflow; the last columns count its jobs by their state.
CREATE TABLE workflow_state (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    is_canceled INTEGER NOT NULL,
    is_archived INTEGER NOT NULL,
    has_edges INTEGER NOT NULL,
    default_requirement_id INTEGER NOT NULL,
    -- A change of many jobs that is not over: 1 initialize, 2 initialize drafts, 3 reset, 4 reset what
    -- failed, 5 delete all jobs, 6 create jobs. And how many jobs it has behind it, or, of a creation, the
    -- first of the new jobs, which are not there until it is over.
    march INTEGER,
    march_at INTEGER,
    -- Reserved for the graph.
    graph_bytes INTEGER NOT NULL,
    draft INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    claimed INTEGER NOT NULL,
    running INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    canceled INTEGER NOT NULL,
    terminated INTEGER NOT NULL,
    disabled INTEGER NOT NULL,
    pending_failed INTEGER NOT NULL,
    scheduled INTEGER NOT NULL
) STRICT;

CREATE INDEX workflow_state_marching ON workflow_state (march) WHERE march > 0;
CREATE INDEX workflow_state_graph ON workflow_state (graph_bytes) WHERE graph_bytes > 0;

-- Deleted workflows whose rows are not all gone: some go with each commit.
CREATE TABLE doomed (
    workflow_id INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    requirement_id INTEGER NOT NULL,
    -- A JSON array.
    labels TEXT NOT NULL,
    scheduler_id INTEGER
) STRICT;
CREATE INDEX lane_workflow ON lane (workflow_id);

CREATE TABLE requirement_needs (
    workflow_id INTEGER NOT NULL,
    requirement_id INTEGER NOT NULL,
    cpus INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    nodes INTEGER NOT NULL,
    runtime_seconds INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, requirement_id)
) STRICT, WITHOUT ROWID;

-- The hot row of a job: all that changes in its life. Times are milliseconds since 1970 UTC.
-- state: 0 draft, 1 blocked, 2 ready, 3 claimed, 4 running, 5 completed, 6 failed, 7 canceled,
-- 8 terminated, 9 disabled, 10 pending_failed, 11 scheduled.
CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    lane_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    -- 1 cancel on failure, 2 blamed, 4 cascaded.
    flags INTEGER NOT NULL,
    node_id INTEGER,
    epoch INTEGER NOT NULL,
    started_at INTEGER,
    due_at INTEGER,
    result_id INTEGER
) STRICT;
-- Never rewritten: a job stays in its workflow.
CREATE INDEX job_workflow ON job (workflow_id);
-- The order of a lane; the id is the last key of every index.
CREATE INDEX job_page ON job (lane_id, priority DESC) WHERE state = 2;
-- The few that somebody looks for among many: not well ended, or waiting for a moment. Each index on
-- what changes is paid for at each change: with running jobs in this one, a batch takes a sixth longer;
-- with a list of states in place of a comparison, which SQLite would build anew each time, thrice as long.
CREATE INDEX job_few ON job (state, workflow_id) WHERE state > 5;

-- What is written once of a job.
CREATE TABLE job_detail (
    job_id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX job_detail_name ON job_detail (workflow_id, name);

CREATE TABLE dependency (
    workflow_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    depends_on INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, job_id, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependency_dependents ON dependency (depends_on, job_id);

-- Which catalog rows a job is tied to.
-- kind: 0 reads a file, 1 writes a file, 2 reads user data, 3 writes user data.
CREATE TABLE relation (
    workflow_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    item INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, job_id, kind, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX relation_item ON relation (kind, item, job_id);
