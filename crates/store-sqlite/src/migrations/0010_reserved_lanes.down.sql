DROP INDEX workflow_state_lanes;
ALTER TABLE workflow_state DROP COLUMN lanes;
