-- The catalog: what is stored for people and runners. The columns are those of the tables in
-- `forebay_domain::catalog`, by a test; the values are written and read by generic code.

CREATE TABLE workflow (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    user TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    project TEXT,
    metadata TEXT,
    env TEXT,
    submission_directory TEXT,
    compute_node_expiration_buffer_seconds INTEGER,
    compute_node_wait_for_new_jobs_seconds INTEGER,
    compute_node_ignore_workflow_completion INTEGER,
    compute_node_wait_for_healthy_database_minutes INTEGER,
    compute_node_min_time_for_new_jobs_seconds INTEGER,
    resource_monitor_config TEXT,
    slurm_defaults TEXT,
    execution_config TEXT,
    dynamic_jobs TEXT,
    use_pending_failed INTEGER,
    enable_ro_crate INTEGER,
    source_path TEXT,
    source_hash TEXT
) STRICT;

CREATE TABLE resource_requirements (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    num_cpus INTEGER NOT NULL,
    num_gpus INTEGER NOT NULL,
    num_nodes INTEGER NOT NULL,
    memory TEXT NOT NULL,
    runtime TEXT NOT NULL
) STRICT;
CREATE INDEX resource_requirements_workflow ON resource_requirements (workflow_id);

CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    st_mtime REAL
) STRICT;
CREATE INDEX file_workflow ON file (workflow_id);

CREATE TABLE user_data (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    is_ephemeral INTEGER NOT NULL,
    data TEXT
) STRICT;
CREATE INDEX user_data_workflow ON user_data (workflow_id);

CREATE TABLE compute_node (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    hostname TEXT NOT NULL,
    pid INTEGER NOT NULL,
    start_time TEXT NOT NULL,
    end_time TEXT,
    duration_seconds REAL,
    is_active INTEGER,
    num_cpus INTEGER NOT NULL,
    memory_gb REAL NOT NULL,
    num_gpus INTEGER NOT NULL,
    num_nodes INTEGER NOT NULL,
    time_limit TEXT,
    scheduler_config_id INTEGER,
    compute_node_type TEXT NOT NULL,
    scheduler TEXT,
    labels TEXT,
    sample_count INTEGER,
    peak_cpu_percent REAL,
    avg_cpu_percent REAL,
    peak_memory_bytes INTEGER,
    avg_memory_bytes INTEGER
) STRICT;
CREATE INDEX compute_node_workflow ON compute_node (workflow_id);

CREATE TABLE failure_handler (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    rules TEXT NOT NULL
) STRICT;
CREATE INDEX failure_handler_workflow ON failure_handler (workflow_id);

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    data TEXT
) STRICT;
CREATE INDEX event_workflow ON event (workflow_id);

CREATE TABLE result (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    attempt_id INTEGER NOT NULL,
    compute_node_id INTEGER NOT NULL,
    return_code INTEGER NOT NULL,
    exec_time_minutes REAL NOT NULL,
    completion_time TEXT NOT NULL,
    status INTEGER NOT NULL,
    peak_memory_bytes INTEGER,
    avg_memory_bytes INTEGER,
    peak_cpu_percent REAL,
    avg_cpu_percent REAL
) STRICT;
CREATE INDEX result_workflow ON result (workflow_id);
-- All outcomes of one job.
CREATE INDEX result_job ON result (job_id);

CREATE TABLE workflow_action (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    trigger_type TEXT NOT NULL,
    action_type TEXT NOT NULL,
    action_config TEXT,
    job_ids TEXT,
    trigger_count INTEGER NOT NULL,
    required_triggers INTEGER NOT NULL,
    executed INTEGER NOT NULL,
    executed_at TEXT,
    executed_by INTEGER,
    persistent INTEGER NOT NULL,
    is_recovery INTEGER NOT NULL
) STRICT;
CREATE INDEX workflow_action_workflow ON workflow_action (workflow_id);

CREATE TABLE local_scheduler (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT,
    memory TEXT,
    num_cpus INTEGER
) STRICT;
CREATE INDEX local_scheduler_workflow ON local_scheduler (workflow_id);

CREATE TABLE slurm_scheduler (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT,
    account TEXT NOT NULL,
    gres TEXT,
    mem TEXT,
    nodes INTEGER NOT NULL,
    ntasks_per_node INTEGER,
    partition TEXT,
    qos TEXT,
    tmp TEXT,
    walltime TEXT NOT NULL,
    extra TEXT,
    serialize_allocations INTEGER
) STRICT;
CREATE INDEX slurm_scheduler_workflow ON slurm_scheduler (workflow_id);

CREATE TABLE scheduled_compute_node (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    scheduler_id INTEGER NOT NULL,
    scheduler_config_id INTEGER NOT NULL,
    scheduler_type TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;
CREATE INDEX scheduled_compute_node_workflow ON scheduled_compute_node (workflow_id);
