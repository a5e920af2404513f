DROP TABLE gone_names;
DROP TABLE job_name;
CREATE INDEX job_detail_name ON job_detail (workflow_id, name);
