-- Lists of users, by when they were created, all or those of one role; and by their e-mail's beginning.
-- On a large table, make these before the release: docs/adding-a-migration.md, "Locks on PostgreSQL".
CREATE INDEX IF NOT EXISTS users_by_creation ON users (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS users_by_role ON users (tenant_id, role, created_at, id);
CREATE INDEX IF NOT EXISTS login_names_by_tenant ON login_names (tenant_id, email_normalized COLLATE "C");
CREATE INDEX IF NOT EXISTS tenants_by_creation ON tenants (created_at, id);

-- Who did what, when, to whom. No foreign keys: it outlives what it tells of. What belongs to no tenant has
-- the nil UUID for one.
CREATE TABLE audit_events (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor_kind  text        NOT NULL CHECK (actor_kind IN ('anonymous', 'user', 'service', 'operator', 'system')),
    -- The user who called.
    actor_id    uuid,
    -- The service that called, be it for itself or for a user; the operator's name on the machine.
    actor_name  text        CHECK (char_length(actor_name) BETWEEN 1 AND 2048),
    action      text        NOT NULL CHECK (char_length(action) BETWEEN 1 AND 64),
    target_kind text        CHECK (char_length(target_kind) BETWEEN 1 AND 64),
    target_id   uuid,
    target_name text        CHECK (char_length(target_name) BETWEEN 1 AND 256),
    -- A JSON array of {"field", "before", "after"}.
    changes     text        CHECK (char_length(changes) BETWEEN 2 AND 8192),
    reason      text        CHECK (char_length(reason) BETWEEN 1 AND 64),
    request_id  text        CHECK (char_length(request_id) BETWEEN 1 AND 64),
    source      text        CHECK (char_length(source) BETWEEN 1 AND 64),
    -- How many alike this event stands for.
    count       bigint      NOT NULL CHECK (count >= 1),
    PRIMARY KEY (tenant_id, id)
);

CREATE INDEX audit_events_by_time ON audit_events (occurred_at);
CREATE INDEX audit_events_by_target ON audit_events (tenant_id, target_id, id);
CREATE INDEX audit_events_by_actor ON audit_events (tenant_id, actor_id, id) WHERE actor_id IS NOT NULL;

-- Before when events may be deleted, as operators decided, one row a decision.
CREATE TABLE audit_cutoffs (
    cutoff      timestamptz PRIMARY KEY,
    recorded_at timestamptz NOT NULL CHECK (recorded_at >= cutoff)
);

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION audit_refuse_above_cutoff() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.occurred_at < (SELECT max(cutoff) FROM audit_cutoffs) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_events is append-only: DELETE refused above the cutoff'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER audit_events_are_final BEFORE UPDATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_events_stay BEFORE DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_above_cutoff();
CREATE TRIGGER audit_events_stay_together BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_cutoffs_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_cutoffs
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
