-- SQLite has octet_length() since 3.43. Older tools, that of Debian 12 among them, cannot check, copy or restore
-- a database whose rules call it. These tables have the same rules without it.

CREATE TABLE users_new (
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    email      TEXT    NOT NULL CHECK (length(CAST(email AS BLOB)) BETWEEN 3 AND 254),
    first_name TEXT    NOT NULL CHECK (length(first_name) BETWEEN 1 AND 100),
    last_name  TEXT    NOT NULL CHECK (length(last_name) BETWEEN 1 AND 100),
    role       TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    state      TEXT    NOT NULL CHECK (state IN ('active', 'disabled')),
    version    INTEGER NOT NULL CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL CHECK (updated_at >= created_at),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;
INSERT INTO users_new (tenant_id, id, email, first_name, last_name, role, state, version, created_at, updated_at)
    SELECT tenant_id, id, email, first_name, last_name, role, state, version, created_at, updated_at FROM users;
DROP TABLE users;
ALTER TABLE users_new RENAME TO users;
CREATE INDEX users_by_id ON users (id);
CREATE INDEX users_by_creation ON users (tenant_id, created_at, id);
CREATE INDEX users_by_role ON users (tenant_id, role, created_at, id);

CREATE TABLE login_names_new (
    email_normalized TEXT NOT NULL PRIMARY KEY
        CHECK (length(CAST(email_normalized AS BLOB)) BETWEEN 3 AND 254),
    tenant_id        BLOB NOT NULL,
    user_id          BLOB NOT NULL,
    UNIQUE (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO login_names_new (email_normalized, tenant_id, user_id)
    SELECT email_normalized, tenant_id, user_id FROM login_names;
DROP TABLE login_names;
ALTER TABLE login_names_new RENAME TO login_names;
CREATE INDEX login_names_by_tenant ON login_names (tenant_id, email_normalized);

CREATE TABLE passwords_new (
    tenant_id  BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    scheme     TEXT    NOT NULL CHECK (scheme IN ('bcrypt', 'bcrypt-sha256', 'bcrypt-truncated')),
    hash       TEXT    NOT NULL CHECK (length(CAST(hash AS BLOB)) BETWEEN 1 AND 256),
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO passwords_new (tenant_id, user_id, scheme, hash, changed_at)
    SELECT tenant_id, user_id, scheme, hash, changed_at FROM passwords;
DROP TABLE passwords;
ALTER TABLE passwords_new RENAME TO passwords;

CREATE TABLE signing_keys_new (
    kid                TEXT    NOT NULL PRIMARY KEY CHECK (length(CAST(kid AS BLOB)) BETWEEN 1 AND 128),
    algorithm          TEXT    NOT NULL CHECK (algorithm IN ('EdDSA', 'RS256')),
    public_key         BLOB    NOT NULL CHECK (length(public_key) BETWEEN 32 AND 4096),
    sealed_private_key BLOB    NOT NULL CHECK (length(sealed_private_key) BETWEEN 32 AND 8192),
    created_at         INTEGER NOT NULL,
    signs_from         INTEGER NOT NULL,
    published_until    INTEGER CHECK (published_until > signs_from)
) STRICT, WITHOUT ROWID;
INSERT INTO signing_keys_new
    (kid, algorithm, public_key, sealed_private_key, created_at, signs_from, published_until)
    SELECT kid, algorithm, public_key, sealed_private_key, created_at, signs_from, published_until
    FROM signing_keys;
DROP TABLE signing_keys;
ALTER TABLE signing_keys_new RENAME TO signing_keys;
