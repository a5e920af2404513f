DROP TABLE task;
ALTER TABLE user_data DROP COLUMN data_before;
