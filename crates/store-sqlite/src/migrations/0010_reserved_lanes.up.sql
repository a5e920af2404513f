-- How many lanes are counted against the bound of all: those of a workflow until it is complete.
ALTER TABLE workflow_state ADD COLUMN lanes INTEGER NOT NULL DEFAULT 0;
UPDATE workflow_state SET lanes = (SELECT count(*) FROM lane WHERE lane.workflow_id = workflow_state.id)
    WHERE is_canceled = 0
    AND (is_endless = 1 OR draft + blocked + ready + claimed + running + pending_failed + scheduled > 0);
CREATE INDEX workflow_state_lanes ON workflow_state (lanes) WHERE lanes > 0;
