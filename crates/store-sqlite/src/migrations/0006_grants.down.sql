UPDATE job SET grant_number = grant_number >> 40 WHERE grant_number >= 1099511627776;
ALTER TABLE job RENAME COLUMN grant_number TO epoch;
