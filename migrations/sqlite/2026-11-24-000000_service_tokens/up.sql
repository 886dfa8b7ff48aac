-- Credentials of other services. The secret itself is not kept. The name is not unique, so that one
-- token can take over from another.
CREATE TABLE service_tokens (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    secret_digest BLOB    NOT NULL CHECK (length(secret_digest) = 32),
    -- Full names of RPCs with a space between them; null means all.
    allowed_rpcs  TEXT    CHECK (length(allowed_rpcs) BETWEEN 1 AND 8192),
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER CHECK (expires_at > created_at),
    revoked_at    INTEGER
) STRICT, WITHOUT ROWID;

-- What is swept: sessions that nobody has used for long.
CREATE INDEX IF NOT EXISTS sessions_by_last_use ON sessions (last_used_at);

-- When the refresh tokens were rotated whose grace may not be over, the last first: 8 bytes each
-- (microseconds since the Unix epoch, big-endian), the last for the generation before this one.
ALTER TABLE sessions ADD COLUMN rotations BLOB
    CHECK (length(rotations) <= 128 AND length(rotations) % 8 = 0);
