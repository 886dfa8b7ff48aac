//! Sessions.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::{DbId, DbInstant};
use super::connection::query;
use super::error::StorageError;
use super::schema::sessions;
use super::transaction::Tx;
use crate::domain::{Session, SessionId, TenantId, Timestamp};

/// Adds a session.
///
/// # Errors
/// [`StorageError::Refused`] when there is no such user in the tenant.
pub async fn insert(tx: &mut Tx, session: &Session) -> Result<(), StorageError> {
    let row = (
        sessions::tenant_id.eq(DbId::from(session.tenant_id)),
        sessions::id.eq(DbId::from(session.id)),
        sessions::user_id.eq(DbId::from(session.user_id)),
        sessions::generation.eq(i64::from(session.generation)),
        sessions::secret_digest.eq(session.secret_digest.to_vec()),
        sessions::created_at.eq(DbInstant::from(session.created_at)),
        sessions::last_used_at.eq(DbInstant::from(session.last_used_at)),
        sessions::expires_at.eq(DbInstant::from(session.expires_at)),
    );
    query!(tx, |c| diesel::insert_into(sessions::table).values(row).execute(c)).map(drop)
}

/// Ends a session that has not ended yet; true when there was one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_revoked(
    tx: &mut Tx,
    tenant_id: TenantId,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let row =
        sessions::table.find((DbId::from(tenant_id), DbId::from(id))).filter(sessions::revoked_at.is_null());
    let change = sessions::revoked_at.eq(DbInstant::from(now));
    query!(tx, |c| diesel::update(row).set(change).execute(c)).map(|rows| rows > 0)
}
