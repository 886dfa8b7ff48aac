DROP TABLE audit_cutoffs;
DROP TABLE audit_events;
DROP INDEX tenants_by_creation;
DROP INDEX login_names_by_tenant;
DROP INDEX users_by_role;
DROP INDEX users_by_creation;
