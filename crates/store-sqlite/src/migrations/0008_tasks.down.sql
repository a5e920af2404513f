-- The version before knows of no workflow without an end, and of nothing that is kept for it.
DELETE FROM job_detail WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
DELETE FROM job WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
DELETE FROM lane WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
DELETE FROM requirement_needs WHERE workflow_id IN (SELECT id FROM workflow_state WHERE is_endless = 1);
DELETE FROM workflow_state WHERE is_endless = 1;
DELETE FROM sequence WHERE name = 'application';
DROP TABLE application;
ALTER TABLE workflow_state DROP COLUMN is_paused;
ALTER TABLE workflow_state DROP COLUMN is_endless;
