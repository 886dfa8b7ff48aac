//! Credentials of other services.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::{DbId, DbInstant};
use super::connection::{Conn, optional, query};
use super::error::StorageError;
use super::prepared::Prepared;
use super::schema::service_tokens;
use super::transaction::Tx;
use crate::domain::{AllowedRpcs, ServiceName, ServiceToken, ServiceTokenId, Timestamp};

#[derive(Queryable)]
struct Row {
    id: DbId,
    name: String,
    secret_digest: Vec<u8>,
    allowed_rpcs: Option<String>,
    created_at: DbInstant,
    expires_at: Option<DbInstant>,
    revoked_at: Option<DbInstant>,
}

impl Row {
    fn into_token(self) -> Result<ServiceToken, StorageError> {
        let corrupt = |column| StorageError::Corrupt(format!("service_tokens.{column} makes no sense"));
        let allowed = self.allowed_rpcs.map(|names| names.split(' ').map(str::to_owned).collect());
        Ok(ServiceToken {
            id: self.id.into(),
            name: ServiceName::parse(&self.name).map_err(|_| corrupt("name"))?,
            secret_digest: self.secret_digest.try_into().map_err(|_| corrupt("secret_digest"))?,
            allowed: allowed.map_or(AllowedRpcs::All, AllowedRpcs::Only),
            created_at: self.created_at.into(),
            expires_at: self.expires_at.map(Timestamp::from),
            revoked_at: self.revoked_at.map(Timestamp::from),
        })
    }
}

/// Adds a token.
///
/// # Errors
/// [`StorageError::Refused`] when it ends before it begins, or may call nothing at all.
pub async fn insert(tx: &mut Tx, token: &ServiceToken) -> Result<(), StorageError> {
    let allowed = match &token.allowed {
        AllowedRpcs::All => None,
        AllowedRpcs::Only(names) => Some(names.join(" ")),
    };
    let row = (
        service_tokens::id.eq(DbId::from(token.id)),
        service_tokens::name.eq(token.name.as_str()),
        service_tokens::secret_digest.eq(token.secret_digest.to_vec()),
        service_tokens::allowed_rpcs.eq(allowed),
        service_tokens::created_at.eq(DbInstant::from(token.created_at)),
        service_tokens::expires_at.eq(token.expires_at.map(DbInstant::from)),
        service_tokens::revoked_at.eq(token.revoked_at.map(DbInstant::from)),
    );
    query!(tx, |c| diesel::insert_into(service_tokens::table).values(row).execute(c)).map(drop)
}

/// Finds a token, be it in force or not.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, id: ServiceTokenId) -> Result<Option<ServiceToken>, StorageError> {
    let found = service_tokens::table.find(DbId::from(id));
    query!(conn, |c| optional(found.get_result::<Row>(c)))?.map(Row::into_token).transpose()
}

/// Lists all tokens, in force or not, by name and age.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list(conn: &mut Conn) -> Result<Vec<ServiceToken>, StorageError> {
    let all = service_tokens::table.order((service_tokens::name.asc(), service_tokens::id.asc()));
    query!(conn, |c| all.load::<Row>(c))?.into_iter().map(Row::into_token).collect()
}

/// Revokes a token that was not revoked yet; true when there was one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_revoked(tx: &mut Tx, id: ServiceTokenId, now: Timestamp) -> Result<bool, StorageError> {
    let row = service_tokens::table.find(DbId::from(id)).filter(service_tokens::revoked_at.is_null());
    let change = service_tokens::revoked_at.eq(DbInstant::from(now));
    query!(tx, |c| Prepared(diesel::update(row).set(change)).execute(c)).map(|rows| rows > 0)
}
