DROP INDEX audit_events_by_action;
DROP INDEX tenants_deleted;
DROP INDEX tenants_live_by_creation;
DROP VIEW live_tenants;
ALTER TABLE tenants DROP COLUMN users_removed;
ALTER TABLE tenants DROP COLUMN deleted_at;
