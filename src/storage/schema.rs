//! The tables, as both databases have them. Written by hand: see `migrations/README.md`.
#![allow(missing_docs, reason = "the columns are described in migrations/")]

use diesel::{alias, allow_tables_to_appear_in_same_query, joinable, table};

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    /// The tenants that exist for callers: a view of those that are not deleted. A query that joins it sees
    /// nothing of a deleted tenant, whose rows are removed in the background.
    #[sql_name = "live_tenants"]
    tenants (id) {
        id -> Id,
        name -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    /// The table behind the view, deleted tenants included. To write to it, and to remove what is deleted.
    #[sql_name = "tenants"]
    all_tenants (id) {
        id -> Id,
        name -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
        deleted_at -> Nullable<Instant>,
        users_removed -> BigInt,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    users (tenant_id, id) {
        tenant_id -> Id,
        id -> Id,
        email -> Text,
        first_name -> Text,
        last_name -> Text,
        role -> Text,
        state -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
        external_id -> Nullable<Text>,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::Id;

    login_names (email_normalized) {
        email_normalized -> Text,
        tenant_id -> Id,
        user_id -> Id,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    passwords (tenant_id, user_id) {
        tenant_id -> Id,
        user_id -> Id,
        scheme -> Text,
        hash -> Text,
        changed_at -> Instant,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    sessions (tenant_id, id) {
        tenant_id -> Id,
        id -> Id,
        user_id -> Id,
        generation -> BigInt,
        secret_digest -> Binary,
        created_at -> Instant,
        last_used_at -> Instant,
        expires_at -> Instant,
        device -> Nullable<Text>,
        address -> Nullable<Text>,
        revoked_at -> Nullable<Instant>,
        rotations -> Nullable<Binary>,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    request_outcomes (request_id) {
        request_id -> Id,
        fingerprint -> Binary,
        tenant_id -> Id,
        user_id -> Id,
        created_at -> Instant,
        expires_at -> Instant,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::Instant;

    signing_keys (kid) {
        kid -> Text,
        algorithm -> Text,
        public_key -> Binary,
        sealed_private_key -> Binary,
        created_at -> Instant,
        signs_from -> Instant,
        published_until -> Nullable<Instant>,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    service_tokens (id) {
        id -> Id,
        name -> Text,
        secret_digest -> Binary,
        allowed_rpcs -> Nullable<Text>,
        created_at -> Instant,
        expires_at -> Nullable<Instant>,
        revoked_at -> Nullable<Instant>,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::Instant;

    attempts (subject, source) {
        subject -> Binary,
        source -> Binary,
        counted -> Binary,
        pending -> Binary,
        known_until -> Nullable<Instant>,
        expires_at -> Instant,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::{Id, Instant};

    audit_events (tenant_id, id) {
        tenant_id -> Id,
        id -> Id,
        occurred_at -> Instant,
        actor_kind -> Text,
        actor_id -> Nullable<Id>,
        actor_name -> Nullable<Text>,
        action -> Text,
        target_kind -> Nullable<Text>,
        target_id -> Nullable<Id>,
        target_name -> Nullable<Text>,
        changes -> Nullable<Text>,
        reason -> Nullable<Text>,
        request_id -> Nullable<Text>,
        source -> Nullable<Text>,
        count -> BigInt,
    }
}

table! {
    use diesel::sql_types::*;
    use super::super::columns::Instant;

    audit_cutoffs (cutoff) {
        cutoff -> Instant,
        recorded_at -> Instant,
    }
}

table! {
    use diesel::sql_types::*;

    imported_costs (cost) {
        cost -> BigInt,
        batches -> BigInt,
    }
}

table! {
    use diesel::sql_types::*;

    /// Diesel's own record of the migrations that the database has, and of what they were.
    __diesel_schema_migrations (version) {
        version -> Text,
        run_on -> Timestamp,
        checksum -> Nullable<Text>,
    }
}

// The user that is looked for, in queries that name the caller too.
alias!(users as wanted: Wanted);

joinable!(users -> tenants (tenant_id));
allow_tables_to_appear_in_same_query!(tenants, users, login_names, passwords, sessions);
allow_tables_to_appear_in_same_query!(all_tenants, login_names, request_outcomes);
