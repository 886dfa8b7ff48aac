//! One statement a table, whose parameters are the columns of all rows.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Batch, Keys, Known, KnownTenant, KnownUser, NewUser, Written};
use crate::domain::{PasswordScheme, Role, Tenant, TenantId};
use crate::storage::audit;
use crate::storage::columns::{DbId, DbInstant, Id, Instant};
use crate::storage::schema::{all_tenants, login_names, tenants, users};

pub(super) async fn find_known(c: &mut &AsyncPgConnection, keys: Keys) -> QueryResult<Known> {
    let mut known = Known::default();
    let of_tenants: Vec<_> = keys.tenants.into_iter().map(DbId::from).collect();
    let of_users: Vec<_> = keys.users.into_iter().map(DbId::from).collect();

    let found = tenants::table
        .filter(tenants::id.eq_any(&of_tenants))
        .select((tenants::id, tenants::created_at))
        // No tenant is deleted while users are added to it.
        .for_key_share()
        .load::<(DbId, DbInstant)>(c)
        .await?;
    for (id, created_at) in found {
        let tenant = KnownTenant { created_at: created_at.into(), has_owner: false };
        known.tenants.insert(id.into(), tenant);
    }
    let owners = users::table
        .filter(users::tenant_id.eq_any(&of_tenants))
        .filter(users::role.eq(Role::Owner.as_str()))
        .select(users::tenant_id)
        .distinct()
        .load::<DbId>(c)
        .await?;
    for id in owners {
        if let Some(tenant) = known.tenants.get_mut(&TenantId::from(id)) {
            tenant.has_owner = true;
        }
    }
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::id.eq_any(&of_users))
        .select((users::id, users::tenant_id, users::created_at, users::email, users::version))
        .load::<(DbId, DbId, DbInstant, String, i64)>(c)
        .await?;
    for (id, tenant_id, created_at, email, version) in found {
        let user = KnownUser { tenant_id: tenant_id.into(), created_at: created_at.into(), email, version };
        known.users.entry(id.into()).or_default().push(user);
    }
    known.emails = login_names::table
        .inner_join(tenants::table.on(tenants::id.eq(login_names::tenant_id)))
        .filter(login_names::email_normalized.eq_any(keys.emails))
        .select(login_names::email_normalized)
        .load::<String>(c)
        .await?
        .into_iter()
        .collect();
    Ok(known)
}

pub(super) async fn make_room(c: &mut &AsyncPgConnection, keys: Keys) -> QueryResult<Vec<TenantId>> {
    let deleted = all_tenants::table.filter(all_tenants::deleted_at.is_not_null());
    if !diesel::select(diesel::dsl::exists(deleted)).get_result::<bool>(c).await? {
        return Ok(Vec::new());
    }
    let of_tenants: Vec<_> = keys.tenants.into_iter().map(DbId::from).collect();
    let in_the_way = deleted
        .filter(all_tenants::id.eq_any(of_tenants))
        .select(all_tenants::id)
        .load::<DbId>(c)
        .await?
        .into_iter()
        .map(TenantId::from)
        .collect();
    let free = login_names::table
        .filter(login_names::email_normalized.eq_any(keys.emails))
        .filter(login_names::tenant_id.eq_any(deleted.select(all_tenants::id)));
    diesel::delete(free).execute(c).await?;
    Ok(in_the_way)
}

pub(super) async fn insert(c: &mut &AsyncPgConnection, batch: &Batch) -> QueryResult<Written> {
    let written = async {
        insert_tenants(c, &batch.tenants).await?;
        if !batch.users.is_empty() {
            insert_users(c, &batch.users).await?;
            insert_login_names(c, &batch.by_login_name()).await?;
            insert_passwords(c, &batch.users).await?;
        }
        audit::write::postgres(c, &batch.events).await
    };
    // No `ON CONFLICT DO NOTHING`: it would search every index once more.
    match written.await {
        Ok(()) => Ok(Written::All),
        Err(DieselError::DatabaseError(
            DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::ForeignKeyViolation,
            _,
        )) => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

/// One column of all rows.
fn column<'r, R, V>(rows: &'r [R], value: impl Fn(&'r R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

async fn insert_tenants(c: &mut &AsyncPgConnection, rows: &[Tenant]) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sql_query(
        "INSERT INTO tenants (id, name, version, created_at, updated_at)
         SELECT * FROM unnest($1, $2, $3, $4, $5)",
    )
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.id)))
    .bind::<Array<Text>, _>(column(rows, |row| row.name.as_str()))
    .bind::<Array<BigInt>, _>(column(rows, |row| row.version))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.created_at)))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.updated_at)))
    .execute(c)
    .await
    .map(drop)
}

async fn insert_users(c: &mut &AsyncPgConnection, rows: &[NewUser]) -> QueryResult<()> {
    sql_query(
        "INSERT INTO users (tenant_id, id, email, first_name, last_name, role, state, version, created_at,
             updated_at)
         SELECT r.tenant_id, r.id, r.email, r.first_name, r.last_name, r.role, r.state, 1, r.created_at,
             r.updated_at
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) AS r (tenant_id, id, email, first_name, last_name,
             role, state, created_at, updated_at)",
    )
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.tenant_id)))
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.id)))
    .bind::<Array<Text>, _>(column(rows, |row| row.email.as_given()))
    .bind::<Array<Text>, _>(column(rows, |row| row.first_name.as_str()))
    .bind::<Array<Text>, _>(column(rows, |row| row.last_name.as_str()))
    .bind::<Array<Text>, _>(column(rows, |row| row.role.as_str()))
    .bind::<Array<Text>, _>(column(rows, |row| row.state.as_str()))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.created_at)))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.updated_at)))
    .execute(c)
    .await
    .map(drop)
}

async fn insert_login_names(c: &mut &AsyncPgConnection, rows: &[&NewUser]) -> QueryResult<()> {
    sql_query(
        "INSERT INTO login_names (email_normalized, tenant_id, user_id) SELECT * FROM unnest($1, $2, $3)",
    )
    .bind::<Array<Text>, _>(column(rows, |row| row.email.as_normalized()))
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.tenant_id)))
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.id)))
    .execute(c)
    .await
    .map(drop)
}

async fn insert_passwords(c: &mut &AsyncPgConnection, rows: &[NewUser]) -> QueryResult<()> {
    sql_query(
        "INSERT INTO passwords (tenant_id, user_id, scheme, hash, changed_at)
         SELECT * FROM unnest($1, $2, $3, $4, $5)",
    )
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.tenant_id)))
    .bind::<Array<Id>, _>(column(rows, |row| DbId::from(row.id)))
    .bind::<Array<Text>, _>(column(rows, |row| PasswordScheme::as_str(row.password.scheme)))
    .bind::<Array<Text>, _>(column(rows, |row| row.password.text.as_str()))
    .bind::<Array<Instant>, _>(column(rows, |row| DbInstant::from(row.password_changed_at)))
    .execute(c)
    .await
    .map(drop)
}
