//! Keys that sign access tokens. Private parts come and go sealed; storage cannot read them.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::DbInstant;
use super::connection::{Conn, query};
use super::error::StorageError;
use super::prepared::Prepared;
use super::schema::signing_keys;
use super::transaction::Tx;
use crate::domain::Timestamp;

/// One signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSigningKey {
    /// The key id that tokens carry.
    pub kid: String,
    /// The JWS algorithm: `EdDSA` or `RS256`.
    pub algorithm: String,
    /// The public part, in the form that belongs to the algorithm.
    pub public_key: Vec<u8>,
    /// The private part, encrypted.
    pub sealed_private_key: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on tokens are signed with it.
    pub signs_from: Timestamp,
    /// Until when others are told of it, and its tokens count; as long as it may sign, without an end.
    pub published_until: Option<Timestamp>,
}

type Row = (String, String, Vec<u8>, Vec<u8>, DbInstant, DbInstant, Option<DbInstant>);

impl From<Row> for StoredSigningKey {
    fn from(row: Row) -> Self {
        let (kid, algorithm, public_key, sealed_private_key, created_at, signs_from, published_until) = row;
        Self {
            kid,
            algorithm,
            public_key,
            sealed_private_key,
            created_at: created_at.into(),
            signs_from: signs_from.into(),
            published_until: published_until.map(Timestamp::from),
        }
    }
}

const COLUMNS: (
    signing_keys::kid,
    signing_keys::algorithm,
    signing_keys::public_key,
    signing_keys::sealed_private_key,
    signing_keys::created_at,
    signing_keys::signs_from,
    signing_keys::published_until,
) = (
    signing_keys::kid,
    signing_keys::algorithm,
    signing_keys::public_key,
    signing_keys::sealed_private_key,
    signing_keys::created_at,
    signing_keys::signs_from,
    signing_keys::published_until,
);

/// Lists all keys, the one that signs last first.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list(conn: &mut Conn) -> Result<Vec<StoredSigningKey>, StorageError> {
    let found =
        signing_keys::table.order((signing_keys::signs_from.desc(), signing_keys::kid.asc())).select(COLUMNS);
    let rows = query!(conn, |c| found.load::<Row>(c))?;
    Ok(rows.into_iter().map(StoredSigningKey::from).collect())
}

/// Whether there is any key, be it in use or not.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_any(conn: &mut Conn) -> Result<bool, StorageError> {
    let any = diesel::select(diesel::dsl::exists(signing_keys::table.select(signing_keys::kid)));
    query!(conn, |c| any.get_result::<bool>(c))
}

/// Keeps others from changing the keys until the transaction ends, so that what was read stays true.
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
        signing_keys::published_until.eq(key.published_until.map(DbInstant::from)),
    );
    query!(tx, |c| diesel::insert_into(signing_keys::table).values(row).execute(c)).map(drop)
}

/// Replaces the times of a key and its encrypted private part. What does not exist stays so.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update(tx: &mut Tx, key: &StoredSigningKey) -> Result<(), StorageError> {
    let change = (
        signing_keys::sealed_private_key.eq(&key.sealed_private_key),
        signing_keys::signs_from.eq(DbInstant::from(key.signs_from)),
        signing_keys::published_until.eq(key.published_until.map(DbInstant::from)),
    );
    let row = signing_keys::table.find(&key.kid);
    query!(tx, |c| Prepared(diesel::update(row).set(change)).execute(c)).map(drop)
}

/// Removes a key, if it is there.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, kid: &str) -> Result<(), StorageError> {
    let row = signing_keys::table.find(kid);
    query!(tx, |c| diesel::delete(row).execute(c)).map(drop)
}
