//! Removes the rows of deleted tenants, a few at a time, so that nobody waits long for any of them.
//!
//! One transaction removes the rows of some users with everything that belongs to them; the tenant's own row
//! goes last. What is removed belongs to nobody, so nothing here decides anything: the caller sets the pace.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::columns::{DbId, DbInstant};
use super::connection::{Conn, optional, query};
use super::error::StorageError;
use super::prepared::Prepared;
use super::schema::{all_tenants, login_names, sessions, users};
use super::transaction::Tx;
use crate::domain::{TenantId, Timestamp, UserId};

/// Most sessions that a transaction removes. A user may have ten thousand.
const MAX_SESSIONS: usize = 1_000;

/// How far the removal of a tenant has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// There are more rows: the next are those of users behind this one, or of all when none is given.
    Some(Option<UserId>),
    /// Another transaction holds what is left, and ends soon.
    Busy,
    /// Nothing of the tenant is left. So many users were removed, all transactions together.
    All {
        /// How many users the tenant had.
        users: u64,
    },
}

/// Finds when the tenant was deleted that was deleted first, of those that are not yet removed.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_first_deleted(conn: &mut Conn) -> Result<Option<Timestamp>, StorageError> {
    let found = all_tenants::table
        .filter(all_tenants::deleted_at.is_not_null())
        .order(all_tenants::deleted_at)
        .select(all_tenants::deleted_at.assume_not_null())
        .limit(1);
    Ok(query!(conn, |c| optional(found.get_result::<DbInstant>(c)))?.map(Timestamp::from))
}

/// Finds a tenant that was deleted by `due`, and locks it until the transaction ends. One that another
/// transaction removes from is left to that.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_due_locked(tx: &mut Tx, due: Timestamp) -> Result<Option<TenantId>, StorageError> {
    let found = all_tenants::table
        .filter(all_tenants::deleted_at.le(DbInstant::from(due)))
        .order(all_tenants::deleted_at)
        .select(all_tenants::id)
        .limit(1);
    let id = query!(tx,
        postgres: |c| optional(found.for_no_key_update().skip_locked().get_result::<DbId>(c)),
        sqlite: |c| optional(found.get_result::<DbId>(c))
    )?;
    Ok(id.map(TenantId::from))
}

/// Finds whether this tenant is deleted and not yet removed, and locks it until the transaction ends.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_locked(tx: &mut Tx, id: TenantId) -> Result<bool, StorageError> {
    let found = all_tenants::table
        .find(DbId::from(id))
        .filter(all_tenants::deleted_at.is_not_null())
        .select(all_tenants::id);
    let id = query!(tx,
        postgres: |c| optional(found.for_no_key_update().get_result::<DbId>(c)),
        sqlite: |c| optional(found.get_result::<DbId>(c))
    )?;
    Ok(id.is_some())
}

/// Removes rows of a deleted tenant, which is locked: those of at most `limit` users behind `after`.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(
    tx: &mut Tx,
    tenant_id: TenantId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Removed, StorageError> {
    let ids = list_ids_locked(tx, tenant_id, after, limit).await?;
    let Some(&last) = ids.last() else {
        // Those that somebody else held on the way here.
        return if after.is_some() { Ok(Removed::Some(None)) } else { delete_tenant(tx, tenant_id).await };
    };
    let ids = without_busy_names(tx, tenant_id, ids).await?;
    if delete_sessions(tx, tenant_id, &ids).await? == MAX_SESSIONS {
        return Ok(Removed::Some(after));
    }
    let count = super::users::delete(tx, tenant_id, &ids).await?;
    let row = all_tenants::table.find(DbId::from(tenant_id));
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let more = all_tenants::users_removed.eq(all_tenants::users_removed + count);
    query!(tx, |c| Prepared(diesel::update(row).set(more)).execute(c))?;
    Ok(Removed::Some(Some(last)))
}

/// The users behind `after`, by id. Those that another transaction still works on are left out.
async fn list_ids_locked(
    tx: &mut Tx,
    tenant_id: TenantId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<UserId>, StorageError> {
    // What was deleted stays in PostgreSQL's index for a while: from the beginning, all of it would be passed
    // again each time.
    let from = after.map_or(0, |after| after.as_uuid().as_u128().saturating_add(1));
    let found = users::table
        .filter(users::tenant_id.eq(DbId::from(tenant_id)))
        .filter(users::id.ge(DbId(Uuid::from_u128(from))))
        .order(users::id)
        .select(users::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let ids = query!(tx,
        postgres: |c| found.for_update().skip_locked().load::<DbId>(c),
        sqlite: |c| found.load::<DbId>(c)
    )?;
    Ok(ids.into_iter().map(UserId::from).collect())
}

/// The users but those whose login name another transaction is taking over: to wait for it would make others
/// wait for the rows that this one has locked.
async fn without_busy_names(
    tx: &mut Tx,
    tenant_id: TenantId,
    mut ids: Vec<UserId>,
) -> Result<Vec<UserId>, StorageError> {
    let of: Vec<_> = ids.iter().copied().map(DbId::from).collect();
    let names = login_names::table
        .filter(login_names::tenant_id.eq(DbId::from(tenant_id)))
        .filter(login_names::user_id.eq_any(of))
        .select(login_names::user_id);
    // SQLite's transaction holds the lock of the whole file already.
    let busy: Vec<DbId> = query!(tx,
        postgres: |c| async {
            let there = names.clone().load::<DbId>(c).await?;
            let locked = names.for_update().skip_locked().load::<DbId>(c).await?;
            Ok(there.into_iter().filter(|id| !locked.contains(id)).collect())
        },
        sqlite: |_c| async { Ok(Vec::new()) }
    )?;
    let busy: HashSet<UserId> = busy.into_iter().map(UserId::from).collect();
    ids.retain(|id| !busy.contains(id));
    Ok(ids)
}

async fn delete_sessions(tx: &mut Tx, tenant_id: TenantId, of: &[UserId]) -> Result<usize, StorageError> {
    let of: Vec<_> = of.iter().copied().map(DbId::from).collect();
    let of_tenant = sessions::table.filter(sessions::tenant_id.eq(DbId::from(tenant_id)));
    let some = of_tenant
        .filter(sessions::user_id.eq_any(of))
        .select(sessions::id)
        .limit(i64::try_from(MAX_SESSIONS).unwrap_or(i64::MAX));
    let some = query!(tx, |c| some.load::<DbId>(c))?;
    if some.is_empty() {
        return Ok(0);
    }
    let count = some.len();
    query!(tx, |c| diesel::delete(of_tenant.filter(sessions::id.eq_any(some))).execute(c))?;
    Ok(count)
}

/// Deletes the row of a tenant without users.
async fn delete_tenant(tx: &mut Tx, id: TenantId) -> Result<Removed, StorageError> {
    let left = users::table.filter(users::tenant_id.eq(DbId::from(id)));
    let is_any_left = diesel::select(diesel::dsl::exists(left));
    if query!(tx, |c| is_any_left.get_result::<bool>(c))? {
        return Ok(Removed::Busy);
    }
    let row = all_tenants::table.find(DbId::from(id));
    let users = query!(tx, |c| row.select(all_tenants::users_removed).get_result::<i64>(c))?;
    query!(tx, |c| diesel::delete(row).execute(c))?;
    Ok(Removed::All { users: u64::try_from(users).unwrap_or(0) })
}
