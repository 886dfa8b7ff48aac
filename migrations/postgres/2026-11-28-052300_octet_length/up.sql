-- Only SQLite's tables change: see the migration of this name there.
SELECT 1;
