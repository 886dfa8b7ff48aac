//! Tenants.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt as _;

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Conn, optional, query};
use super::error::StorageError;
use super::rows::{TENANT, TenantRow};
use super::schema::tenants;
use super::transaction::Tx;
use crate::domain::{Tenant, TenantId, Timestamp};

/// Adds a tenant.
///
/// # Errors
/// [`StorageError::Refused`] when the id is taken.
pub async fn insert(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    let row = (
        tenants::id.eq(DbId::from(tenant.id)),
        tenants::name.eq(tenant.name.as_str()),
        tenants::version.eq(tenant.version),
        tenants::created_at.eq(DbInstant::from(tenant.created_at)),
        tenants::updated_at.eq(DbInstant::from(tenant.updated_at)),
    );
    query!(tx, |c| diesel::insert_into(tenants::table).values(row).execute(c)).map(drop)
}

/// Deletes a tenant with everything that belongs to it; true when there was one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, id: TenantId) -> Result<bool, StorageError> {
    let row = tenants::table.find(DbId::from(id));
    query!(tx, |c| diesel::delete(row).execute(c)).map(|rows| rows > 0)
}

/// Finds a tenant.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, id: TenantId) -> Result<Option<Tenant>, StorageError> {
    let found = tenants::table.find(DbId::from(id)).select(TENANT);
    query!(conn, |c| optional(found.get_result::<TenantRow>(c)))?.map(TenantRow::into_tenant).transpose()
}

/// What a tenant is locked for, until the transaction ends.
///
/// Whoever may take the last owner away locks the tenant for a change before he locks the user, so that no two
/// of them each take the other for the one who stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantLock {
    /// It must not be deleted meanwhile.
    Keep,
    /// It, or who owns it, is to be changed.
    Change,
    /// It is to be deleted.
    Delete,
}

/// Finds a tenant, and locks it.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find_locked(
    tx: &mut Tx,
    id: TenantId,
    lock: TenantLock,
) -> Result<Option<Tenant>, StorageError> {
    let found = tenants::table.find(DbId::from(id)).select(TENANT);
    // SQLite's transaction holds the lock of the whole file already.
    let row = query!(tx,
        postgres: |c| match lock {
            TenantLock::Keep => optional(found.for_key_share().get_result::<TenantRow>(c)).boxed(),
            TenantLock::Change => optional(found.for_no_key_update().get_result::<TenantRow>(c)).boxed(),
            TenantLock::Delete => optional(found.for_update().get_result::<TenantRow>(c)).boxed(),
        },
        sqlite: |c| optional(found.get_result::<TenantRow>(c))
    )?;
    row.map(TenantRow::into_tenant).transpose()
}

/// Writes everything of a tenant that may change, its version included.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    let row = tenants::table.find(DbId::from(tenant.id));
    let changes = (
        tenants::name.eq(tenant.name.as_str()),
        tenants::version.eq(tenant.version),
        tenants::updated_at.eq(DbInstant::from(tenant.updated_at)),
    );
    query!(tx, |c| diesel::update(row).set(changes).execute(c)).map(drop)
}

/// Lists tenants, the newest first: at most `limit`, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list(
    conn: &mut Conn,
    after: Option<(Timestamp, TenantId)>,
    limit: usize,
) -> Result<Vec<Tenant>, StorageError> {
    let found = tenants::table
        .select(TENANT)
        .order((tenants::created_at.desc(), tenants::id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = match after {
        Some((created_at, id)) => {
            // One comparison of both columns, since that is what an index can begin at.
            let behind = sql::<Bool>("(tenants.created_at, tenants.id) < (")
                .bind::<Instant, _>(DbInstant::from(created_at))
                .sql(", ")
                .bind::<Id, _>(DbId::from(id))
                .sql(")");
            let found = found.filter(behind);
            query!(conn, |c| found.load::<TenantRow>(c))?
        }
        None => query!(conn, |c| found.load::<TenantRow>(c))?,
    };
    rows.into_iter().map(TenantRow::into_tenant).collect()
}

/// How many tenants there are.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count(conn: &mut Conn) -> Result<u64, StorageError> {
    let count = query!(conn, |c| tenants::table.count().get_result::<i64>(c))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
