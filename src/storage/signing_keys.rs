//! Keys that sign access tokens. Private parts come and go sealed; storage cannot read them.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::DbInstant;
use super::connection::{Conn, query};
use super::error::StorageError;
use super::schema::signing_keys;
use super::transaction::Tx;
use crate::domain::Timestamp;

/// One signing key.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct StoredSigningKey {
    /// The key id that tokens carry.
    pub kid: String,
    /// The JWS algorithm: `EdDSA`.
    pub algorithm: String,
    /// The public part, in the form that belongs to the algorithm (32 bytes for Ed25519).
    pub public_key: Vec<u8>,
    /// The private part, encrypted.
    pub sealed_private_key: Vec<u8>,
    /// When it was made.
    #[diesel(deserialize_as = DbInstant)]
    pub created_at: Timestamp,
    /// From when on tokens are signed with it.
    #[diesel(deserialize_as = DbInstant)]
    pub signs_from: Timestamp,
}

const COLUMNS: (
    signing_keys::kid,
    signing_keys::algorithm,
    signing_keys::public_key,
    signing_keys::sealed_private_key,
    signing_keys::created_at,
    signing_keys::signs_from,
) = (
    signing_keys::kid,
    signing_keys::algorithm,
    signing_keys::public_key,
    signing_keys::sealed_private_key,
    signing_keys::created_at,
    signing_keys::signs_from,
);

/// Lists the keys whose tokens may still be in use at `now`, the one that signs last first.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list(conn: &mut Conn, now: Timestamp) -> Result<Vec<StoredSigningKey>, StorageError> {
    let in_use = signing_keys::published_until
        .is_null()
        .or(signing_keys::published_until.gt(DbInstant::from(now)).assume_not_null());
    let found = signing_keys::table
        .filter(in_use)
        .order((signing_keys::signs_from.desc(), signing_keys::kid.asc()))
        .select(COLUMNS);
    query!(conn, |c| found.load::<StoredSigningKey>(c))
}

/// Whether there is any key, be it in use or not.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_any(conn: &mut Conn) -> Result<bool, StorageError> {
    let any = diesel::select(diesel::dsl::exists(signing_keys::table.select(signing_keys::kid)));
    query!(conn, |c| any.get_result::<bool>(c))
}

/// Keeps others from adding a key until the transaction ends, so that "there is none yet" stays true.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn lock(tx: &mut Tx) -> Result<(), StorageError> {
    // SQLite's transaction holds the lock of the whole file already.
    query!(tx,
        postgres: |c| async { diesel::sql_query("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE").execute(c).await.map(drop) },
        sqlite: |c| async { let _held = c; Ok(()) }
    )
}

/// Adds a key.
///
/// # Errors
/// [`StorageError::Refused`] when the key id is taken.
pub async fn insert(tx: &mut Tx, key: &StoredSigningKey) -> Result<(), StorageError> {
    let row = (
        signing_keys::kid.eq(&key.kid),
        signing_keys::algorithm.eq(&key.algorithm),
        signing_keys::public_key.eq(&key.public_key),
        signing_keys::sealed_private_key.eq(&key.sealed_private_key),
        signing_keys::created_at.eq(DbInstant::from(key.created_at)),
        signing_keys::signs_from.eq(DbInstant::from(key.signs_from)),
    );
    query!(tx, |c| diesel::insert_into(signing_keys::table).values(row).execute(c)).map(drop)
}
