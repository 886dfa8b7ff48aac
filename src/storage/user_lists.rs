//! Lists of users: those of some ids, and those of a tenant that satisfy a filter.

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel::sqlite::Sqlite;
use diesel_async::RunQueryDsl;

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::rows::{TENANT, TenantRow, USER, UserRow};
use super::schema::{tenants, users};
use crate::domain::{EmailPrefix, Order, Role, TenantId, Timestamp, User, UserId};

/// Which users of a tenant to list: those that satisfy everything given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFilter {
    /// Whose users.
    pub tenant_id: TenantId,
    /// How the normalised e-mail begins.
    pub email_prefix: Option<EmailPrefix>,
    /// What they may do.
    pub role: Option<Role>,
    /// Not created before then.
    pub created_from: Option<Timestamp>,
    /// Created before then.
    pub created_until: Option<Timestamp>,
}

/// Where a list of users goes on: behind the one of that time and id.
pub type UserCursor = (Timestamp, UserId);

/// The users of `$start`, a query, that satisfy `$filter`. Only what is asked for gets into the query, so that
/// the database can choose an index for it.
macro_rules! matching {
    ($start:expr, $filter:expr, $database:ident) => {{
        let filter = $filter;
        let tenant_id = DbId::from(filter.tenant_id);
        let mut found = $start.filter(users::tenant_id.eq(tenant_id)).into_boxed::<$database>();
        if let Some(role) = filter.role {
            found = found.filter(users::role.eq(role.as_str()));
        }
        if let Some(from) = filter.created_from {
            found = found.filter(users::created_at.ge(DbInstant::from(from)));
        }
        if let Some(until) = filter.created_until {
            found = found.filter(users::created_at.lt(DbInstant::from(until)));
        }
        if let Some(prefix) = &filter.email_prefix {
            let begins = |first: &str| {
                // No character comes behind this one.
                let behind_last = format!("{first}\u{10ffff}");
                sql::<Bool>("users.id IN (SELECT n.user_id FROM login_names n WHERE n.tenant_id = ")
                    .bind::<Id, _>(tenant_id)
                    .sql(concat!(" AND n.email_normalized ", by_bytes!($database), ">= "))
                    .bind::<Text, _>(first.to_owned())
                    .sql(concat!(" AND n.email_normalized ", by_bytes!($database), "< "))
                    .bind::<Text, _>(behind_last)
                    .sql(")")
            };
            found = match prefix.going_on() {
                Some(going_on) => found.filter(begins(prefix.as_str()).or(begins(going_on))),
                None => found.filter(begins(prefix.as_str())),
            };
        }
        found
    }};
}

/// How texts are compared byte by byte, which is how SQLite does it anyway.
macro_rules! by_bytes {
    (Pg) => {
        "COLLATE \"C\" "
    };
    (Sqlite) => {
        ""
    };
}

/// Lists users of a tenant: at most `limit`, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list(
    conn: &mut Conn,
    filter: &UserFilter,
    order: Order,
    after: Option<UserCursor>,
    limit: usize,
) -> Result<Vec<User>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    macro_rules! page {
        ($database:ident) => {{
            let start = users::table.inner_join(tenants::table).select((USER, TENANT));
            let mut found = matching!(start, filter, $database).limit(limit);
            // One comparison of both columns, since that is what an index can begin at.
            let behind = |comparison: &str, (created_at, id): UserCursor| {
                sql::<Bool>("(users.created_at, users.id)")
                    .sql(comparison)
                    .bind::<Instant, _>(DbInstant::from(created_at))
                    .sql(", ")
                    .bind::<Id, _>(DbId::from(id))
                    .sql(")")
            };
            found = match order {
                Order::NewestFirst => found.order((users::created_at.desc(), users::id.desc())),
                Order::OldestFirst => found.order((users::created_at.asc(), users::id.asc())),
            };
            match (order, after) {
                (_, None) => found,
                (Order::NewestFirst, Some(after)) => found.filter(behind(" < (", after)),
                (Order::OldestFirst, Some(after)) => found.filter(behind(" > (", after)),
            }
        }};
    }
    let rows = query!(conn,
        postgres: |c| page!(Pg).load::<(UserRow, TenantRow)>(c),
        sqlite: |c| page!(Sqlite).load::<(UserRow, TenantRow)>(c)
    )?;
    rows.into_iter().map(|(user, tenant)| user.into_user(tenant)).collect()
}

/// How many users of a tenant satisfy a filter.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn count(conn: &mut Conn, filter: &UserFilter) -> Result<u64, StorageError> {
    let count = query!(conn,
        postgres: |c| matching!(users::table.count(), filter, Pg).get_result::<i64>(c),
        sqlite: |c| matching!(users::table.count(), filter, Sqlite).get_result::<i64>(c)
    )?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Lists the users of these ids, in no order: those of a tenant, or of all tenants when none is given.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_by_ids(
    conn: &mut Conn,
    tenant_id: Option<TenantId>,
    ids: &[UserId],
) -> Result<Vec<User>, StorageError> {
    let ids: Vec<_> = ids.iter().copied().map(DbId::from).collect();
    let found = users::table.inner_join(tenants::table).filter(users::id.eq_any(ids)).select((USER, TENANT));
    let rows = match tenant_id {
        Some(tenant_id) => {
            let found = found.filter(users::tenant_id.eq(DbId::from(tenant_id)));
            query!(conn, |c| found.load::<(UserRow, TenantRow)>(c))?
        }
        None => query!(conn, |c| found.load::<(UserRow, TenantRow)>(c))?,
    };
    rows.into_iter().map(|(user, tenant)| user.into_user(tenant)).collect()
}
