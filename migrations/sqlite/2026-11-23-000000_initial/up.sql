-- The tenant leads every primary key but those of the look-ups that come before the tenant is known.
-- Identifiers are the 16 bytes of a UUID; times are microseconds since the Unix epoch, UTC.

CREATE TABLE tenants (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    version    INTEGER NOT NULL CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL CHECK (updated_at >= created_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    email      TEXT    NOT NULL CHECK (octet_length(email) BETWEEN 3 AND 254),
    first_name TEXT    NOT NULL CHECK (length(first_name) BETWEEN 1 AND 100),
    last_name  TEXT    NOT NULL CHECK (length(last_name) BETWEEN 1 AND 100),
    role       TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    state      TEXT    NOT NULL CHECK (state IN ('active', 'disabled')),
    version    INTEGER NOT NULL CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL CHECK (updated_at >= created_at),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX users_by_id ON users (id);

-- The one index over all tenants: who an e-mail belongs to. Anonymous look-ups touch only this.
CREATE TABLE login_names (
    email_normalized TEXT NOT NULL PRIMARY KEY CHECK (octet_length(email_normalized) BETWEEN 3 AND 254),
    tenant_id        BLOB NOT NULL,
    user_id          BLOB NOT NULL,
    UNIQUE (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Apart from users, so that no query for a profile can return a hash.
CREATE TABLE passwords (
    tenant_id  BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    scheme     TEXT    NOT NULL CHECK (scheme IN ('bcrypt', 'bcrypt-sha256', 'bcrypt-truncated')),
    hash       TEXT    NOT NULL CHECK (octet_length(hash) BETWEEN 1 AND 256),
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    tenant_id     BLOB    NOT NULL,
    id            BLOB    NOT NULL CHECK (length(id) = 16),
    user_id       BLOB    NOT NULL,
    generation    INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    secret_digest BLOB    NOT NULL CHECK (length(secret_digest) = 32),
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL CHECK (last_used_at >= created_at),
    expires_at    INTEGER NOT NULL CHECK (expires_at > created_at),
    device        TEXT    CHECK (length(device) BETWEEN 1 AND 200),
    address       TEXT    CHECK (length(address) BETWEEN 1 AND 64),
    revoked_at    INTEGER,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- What became of a registration, by the id that its caller gave it.
CREATE TABLE request_outcomes (
    request_id  BLOB    NOT NULL PRIMARY KEY CHECK (length(request_id) = 16),
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    tenant_id   BLOB    NOT NULL,
    user_id     BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL CHECK (expires_at > created_at),
    -- Deferred: the row is written before the user, so that it is the first thing two attempts meet at.
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
        ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE INDEX request_outcomes_by_user ON request_outcomes (tenant_id, user_id);
CREATE INDEX request_outcomes_by_expiry ON request_outcomes (expires_at);

CREATE TABLE signing_keys (
    kid                TEXT    NOT NULL PRIMARY KEY CHECK (octet_length(kid) BETWEEN 1 AND 128),
    algorithm          TEXT    NOT NULL CHECK (algorithm IN ('EdDSA', 'RS256')),
    public_key         BLOB    NOT NULL CHECK (length(public_key) BETWEEN 32 AND 4096),
    sealed_private_key BLOB    NOT NULL CHECK (length(sealed_private_key) BETWEEN 32 AND 8192),
    created_at         INTEGER NOT NULL,
    signs_from         INTEGER NOT NULL,
    published_until    INTEGER CHECK (published_until > signs_from)
) STRICT, WITHOUT ROWID;
