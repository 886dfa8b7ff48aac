//! Users.

use diesel::prelude::*;
use diesel::result::DatabaseErrorKind::UniqueViolation;
use diesel::result::Error::DatabaseError;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt as _;

use super::Inserted;
use super::columns::DbId;
use super::connection::{Conn, ask, later, optional, query};
use super::error::StorageError;
use super::pipeline::Answer;
use super::prepared::Prepared;
use super::rows::{self, TenantRow, UserRow, tenant_columns, user_columns};
use super::schema::{login_names, passwords, request_outcomes, sessions, tenants, users, wanted};
use super::sessions::{STANDING, SessionStanding, StandingRow};
use super::transaction::Tx;
use crate::domain::{Email, ExternalId, Role, SessionId, TenantId, User, UserId, UserState};

/// What a user is locked for, until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserLock {
    /// It must stay as it is.
    Keep,
    /// It is to be changed.
    Change,
    /// It is to be deleted.
    Delete,
}

/// Locks a user of a tenant, if there is one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn lock(tx: &mut Tx, tenant_id: TenantId, id: UserId, lock: UserLock) -> Result<(), StorageError> {
    let row = users::table.find((DbId::from(tenant_id), DbId::from(id))).select(users::id);
    later!(tx,
        postgres: |c| match lock {
            UserLock::Keep => row.for_share().execute(c).boxed(),
            UserLock::Change => row.for_no_key_update().execute(c).boxed(),
            UserLock::Delete => row.for_update().execute(c).boxed(),
        },
        // SQLite's transaction holds the lock of the whole file already.
        sqlite: |_c| std::future::ready(Ok(()))
    )
}

/// Finds whom an e-mail belongs to, whether or not they have a password.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find_by_email(conn: &mut Conn, email: &Email) -> Result<Option<User>, StorageError> {
    let its_user = users::tenant_id.eq(login_names::tenant_id).and(users::id.eq(login_names::user_id));
    let found = login_names::table
        .inner_join(users::table.on(its_user))
        .inner_join(tenants::table.on(tenants::id.eq(login_names::tenant_id)))
        .filter(login_names::email_normalized.eq(email.as_normalized()))
        .select((user_columns(), tenant_columns()));
    let row = query!(conn, |c| optional(found.get_result::<(UserRow, TenantRow)>(c)))?;
    row.map(|(user, tenant)| user.into_user(tenant)).transpose()
}

/// Finds the user of a tenant who has an external id.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find_by_external_id(
    conn: &mut Conn,
    tenant_id: TenantId,
    external_id: &ExternalId,
) -> Result<Option<User>, StorageError> {
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::tenant_id.eq(DbId::from(tenant_id)))
        .filter(users::external_id.eq(external_id.as_str()))
        .select((user_columns(), tenant_columns()));
    let row = query!(conn, |c| optional(found.get_result::<(UserRow, TenantRow)>(c)))?;
    row.map(|(user, tenant)| user.into_user(tenant)).transpose()
}

/// Finds, in one statement, how a session stands and a user of the same tenant.
///
/// The outer `Option` is empty when the tenant has no such session of that user, the inner when it
/// has no user `wanted_id`.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn find_with_session(
    conn: &mut Conn,
    tenant_id: TenantId,
    session_id: SessionId,
    caller_id: UserId,
    wanted_id: UserId,
) -> Result<Option<(SessionStanding, Option<User>)>, StorageError> {
    type Row = (StandingRow, TenantRow, Option<UserRow>);

    let wanted_is = wanted
        .field(users::tenant_id)
        .eq(sessions::tenant_id)
        .and(wanted.field(users::id).eq(DbId::from(wanted_id)));
    let found = sessions::table
        .inner_join(
            users::table.on(users::tenant_id.eq(sessions::tenant_id).and(users::id.eq(sessions::user_id))),
        )
        .inner_join(tenants::table.on(tenants::id.eq(sessions::tenant_id)))
        .left_join(wanted.on(wanted_is))
        .filter(sessions::tenant_id.eq(DbId::from(tenant_id)))
        .filter(sessions::id.eq(DbId::from(session_id)))
        .filter(sessions::user_id.eq(DbId::from(caller_id)))
        .select((STANDING, tenant_columns(), wanted.fields(user_columns()).nullable()));
    // SQLite's row is read where it is found; diesel-async would copy it, value by value, first.
    let row = query!(conn,
        postgres: |c| optional(found.get_result::<Row>(c)),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::get_result::<Row>(found, c).optional())
    )?;

    let Some((standing, tenant, user)) = row else { return Ok(None) };
    Ok(Some((standing.into_standing()?, user.map(|user| user.into_user(tenant)).transpose()?)))
}

/// Finds a user of a tenant.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find(conn: &mut Conn, tenant_id: TenantId, id: UserId) -> Result<Option<User>, StorageError> {
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::tenant_id.eq(DbId::from(tenant_id)))
        .filter(users::id.eq(DbId::from(id)))
        .select((user_columns(), tenant_columns()));
    let row = query!(conn, |c| optional(found.get_result::<(UserRow, TenantRow)>(c)))?;
    row.map(|(user, tenant)| user.into_user(tenant)).transpose()
}

/// Lists the users of one id, of whatever tenant: two at the most, which tell that there is not just one.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_by_id(conn: &mut Conn, id: UserId) -> Result<Vec<User>, StorageError> {
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::id.eq(DbId::from(id)))
        .order(users::tenant_id)
        .select((user_columns(), tenant_columns()))
        .limit(2);
    let rows = query!(conn, |c| found.load::<(UserRow, TenantRow)>(c))?;
    rows.into_iter().map(|(user, tenant)| user.into_user(tenant)).collect()
}

/// Asks for a user's state, and keeps the user from being changed until the transaction ends.
async fn ask_state_locked(
    tx: &mut Tx,
    tenant_id: TenantId,
    id: UserId,
) -> Result<Answer<Option<UserState>>, StorageError> {
    // Not a join, which would lock the tenant as well.
    let is_live = diesel::dsl::exists(tenants::table.filter(tenants::id.eq(users::tenant_id)));
    let found =
        users::table.find((DbId::from(tenant_id), DbId::from(id))).filter(is_live).select(users::state);
    // SQLite's transaction holds the lock of the whole file already.
    ask!(tx,
        postgres: |c| optional(found.for_no_key_update().get_result::<String>(c)),
        sqlite: |c| optional(found.get_result::<String>(c)),
        then: |state: Option<String>| state.map(|state| rows::state(&state)).transpose()
    )
}

/// Adds a user to the tenant that it carries. The login name and the password are rows of their
/// own: see [`super::logins`]. Where the external id is taken, the transaction is of no use any more.
///
/// # Errors
/// [`StorageError::Refused`] when the tenant does not exist or the id is taken in it.
pub async fn insert(tx: &mut Tx, user: &User) -> Result<Inserted, StorageError> {
    let insert = diesel::insert_into(users::table).values(UserRow::of(user));
    if user.profile.external_id.is_none() {
        return later!(tx, |c| insert.execute(c)).map(|()| Inserted::Yes);
    }
    query!(tx, |c| unless_external_id_taken(insert.execute(c)))
}

/// Whether a user was written, or another user of the tenant has the external id.
async fn unless_external_id_taken(write: impl Future<Output = QueryResult<usize>>) -> QueryResult<Inserted> {
    match write.await {
        Ok(_) => Ok(Inserted::Yes),
        // PostgreSQL names the index, SQLite its columns.
        Err(DatabaseError(UniqueViolation, cause)) if cause.message().contains("external_id") => {
            Ok(Inserted::Taken)
        }
        Err(error) => Err(error),
    }
}

/// Finds a user of a tenant, and keeps it from being changed until the transaction ends.
///
/// # Errors
/// [`StorageError`] when the database fails or the row makes no sense.
pub async fn find_locked(tx: &mut Tx, tenant_id: TenantId, id: UserId) -> Result<Option<User>, StorageError> {
    let state = ask_state_locked(tx, tenant_id, id).await?;
    // In PostgreSQL a row that had to be waited for is read as it is by then.
    let user = find(tx, tenant_id, id).await?;
    Ok(state.receive(tx).await?.and(user))
}

/// Writes everything of a user that may change, its version included. Where the external id is taken, the
/// transaction is of no use any more.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update(tx: &mut Tx, user: &User) -> Result<Inserted, StorageError> {
    let row = users::table.find((DbId::from(user.tenant.id), DbId::from(user.id)));
    let update = Prepared(diesel::update(row).set(UserRow::of(user)));
    if user.profile.external_id.is_none() {
        return later!(tx, |c| update.execute(c)).map(|()| Inserted::Yes);
    }
    query!(tx, |c| unless_external_id_taken(update.execute(c)))
}

/// Whether a tenant has an active owner besides this user.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_other_owner(tx: &mut Tx, tenant_id: TenantId, id: UserId) -> Result<bool, StorageError> {
    let others = users::table
        .filter(users::tenant_id.eq(DbId::from(tenant_id)))
        .filter(users::role.eq(Role::Owner.as_str()))
        .filter(users::state.eq(UserState::Active.as_str()))
        .filter(users::id.ne(DbId::from(id)));
    let any = diesel::select(diesel::dsl::exists(others));
    query!(tx, |c| any.get_result::<bool>(c))
}

/// Deletes users of a tenant, with everything that belongs to them; returns how many there were.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, tenant_id: TenantId, ids: &[UserId]) -> Result<usize, StorageError> {
    let tenant_id = DbId::from(tenant_id);
    let ids: Vec<_> = ids.iter().copied().map(DbId::from).collect();
    macro_rules! delete_of {
        ($table:ident) => {{
            let rows = $table::table.filter($table::tenant_id.eq(tenant_id));
            let rows = rows.filter($table::user_id.eq_any(ids.clone()));
            later!(tx, |c| diesel::delete(rows).execute(c))?;
        }};
    }
    delete_of!(sessions);
    delete_of!(request_outcomes);
    delete_of!(passwords);
    delete_of!(login_names);
    let rows = users::table.filter(users::tenant_id.eq(tenant_id)).filter(users::id.eq_any(ids));
    query!(tx, |c| diesel::delete(rows).execute(c))
}
