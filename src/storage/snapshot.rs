//! Everything there is of tenants and users, page by page, as it was at one moment.

use std::ops::{Deref, DerefMut};

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::columns::{DbId, DbInstant, Id};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::rows::{self, PasswordRow, TENANT, TenantRow};
use super::schema::{passwords, tenants, users};
use super::transaction::Tx;
use crate::domain::{Email, PasswordHash, PersonName, Role, Tenant, TenantId, Timestamp, UserId, UserState};

/// A transaction that only reads, and sees the same moment throughout. Ends when dropped.
///
/// On SQLite the log grows while it lasts.
pub struct Snapshot(Tx);

impl Snapshot {
    pub(super) async fn begin(conn: Conn, name: &'static str) -> Result<Self, StorageError> {
        Tx::begin_snapshot(conn, name).await.map(Self)
    }
}

impl Deref for Snapshot {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

/// A user with the hash of the password, without what is told of the tenant.
#[derive(Clone, Debug)]
pub struct WholeUser {
    /// Whose user it is.
    pub tenant_id: TenantId,
    /// Identifies the user.
    pub id: UserId,
    /// The e-mail.
    pub email: Email,
    /// Given name.
    pub first_name: PersonName,
    /// Family name.
    pub last_name: PersonName,
    /// What the user may do.
    pub role: Role,
    /// Whether the user may do anything.
    pub state: UserState,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
    /// The hash, and when the user last got another password, where the user has one.
    pub password: Option<(PasswordHash, Timestamp)>,
}

type UserRow = (DbId, DbId, String, String, String, String, String, DbInstant, DbInstant);
type HashRow = (DbId, DbId, PasswordRow, DbInstant);

/// Lists tenants by id, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_tenants(
    conn: &mut Conn,
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<Tenant>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = tenants::table
        .filter(tenants::id.gt(after.map_or(DbId(Uuid::nil()), DbId::from)))
        .order(tenants::id)
        .select(TENANT)
        .limit(limit);
    let rows = query!(conn,
        postgres: |c| found.load::<TenantRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<TenantRow>(found, c))
    )?;
    rows.into_iter().map(TenantRow::into_tenant).collect()
}

/// Lists users by tenant and id, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn list_users(
    conn: &mut Conn,
    after: Option<(TenantId, UserId)>,
    limit: usize,
) -> Result<Vec<WholeUser>, StorageError> {
    let (tenant_id, id) = after.map_or((DbId(Uuid::nil()), DbId(Uuid::nil())), |(tenant_id, id)| {
        (DbId::from(tenant_id), DbId::from(id))
    });
    let is_behind = sql::<Bool>("(tenant_id, id) > (").bind::<Id, _>(tenant_id).sql(", ");
    let is_live = diesel::dsl::exists(tenants::table.filter(tenants::id.eq(users::tenant_id)));
    let found = users::table
        .filter(is_behind.bind::<Id, _>(id).sql(")"))
        .filter(is_live)
        .order((users::tenant_id, users::id))
        .select((
            users::tenant_id,
            users::id,
            users::email,
            users::first_name,
            users::last_name,
            users::role,
            users::state,
            users::created_at,
            users::updated_at,
        ))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query!(conn,
        postgres: |c| found.load::<UserRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<UserRow>(found, c))
    )?;
    let Some(last) = rows.last() else { return Ok(Vec::new()) };

    // Not a join: planned for any page, one might read the whole of the other table each time.
    let is_in_page = sql::<Bool>("(tenant_id, user_id) > (").bind::<Id, _>(tenant_id).sql(", ");
    let is_in_page = is_in_page.bind::<Id, _>(id).sql(") AND (tenant_id, user_id) <= (");
    let is_in_page = is_in_page.bind::<Id, _>(last.0).sql(", ").bind::<Id, _>(last.1).sql(")");
    let is_live = diesel::dsl::exists(tenants::table.filter(tenants::id.eq(passwords::tenant_id)));
    let found = passwords::table
        .filter(is_in_page)
        .filter(is_live)
        .order((passwords::tenant_id, passwords::user_id))
        .select((
            passwords::tenant_id,
            passwords::user_id,
            (passwords::scheme, passwords::hash),
            passwords::changed_at,
        ));
    let hashes = query!(conn,
        postgres: |c| found.load::<HashRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<HashRow>(found, c))
    )?;
    join(rows, hashes)
}

/// Both are in the same order, and no hash is without its user.
fn join(rows: Vec<UserRow>, hashes: Vec<HashRow>) -> Result<Vec<WholeUser>, StorageError> {
    let mut hashes = hashes.into_iter().peekable();
    let whole = |row: UserRow| {
        let (tenant_id, id, email, first_name, last_name, role, state, created_at, updated_at) = row;
        let password = hashes.next_if(|hash| (hash.0, hash.1) == (tenant_id, id));
        Ok(WholeUser {
            tenant_id: tenant_id.into(),
            id: id.into(),
            email: rows::sense("users.email", Email::parse(&email).ok())?,
            first_name: rows::sense("users.first_name", PersonName::parse(&first_name).ok())?,
            last_name: rows::sense("users.last_name", PersonName::parse(&last_name).ok())?,
            role: rows::role(&role)?,
            state: rows::state(&state)?,
            created_at: created_at.into(),
            updated_at: updated_at.into(),
            password: password
                .map(|(_, _, row, changed_at)| Ok::<_, StorageError>((row.into_hash()?, changed_at.into())))
                .transpose()?,
        })
    };
    rows.into_iter().map(whole).collect()
}
