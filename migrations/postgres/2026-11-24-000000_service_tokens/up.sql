-- Credentials of other services. The secret itself is not kept. The name is not unique, so that one
-- token can take over from another.
CREATE TABLE service_tokens (
    id            uuid        PRIMARY KEY,
    name          text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    secret_digest bytea       NOT NULL CHECK (octet_length(secret_digest) = 32),
    -- Full names of RPCs with a space between them; null means all.
    allowed_rpcs  text        CHECK (char_length(allowed_rpcs) BETWEEN 1 AND 8192),
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz CHECK (expires_at > created_at),
    revoked_at    timestamptz
);

-- What is swept: sessions that nobody has used for long.
CREATE INDEX IF NOT EXISTS sessions_by_last_use ON sessions (last_used_at);

-- When the refresh tokens were rotated whose grace may not be over, the last first: 8 bytes each
-- (microseconds since the Unix epoch, big-endian), the last for the generation before this one.
ALTER TABLE sessions ADD COLUMN rotations bytea
    CHECK (octet_length(rotations) <= 128 AND octet_length(rotations) % 8 = 0);
