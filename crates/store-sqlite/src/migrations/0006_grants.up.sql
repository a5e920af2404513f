-- A claim is numbered, not only the boot that granted it: 1099511627776 times the boot's epoch, and
-- which of its grants it was. What was granted before has numbers below all of them.
ALTER TABLE job RENAME COLUMN epoch TO grant_number;
