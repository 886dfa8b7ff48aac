//! Tenants.
//!
//! A deleted tenant is gone for every query at once: they read the view of those that are not. Its rows are
//! removed afterwards: see [`super::removal`].

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt as _;

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Conn, ask, later, optional, query};
use super::error::StorageError;
use super::pipeline::Answer;
use super::prepared::Prepared;
use super::rows::{TenantRow, WrittenTenant, tenant_columns};
use super::schema::{all_tenants, tenants};
use super::transaction::Tx;
use crate::domain::{Tenant, TenantId, Timestamp};

/// Adds a tenant.
///
/// # Errors
/// [`StorageError::Refused`] when the id is taken.
pub async fn insert(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    let row = WrittenTenant::of(tenant);
    later!(tx, |c| diesel::insert_into(all_tenants::table).values(row).execute(c))
}

/// Deletes a tenant; true when there was one. From the commit on it exists for nobody, nor does anything that
/// belongs to it; the rows stay until [`super::removal`] has removed them.
///
/// The tenant is locked with [`TenantLock::Delete`], so that nobody adds a user meanwhile.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, id: TenantId, now: Timestamp) -> Result<bool, StorageError> {
    let row = all_tenants::table.find(DbId::from(id)).filter(all_tenants::deleted_at.is_null());
    let change = all_tenants::deleted_at.eq(DbInstant::from(now));
    query!(tx, |c| Prepared(diesel::update(row).set(change)).execute(c)).map(|rows| rows > 0)
}

/// Takes back the insert of a tenant in the same transaction, with everything that was inserted for it.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn undo_insert(tx: &mut Tx, id: TenantId) -> Result<(), StorageError> {
    let row = all_tenants::table.find(DbId::from(id));
    later!(tx, |c| diesel::delete(row).execute(c))
}

/// Finds a tenant.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, id: TenantId) -> Result<Option<Tenant>, StorageError> {
    let found = tenants::table.find(DbId::from(id)).select(tenant_columns());
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
    ask_locked(tx, id, lock).await?.receive(tx).await
}

/// As [`find_locked`], without waiting for the answer yet.
///
/// # Errors
/// As there.
pub async fn ask_locked(
    tx: &mut Tx,
    id: TenantId,
    lock: TenantLock,
) -> Result<Answer<Option<Tenant>>, StorageError> {
    let found = tenants::table.find(DbId::from(id)).select(tenant_columns());
    // SQLite's transaction holds the lock of the whole file already.
    ask!(tx,
        postgres: |c| match lock {
            TenantLock::Keep => optional(found.for_key_share().get_result::<TenantRow>(c)).boxed(),
            TenantLock::Change => optional(found.for_no_key_update().get_result::<TenantRow>(c)).boxed(),
            TenantLock::Delete => optional(found.for_update().get_result::<TenantRow>(c)).boxed(),
        },
        sqlite: |c| optional(found.get_result::<TenantRow>(c)),
        then: |row: Option<TenantRow>| row.map(TenantRow::into_tenant).transpose()
    )
}

/// Writes everything of a tenant that may change, its version included.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    let row = all_tenants::table.find(DbId::from(tenant.id));
    let changes = WrittenTenant::of(tenant);
    later!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c))
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
        .select(tenant_columns())
        .order((tenants::created_at.desc(), tenants::id.desc()))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = match after {
        Some((created_at, id)) => {
            // One comparison of both columns, since that is what an index can begin at.
            let behind = sql::<Bool>("(live_tenants.created_at, live_tenants.id) < (")
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

/// How many tenants there are: `most` when there are that many or more.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count(conn: &mut Conn, most: usize) -> Result<usize, StorageError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    // In the order of the index, so that it alone is read.
    let counted = sql::<BigInt>(
        "(SELECT count(*) FROM (SELECT 1 FROM live_tenants t ORDER BY t.created_at, t.id LIMIT ",
    )
    .bind::<BigInt, _>(most)
    .sql(") AS counted)");
    let count = query!(conn, |c| diesel::select(counted).get_result::<i64>(c))?;
    Ok(usize::try_from(count).unwrap_or(0))
}
