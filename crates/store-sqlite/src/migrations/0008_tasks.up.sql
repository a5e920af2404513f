-- Workflows without an end, one for each application whose tasks are kept here: their jobs are ready when
-- they come, and their rows are deleted when they end. The catalog's workflows do not have them.
ALTER TABLE workflow_state ADD COLUMN is_endless INTEGER NOT NULL DEFAULT 0;
-- Nothing is handed out.
ALTER TABLE workflow_state ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0;

CREATE TABLE application (
    id INTEGER PRIMARY KEY,
    workflow_id INTEGER NOT NULL,
    name TEXT NOT NULL
) STRICT;
CREATE INDEX application_workflow ON application (workflow_id);
