//! All stored password hashes, a piece at a time, for those who want to know what they have in common.

use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use super::columns::{DbId, Id};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::text::Statement;
use crate::domain::{PasswordHash, PasswordScheme, TenantId, UserId};

/// The hash of a user, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedHash {
    /// The user's tenant, which leads the key.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// The hash, in a scheme that this program knows; a later one may have written others.
    pub hash: Option<PasswordHash>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Id)]
    tenant_id: DbId,
    #[diesel(sql_type = Id)]
    user_id: DbId,
    #[diesel(sql_type = Text)]
    scheme: String,
    #[diesel(sql_type = Text)]
    hash: String,
}

/// Lists at most `limit` hashes behind a key, in the order of keys.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list(
    conn: &mut Conn,
    (tenant_id, user_id): (TenantId, UserId),
    limit: usize,
) -> Result<Vec<KeyedHash>, StorageError> {
    let statement = Statement::on(conn)
        .text("SELECT tenant_id, user_id, scheme, hash FROM passwords WHERE (tenant_id, user_id) > (")
        .value(DbId::from(tenant_id))
        .text(", ")
        .value(DbId::from(user_id))
        .text(") ORDER BY tenant_id, user_id LIMIT ")
        .value(limit);
    let rows = query!(conn, |c| statement.into_query().load::<Row>(c))?;
    let keyed = |row: Row| KeyedHash {
        tenant_id: row.tenant_id.into(),
        user_id: row.user_id.into(),
        hash: PasswordScheme::from_name(&row.scheme).map(|scheme| PasswordHash { scheme, text: row.hash }),
    };
    Ok(rows.into_iter().map(keyed).collect())
}
