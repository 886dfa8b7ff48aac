//! What became of registrations whose callers named them, so that a repetition gets the same answer.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Inserted;
use super::columns::{DbId, DbInstant};
use super::connection::{Conn, later, optional, query};
use super::error::StorageError;
use super::schema::{all_tenants, request_outcomes};
use super::transaction::Tx;
use crate::domain::{RequestId, TenantId, Timestamp, UserId};

/// The outcome of one registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the caller named the attempt.
    pub request_id: RequestId,
    /// A keyed digest over the request's fields that are no secret.
    pub fingerprint: [u8; 32],
    /// The tenant that was made.
    pub tenant_id: TenantId,
    /// Its owner.
    pub user_id: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

/// Records the outcome of the transaction that it is part of. When two transactions want the same
/// request id, the second waits for the first to end. An outcome that expired before
/// `outcome.created_at` gives way, and so does one of a deleted tenant.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn insert(tx: &mut Tx, outcome: &Outcome) -> Result<Inserted, StorageError> {
    let is_of_deleted_tenant = diesel::dsl::exists(
        all_tenants::table
            .filter(all_tenants::id.eq(request_outcomes::tenant_id))
            .filter(all_tenants::deleted_at.is_not_null()),
    );
    let expired = request_outcomes::table.find(DbId::from(outcome.request_id)).filter(
        request_outcomes::expires_at.le(DbInstant::from(outcome.created_at)).or(is_of_deleted_tenant),
    );
    later!(tx, |c| diesel::delete(expired).execute(c))?;

    let row = (
        request_outcomes::request_id.eq(DbId::from(outcome.request_id)),
        request_outcomes::fingerprint.eq(outcome.fingerprint.to_vec()),
        request_outcomes::tenant_id.eq(DbId::from(outcome.tenant_id)),
        request_outcomes::user_id.eq(DbId::from(outcome.user_id)),
        request_outcomes::created_at.eq(DbInstant::from(outcome.created_at)),
        request_outcomes::expires_at.eq(DbInstant::from(outcome.expires_at)),
    );
    query!(tx, |c| {
        diesel::insert_into(request_outcomes::table)
            .values(row)
            .on_conflict(request_outcomes::request_id)
            .do_nothing()
            .execute(c)
    })
    .map(Inserted::from_count)
}

/// Forgets at most `limit` outcomes whose time has passed; returns how many.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete_expired(tx: &mut Tx, now: Timestamp, limit: usize) -> Result<usize, StorageError> {
    let expired = request_outcomes::table
        .filter(request_outcomes::expires_at.le(DbInstant::from(now)))
        .select(request_outcomes::request_id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    // What another process is sweeping, or about to replace, is left alone.
    let expired = query!(tx,
        postgres: |c| expired.for_update().skip_locked().load::<DbId>(c),
        sqlite: |c| expired.load::<DbId>(c)
    )?;
    let rows = request_outcomes::table.filter(request_outcomes::request_id.eq_any(expired));
    query!(tx, |c| diesel::delete(rows).execute(c))
}

/// Finds the outcome of a request id, unless its tenant was deleted.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, request_id: RequestId) -> Result<Option<Outcome>, StorageError> {
    type Row = (Vec<u8>, DbId, DbId, DbInstant, DbInstant);

    let is_of_tenant = all_tenants::id.eq(request_outcomes::tenant_id);
    let is_live = diesel::dsl::exists(
        all_tenants::table.filter(is_of_tenant).filter(all_tenants::deleted_at.is_null()),
    );
    let found = request_outcomes::table.find(DbId::from(request_id)).filter(is_live).select((
        request_outcomes::fingerprint,
        request_outcomes::tenant_id,
        request_outcomes::user_id,
        request_outcomes::created_at,
        request_outcomes::expires_at,
    ));
    let row = query!(conn, |c| optional(found.get_result::<Row>(c)))?;
    let Some((fingerprint, tenant_id, user_id, created_at, expires_at)) = row else { return Ok(None) };
    Ok(Some(Outcome {
        request_id,
        fingerprint: fingerprint
            .try_into()
            .map_err(|_| StorageError::Corrupt("request_outcomes.fingerprint is not of 32 bytes".into()))?,
        tenant_id: tenant_id.into(),
        user_id: user_id.into(),
        created_at: created_at.into(),
        expires_at: expires_at.into(),
    }))
}
