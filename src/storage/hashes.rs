//! All stored password hashes, a piece at a time, for those who want to know what they have in common, and the costs
//! of those that were imported.

use diesel::sql_types::Text;
use diesel::{ExpressionMethods as _, QueryDsl as _, QueryableByName};
use diesel_async::RunQueryDsl;

use super::columns::{DbId, Id};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::schema::imported_costs;
use super::text::Statement;
use super::transaction::Tx;
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

/// How many batches of imported users had hashes of a cost, and no dearer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedCost {
    /// bcrypt's cost.
    pub cost: u32,
    /// How many.
    pub batches: i64,
}

/// Lists the costs of imported hashes, the lowest first: some 30 at most.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_imported_costs(conn: &mut Conn) -> Result<Vec<ImportedCost>, StorageError> {
    let all = imported_costs::table.select((imported_costs::cost, imported_costs::batches));
    let rows = query!(conn, |c| all.order(imported_costs::cost).load::<(i64, i64)>(c))?;
    let read = |(cost, batches)| {
        let cost = u32::try_from(cost)
            .map_err(|_| StorageError::Corrupt("a cost is no number that bcrypt has".into()))?;
        Ok(ImportedCost { cost, batches })
    };
    rows.into_iter().map(read).collect()
}

/// Counts a batch of imported users whose dearest hash has this cost. Comes last in its transaction: others that
/// import wait for its end.
///
/// # Errors
/// [`StorageError`] when the database fails, or there is no such cost.
pub async fn count_imported_cost(tx: &mut Tx, cost: u32) -> Result<(), StorageError> {
    let one = (imported_costs::cost.eq(i64::from(cost)), imported_costs::batches.eq(1_i64));
    let one_more = imported_costs::batches.eq(imported_costs::batches + 1_i64);
    query!(tx, |c| diesel::insert_into(imported_costs::table)
        .values(one)
        .on_conflict(imported_costs::cost)
        .do_update()
        .set(one_more)
        .execute(c))
    .map(drop)
}
