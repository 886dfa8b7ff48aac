//! Lists of users: those of some ids, and those of a tenant that satisfy a filter.

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel::sqlite::Sqlite;
use diesel_async::RunQueryDsl;

use super::columns::{DbId, DbInstant, Id, Instant};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::rows::{TenantRow, UserRow, tenant_columns, user_columns};
use super::schema::{tenants, users};
use crate::domain::{EmailPrefix, Order, Role, TenantId, Timestamp, User, UserId};

/// Which users of a tenant to list: those that satisfy everything given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFilter {
    /// Whose users.
    pub tenant_id: TenantId,
    /// How the normalised e-mail begins. Not every query looks at it.
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

/// Lists users of a tenant by role and time, whatever their e-mail: at most `limit`, from behind `after` on.
/// Those whose e-mail begins in some way, [`super::user_scans`] finds.
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
            let of_tenant = users::tenant_id.eq(DbId::from(filter.tenant_id));
            let start = users::table
                .inner_join(tenants::table)
                .select((user_columns(), tenant_columns()))
                .filter(of_tenant);
            // Only what is asked for gets into the query, so that the database can choose an index for it.
            let mut found = start.into_boxed::<$database>().limit(limit);
            if let Some(role) = filter.role {
                found = found.filter(users::role.eq(role.as_str()));
            }
            if let Some(from) = filter.created_from {
                found = found.filter(users::created_at.ge(DbInstant::from(from)));
            }
            if let Some(until) = filter.created_until {
                found = found.filter(users::created_at.lt(DbInstant::from(until)));
            }
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
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::id.eq_any(ids))
        .select((user_columns(), tenant_columns()));
    let rows = match tenant_id {
        Some(tenant_id) => {
            let found = found.filter(users::tenant_id.eq(DbId::from(tenant_id)));
            query!(conn, |c| found.load::<(UserRow, TenantRow)>(c))?
        }
        None => query!(conn, |c| found.load::<(UserRow, TenantRow)>(c))?,
    };
    rows.into_iter().map(|(user, tenant)| user.into_user(tenant)).collect()
}
