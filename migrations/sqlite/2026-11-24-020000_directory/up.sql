-- Lists of users, by when they were created, all or those of one role; and by their e-mail's beginning.
CREATE INDEX IF NOT EXISTS users_by_creation ON users (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS users_by_role ON users (tenant_id, role, created_at, id);
CREATE INDEX IF NOT EXISTS login_names_by_tenant ON login_names (tenant_id, email_normalized);
CREATE INDEX IF NOT EXISTS tenants_by_creation ON tenants (created_at, id);

-- Who did what, when, to whom. No foreign keys: it outlives what it tells of. What belongs to no tenant has
-- the nil UUID for one.
CREATE TABLE audit_events (
    tenant_id   BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    id          BLOB    NOT NULL CHECK (length(id) = 16),
    occurred_at INTEGER NOT NULL,
    actor_kind  TEXT    NOT NULL CHECK (actor_kind IN ('anonymous', 'user', 'service', 'operator', 'system')),
    -- The user who called.
    actor_id    BLOB    CHECK (length(actor_id) = 16),
    -- The service that called, be it for itself or for a user; the operator's name on the machine.
    actor_name  TEXT    CHECK (length(actor_name) BETWEEN 1 AND 2048),
    action      TEXT    NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    target_kind TEXT    CHECK (length(target_kind) BETWEEN 1 AND 64),
    target_id   BLOB    CHECK (length(target_id) = 16),
    target_name TEXT    CHECK (length(target_name) BETWEEN 1 AND 256),
    -- A JSON array of {"field", "before", "after"}.
    changes     TEXT    CHECK (length(changes) BETWEEN 2 AND 8192),
    reason      TEXT    CHECK (length(reason) BETWEEN 1 AND 64),
    request_id  TEXT    CHECK (length(request_id) BETWEEN 1 AND 64),
    source      TEXT    CHECK (length(source) BETWEEN 1 AND 64),
    -- How many alike this event stands for.
    count       INTEGER NOT NULL CHECK (count >= 1),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_events_by_time ON audit_events (occurred_at);
CREATE INDEX audit_events_by_target ON audit_events (tenant_id, target_id, id);
CREATE INDEX audit_events_by_actor ON audit_events (tenant_id, actor_id, id) WHERE actor_id IS NOT NULL;

-- Before when events may be deleted, as operators decided, one row a decision.
CREATE TABLE audit_cutoffs (
    cutoff      INTEGER NOT NULL PRIMARY KEY,
    recorded_at INTEGER NOT NULL CHECK (recorded_at >= cutoff)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_events_are_final BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'audit_events is append-only: UPDATE refused');
END;
CREATE TRIGGER audit_events_stay BEFORE DELETE ON audit_events
WHEN OLD.occurred_at >= coalesce((SELECT max(cutoff) FROM audit_cutoffs), -9223372036854775808)
BEGIN
    SELECT RAISE(ABORT, 'audit_events is append-only: DELETE refused above the cutoff');
END;
-- REPLACE deletes without asking the trigger above.
CREATE TRIGGER audit_events_stay_together BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events WHERE tenant_id = NEW.tenant_id AND id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: audit_events.tenant_id, audit_events.id');
END;
CREATE TRIGGER audit_cutoffs_are_final BEFORE UPDATE ON audit_cutoffs
BEGIN
    SELECT RAISE(ABORT, 'audit_cutoffs is append-only: UPDATE refused');
END;
CREATE TRIGGER audit_cutoffs_stay BEFORE DELETE ON audit_cutoffs
BEGIN
    SELECT RAISE(ABORT, 'audit_cutoffs is append-only: DELETE refused');
END;
