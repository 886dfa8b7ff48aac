-- A tenant with this time is deleted: its rows are removed in the background, a few at a time.
ALTER TABLE tenants ADD COLUMN deleted_at INTEGER;
-- How many of its users are removed already.
ALTER TABLE tenants ADD COLUMN users_removed INTEGER NOT NULL DEFAULT 0 CHECK (users_removed >= 0);

-- The tenants that exist for callers. Queries read this view, never the table.
CREATE VIEW live_tenants AS
    SELECT id, name, version, created_at, updated_at FROM tenants WHERE deleted_at IS NULL;

CREATE INDEX IF NOT EXISTS tenants_live_by_creation ON tenants (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS tenants_deleted ON tenants (deleted_at, id) WHERE deleted_at IS NOT NULL;

-- Lists of audit events of one action.
CREATE INDEX IF NOT EXISTS audit_events_by_action ON audit_events (tenant_id, action, id);
