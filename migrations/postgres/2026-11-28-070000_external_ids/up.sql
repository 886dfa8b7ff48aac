-- A busy table waits for nobody's long query: run it again.
SET LOCAL lock_timeout = '2s';

-- The user's id in another system of the company. On a large table, add the column and make the index before the
-- release: docs/adding-a-migration.md, "Locks on PostgreSQL".
ALTER TABLE users ADD COLUMN IF NOT EXISTS external_id text;
-- No row has one yet, so there is nothing to read the table for.
ALTER TABLE users ADD CONSTRAINT users_external_id_check
    CHECK (char_length(external_id) BETWEEN 1 AND 255) NOT VALID;

CREATE UNIQUE INDEX IF NOT EXISTS users_by_external_id ON users (tenant_id, external_id)
    WHERE external_id IS NOT NULL;
