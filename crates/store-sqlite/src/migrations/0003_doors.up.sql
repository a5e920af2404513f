-- Data of user data as it was when its workflow was initialized last, where it was changed since.
ALTER TABLE user_data ADD COLUMN data_before TEXT;

-- What the server does by itself, and a client asks after.
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    operation TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    created_at_ms INTEGER NOT NULL,
    started_at_ms INTEGER,
    finished_at_ms INTEGER
) STRICT;
CREATE INDEX task_workflow ON task (workflow_id);
