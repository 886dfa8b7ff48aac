//! What a login is checked against: login names (normalised e-mails) and password hashes.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Inserted;
use super::columns::{DbId, DbInstant};
use super::connection::{Conn, ask, later, optional, query};
use super::error::StorageError;
use super::pipeline::Answer;
use super::prepared::Prepared;
use super::rows::{PasswordRow, TenantRow, UserRow, tenant_columns, user_columns};
use super::schema::{all_tenants, login_names, passwords, tenants, users};
use super::transaction::Tx;
use crate::domain::{Email, PasswordHash, Tenant, TenantId, Timestamp, User, UserId};

/// A user with the hash of the password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user, whatever its state.
    pub user: User,
    /// What the password is checked against.
    pub password: PasswordHash,
    /// When the user last got another password. A rehash of the same one does not count.
    pub password_changed_at: Timestamp,
}

type LoginRow = (UserRow, TenantRow, PasswordRow, DbInstant);

fn into_login((user, tenant, password, changed_at): LoginRow) -> Result<Login, StorageError> {
    Ok(Login {
        user: user.into_user(tenant)?,
        password: password.into_hash()?,
        password_changed_at: changed_at.into(),
    })
}

fn into_optional_login(row: Option<LoginRow>) -> Result<Option<Login>, StorageError> {
    row.map(into_login).transpose()
}

/// Finds whom an e-mail belongs to, in one statement.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn ask_by_email(conn: &mut Conn, email: &Email) -> Result<Answer<Option<Login>>, StorageError> {
    let its_user = users::tenant_id.eq(login_names::tenant_id).and(users::id.eq(login_names::user_id));
    let its_password =
        passwords::tenant_id.eq(login_names::tenant_id).and(passwords::user_id.eq(login_names::user_id));
    let found = login_names::table
        .inner_join(users::table.on(its_user))
        .inner_join(tenants::table.on(tenants::id.eq(login_names::tenant_id)))
        .inner_join(passwords::table.on(its_password))
        .filter(login_names::email_normalized.eq(email.as_normalized().to_owned()))
        .select((
            user_columns(),
            tenant_columns(),
            (passwords::scheme, passwords::hash),
            passwords::changed_at,
        ));
    ask!(conn, |c| optional(found.get_result::<LoginRow>(c)), then: into_optional_login)
}

/// Finds whom an e-mail belongs to.
///
/// # Errors
/// As [`ask_by_email`].
pub async fn find_by_email(conn: &mut Conn, email: &Email) -> Result<Option<Login>, StorageError> {
    ask_by_email(conn, email).await?.receive(conn).await
}

/// Finds a user of a tenant with the hash of the password, in one statement.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn ask_by_user(
    conn: &mut Conn,
    tenant_id: TenantId,
    user_id: UserId,
) -> Result<Answer<Option<Login>>, StorageError> {
    let its_password = passwords::tenant_id.eq(users::tenant_id).and(passwords::user_id.eq(users::id));
    let found = users::table
        .inner_join(tenants::table)
        .inner_join(passwords::table.on(its_password))
        .filter(users::tenant_id.eq(DbId::from(tenant_id)))
        .filter(users::id.eq(DbId::from(user_id)))
        .select((
            user_columns(),
            tenant_columns(),
            (passwords::scheme, passwords::hash),
            passwords::changed_at,
        ));
    ask!(conn, |c| optional(found.get_result::<LoginRow>(c)), then: into_optional_login)
}

/// Finds a user of a tenant with the hash of the password.
///
/// # Errors
/// As [`ask_by_user`].
pub async fn find_by_user(
    conn: &mut Conn,
    tenant_id: TenantId,
    user_id: UserId,
) -> Result<Option<Login>, StorageError> {
    ask_by_user(conn, tenant_id, user_id).await?.receive(conn).await
}

/// Makes an e-mail the login name of a user. When two transactions want the same one, the second
/// waits for the first to end. The name of a user whose tenant is deleted is free: it is taken over.
///
/// # Errors
/// [`StorageError::Refused`] when there is no such user, or the user has a login name already.
pub async fn insert_name(
    tx: &mut Tx,
    email: &Email,
    tenant_id: TenantId,
    user_id: UserId,
) -> Result<Inserted, StorageError> {
    if insert_free_name(tx, email, tenant_id, user_id).await? == Inserted::Yes {
        return Ok(Inserted::Yes);
    }
    let is_of_deleted_tenant = diesel::dsl::exists(
        all_tenants::table
            .filter(all_tenants::id.eq(login_names::tenant_id))
            .filter(all_tenants::deleted_at.is_not_null()),
    );
    let row = login_names::table.find(email.as_normalized()).filter(is_of_deleted_tenant);
    let changes =
        (login_names::tenant_id.eq(DbId::from(tenant_id)), login_names::user_id.eq(DbId::from(user_id)));
    // Not as a part of the insert: diesel would prepare that anew each time.
    if query!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c))? > 0 {
        return Ok(Inserted::Yes);
    }
    // The row may have been removed since the insert.
    insert_free_name(tx, email, tenant_id, user_id).await
}

async fn insert_free_name(
    tx: &mut Tx,
    email: &Email,
    tenant_id: TenantId,
    user_id: UserId,
) -> Result<Inserted, StorageError> {
    let row = (
        login_names::email_normalized.eq(email.as_normalized()),
        login_names::tenant_id.eq(DbId::from(tenant_id)),
        login_names::user_id.eq(DbId::from(user_id)),
    );
    query!(tx, |c| {
        diesel::insert_into(login_names::table)
            .values(row)
            .on_conflict(login_names::email_normalized)
            .do_nothing()
            .execute(c)
    })
    .map(Inserted::from_count)
}

/// Gives a user a password.
///
/// # Errors
/// [`StorageError::Refused`] when there is no such user, or the user has one already.
pub async fn insert_password(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    password: &PasswordHash,
    now: Timestamp,
) -> Result<(), StorageError> {
    let row = (
        passwords::tenant_id.eq(DbId::from(tenant_id)),
        passwords::user_id.eq(DbId::from(user_id)),
        passwords::scheme.eq(password.scheme.as_str()),
        passwords::hash.eq(password.text.clone()),
        passwords::changed_at.eq(DbInstant::from(now)),
    );
    later!(tx, |c| diesel::insert_into(passwords::table).values(row).execute(c))
}

/// Finds a user of `tenant` and when they last got another password, and keeps both from being changed until
/// the transaction ends.
///
/// Whoever opens a session of somebody who logs in reads the user through this, and whoever ends sessions
/// changes the user first, or locks it in the same way: so no session is opened with what was just taken away,
/// and of two that are opened at once the second knows of the first.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn find_locked(
    tx: &mut Tx,
    tenant: &Tenant,
    user_id: UserId,
) -> Result<Option<(User, Timestamp)>, StorageError> {
    ask_locked(tx, tenant, user_id).await?.receive(tx).await
}

/// As [`find_locked`], without waiting for the answer yet.
///
/// # Errors
/// As there.
pub async fn ask_locked(
    tx: &mut Tx,
    tenant: &Tenant,
    user_id: UserId,
) -> Result<Answer<Option<(User, Timestamp)>>, StorageError> {
    let its_password = passwords::tenant_id.eq(users::tenant_id).and(passwords::user_id.eq(users::id));
    // Not a join, which would lock the tenant as well.
    let is_live = diesel::dsl::exists(tenants::table.filter(tenants::id.eq(users::tenant_id)));
    let found = users::table
        .inner_join(passwords::table.on(its_password))
        .filter(users::tenant_id.eq(DbId::from(tenant.id)))
        .filter(users::id.eq(DbId::from(user_id)))
        .filter(is_live)
        .select((user_columns(), passwords::changed_at));
    // Both rows are locked, so that PostgreSQL reads both as they are once it has waited for either.
    let tenant = tenant.clone();
    let then = move |row: Option<(UserRow, DbInstant)>| {
        row.map(|(user, changed_at)| Ok((user.into_user_of(tenant)?, changed_at.into()))).transpose()
    };
    ask!(tx,
        postgres: |c| optional(found.for_no_key_update().get_result::<(UserRow, DbInstant)>(c)),
        sqlite: |c| optional(found.get_result::<(UserRow, DbInstant)>(c)),
        then: then
    )
}

/// Finds when the user last got another password.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_password_changed_at(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
) -> Result<Option<Timestamp>, StorageError> {
    let found =
        passwords::table.find((DbId::from(tenant_id), DbId::from(user_id))).select(passwords::changed_at);
    Ok(query!(tx, |c| optional(found.get_result::<DbInstant>(c)))?.map(Timestamp::from))
}

/// Gives a user another password, unless it was changed after `changed_at`; false when it was.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_password(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    changed_at: Timestamp,
    password: &PasswordHash,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let row = passwords::table
        .find((DbId::from(tenant_id), DbId::from(user_id)))
        .filter(passwords::changed_at.eq(DbInstant::from(changed_at)));
    let changes = (
        passwords::scheme.eq(password.scheme.as_str()),
        passwords::hash.eq(password.text.as_str()),
        passwords::changed_at.eq(DbInstant::from(now)),
    );
    query!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c)).map(|rows| rows > 0)
}

/// Replaces the hash `old` of the same password by `new`; false when it is no longer `old`. Leaves
/// the time of the last change alone, since the password did not.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn update_hash(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> Result<bool, StorageError> {
    let row = passwords::table
        .find((DbId::from(tenant_id), DbId::from(user_id)))
        .filter(passwords::hash.eq(old.text.as_str()))
        .filter(passwords::scheme.eq(old.scheme.as_str()));
    let changes = (passwords::scheme.eq(new.scheme.as_str()), passwords::hash.eq(new.text.as_str()));
    query!(tx, |c| Prepared(diesel::update(row).set(changes)).execute(c)).map(|rows| rows > 0)
}

/// Takes a user's login name away.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete_name(tx: &mut Tx, tenant_id: TenantId, user_id: UserId) -> Result<(), StorageError> {
    let row = login_names::table
        .filter(login_names::tenant_id.eq(DbId::from(tenant_id)))
        .filter(login_names::user_id.eq(DbId::from(user_id)));
    later!(tx, |c| diesel::delete(row).execute(c))
}

/// Gives a user a password, whether or not there was one.
///
/// # Errors
/// [`StorageError::Refused`] when there is no such user.
pub async fn replace_password(
    tx: &mut Tx,
    tenant_id: TenantId,
    user_id: UserId,
    password: &PasswordHash,
    now: Timestamp,
) -> Result<(), StorageError> {
    let changes = (
        passwords::scheme.eq(password.scheme.as_str()),
        passwords::hash.eq(password.text.clone()),
        passwords::changed_at.eq(DbInstant::from(now)),
    );
    let row = (
        passwords::tenant_id.eq(DbId::from(tenant_id)),
        passwords::user_id.eq(DbId::from(user_id)),
        passwords::scheme.eq(password.scheme.as_str()),
        passwords::hash.eq(password.text.clone()),
        passwords::changed_at.eq(DbInstant::from(now)),
    );
    later!(tx, |c| {
        let insert = diesel::insert_into(passwords::table)
            .values(row)
            .on_conflict((passwords::tenant_id, passwords::user_id))
            .do_update()
            .set(changes);
        Prepared(insert).execute(c)
    })
}
