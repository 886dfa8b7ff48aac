-- The tenant leads every primary key but those of the look-ups that come before the tenant is known.

CREATE TABLE tenants (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    version    bigint      NOT NULL CHECK (version >= 1),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at)
);

CREATE TABLE users (
    tenant_id  uuid        NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id         uuid        NOT NULL,
    email      text        NOT NULL CHECK (octet_length(email) BETWEEN 3 AND 254),
    first_name text        NOT NULL CHECK (char_length(first_name) BETWEEN 1 AND 100),
    last_name  text        NOT NULL CHECK (char_length(last_name) BETWEEN 1 AND 100),
    role       text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    state      text        NOT NULL CHECK (state IN ('active', 'disabled')),
    version    bigint      NOT NULL CHECK (version >= 1),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    PRIMARY KEY (tenant_id, id)
);

CREATE INDEX users_by_id ON users (id);

-- The one index over all tenants: who an e-mail belongs to. Anonymous look-ups touch only this.
CREATE TABLE login_names (
    email_normalized text PRIMARY KEY CHECK (octet_length(email_normalized) BETWEEN 3 AND 254),
    tenant_id        uuid NOT NULL,
    user_id          uuid NOT NULL,
    UNIQUE (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);

-- Apart from users, so that no query for a profile can return a hash.
CREATE TABLE passwords (
    tenant_id  uuid        NOT NULL,
    user_id    uuid        NOT NULL,
    scheme     text        NOT NULL CHECK (scheme IN ('bcrypt', 'bcrypt-sha256', 'bcrypt-truncated')),
    hash       text        NOT NULL CHECK (octet_length(hash) BETWEEN 1 AND 256),
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE sessions (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    user_id       uuid        NOT NULL,
    generation    bigint      NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    secret_digest bytea       NOT NULL CHECK (octet_length(secret_digest) = 32),
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz NOT NULL CHECK (last_used_at >= created_at),
    expires_at    timestamptz NOT NULL CHECK (expires_at > created_at),
    device        text        CHECK (char_length(device) BETWEEN 1 AND 200),
    address       text        CHECK (char_length(address) BETWEEN 1 AND 64),
    revoked_at    timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);

CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- What became of a registration, by the id that its caller gave it.
CREATE TABLE request_outcomes (
    request_id  uuid        PRIMARY KEY,
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    tenant_id   uuid        NOT NULL,
    user_id     uuid        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL CHECK (expires_at > created_at),
    -- Deferred: the row is written before the user, so that it is the first thing two attempts meet at.
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
        ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE INDEX request_outcomes_by_user ON request_outcomes (tenant_id, user_id);
CREATE INDEX request_outcomes_by_expiry ON request_outcomes (expires_at);

CREATE TABLE signing_keys (
    kid                text        PRIMARY KEY CHECK (octet_length(kid) BETWEEN 1 AND 128),
    algorithm          text        NOT NULL CHECK (algorithm IN ('EdDSA', 'RS256')),
    public_key         bytea       NOT NULL CHECK (octet_length(public_key) BETWEEN 32 AND 4096),
    sealed_private_key bytea       NOT NULL CHECK (octet_length(sealed_private_key) BETWEEN 32 AND 8192),
    created_at         timestamptz NOT NULL,
    signs_from         timestamptz NOT NULL,
    published_until    timestamptz CHECK (published_until > signs_from)
);
