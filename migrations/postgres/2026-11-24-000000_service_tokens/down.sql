ALTER TABLE sessions DROP COLUMN rotations;
DROP INDEX sessions_by_last_use;
DROP TABLE service_tokens;
