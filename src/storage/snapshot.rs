//! Everything there is of tenants and users, page by page, as it was at one moment.
//!
//! Rows come as they are stored, so that one which breaks a rule of this version hides no other.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::columns::{DbId, DbInstant, Id};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::schema::{passwords, tenants, users};
use super::sqlite_file::SqliteFile;
use super::transaction::Tx;
use crate::domain::{TenantId, Timestamp, UserId};

/// A transaction that only reads, and sees the same moment throughout. Ends when dropped.
///
/// On SQLite the log grows while it lasts.
pub struct Snapshot {
    tx: Tx,
    log: Option<LogGrowth>,
}

/// How much SQLite's log has grown since a moment.
#[derive(Clone)]
pub struct LogGrowth {
    file: Arc<SqliteFile>,
    /// In bytes.
    from: u64,
}

impl LogGrowth {
    /// The growth, in bytes.
    pub fn bytes(&self) -> u64 {
        self.file.log_bytes().saturating_sub(self.from)
    }
}

impl Snapshot {
    /// Begins; `file` is SQLite's, which the connection leads to.
    pub(super) async fn begin(
        conn: Conn,
        name: &'static str,
        file: Option<Arc<SqliteFile>>,
    ) -> Result<Self, StorageError> {
        let log = file.map(|file| LogGrowth { from: file.log_bytes(), file });
        Ok(Self { tx: Tx::begin_snapshot(conn, name).await?, log })
    }

    /// How much the log has grown since the beginning; `None` on PostgreSQL.
    pub fn log_growth(&self) -> Option<LogGrowth> {
        self.log.clone()
    }
}

impl Deref for Snapshot {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}

/// A tenant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTenant {
    /// Identifies the tenant.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A user as it is stored, with the hash of the password. `Debug` shows the ids alone.
#[derive(Clone)]
pub struct StoredUser {
    /// Whose user it is.
    pub tenant_id: TenantId,
    /// Identifies the user.
    pub id: UserId,
    /// The e-mail.
    pub email: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// What the user may do.
    pub role: String,
    /// Whether the user may do anything.
    pub state: String,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
    /// The password, where the user has one.
    pub password: Option<StoredPassword>,
}

/// The hash of a password, as it is stored.
#[derive(Clone)]
pub struct StoredPassword {
    /// How it was computed.
    pub scheme: String,
    /// The hash.
    pub hash: String,
    /// When the user last got another password.
    pub changed_at: Timestamp,
}

impl fmt::Debug for StoredUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant_id, id, .. } = self;
        f.debug_struct("StoredUser").field("tenant_id", tenant_id).field("id", id).finish_non_exhaustive()
    }
}

type UserRow = (DbId, DbId, String, String, String, String, String, DbInstant, DbInstant);
type TenantRow = (DbId, String, DbInstant, DbInstant);
type HashRow = (DbId, DbId, String, String, DbInstant);

/// Lists tenants by id, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list_tenants(
    conn: &mut Conn,
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<StoredTenant>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = tenants::table
        .filter(tenants::id.gt(after.map_or(DbId(Uuid::nil()), DbId::from)))
        .order(tenants::id)
        .select((tenants::id, tenants::name, tenants::created_at, tenants::updated_at))
        .limit(limit);
    let rows = query!(conn,
        postgres: |c| found.load::<TenantRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<TenantRow>(found, c))
    )?;
    Ok(rows.into_iter().map(tenant).collect())
}

fn tenant((id, name, created_at, updated_at): TenantRow) -> StoredTenant {
    StoredTenant { id: id.into(), name, created_at: created_at.into(), updated_at: updated_at.into() }
}

/// Lists users by tenant and id, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list_users(
    conn: &mut Conn,
    after: Option<(TenantId, UserId)>,
    limit: usize,
) -> Result<Vec<StoredUser>, StorageError> {
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
            passwords::scheme,
            passwords::hash,
            passwords::changed_at,
        ));
    let hashes = query!(conn,
        postgres: |c| found.load::<HashRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<HashRow>(found, c))
    )?;
    Ok(join(rows, hashes))
}

/// Both are in the same order, and no hash is without its user.
fn join(rows: Vec<UserRow>, hashes: Vec<HashRow>) -> Vec<StoredUser> {
    let mut hashes = hashes.into_iter().peekable();
    let whole = |row: UserRow| {
        let (tenant_id, id, email, first_name, last_name, role, state, created_at, updated_at) = row;
        let password = hashes.next_if(|hash| (hash.0, hash.1) == (tenant_id, id));
        StoredUser {
            tenant_id: tenant_id.into(),
            id: id.into(),
            email,
            first_name,
            last_name,
            role,
            state,
            created_at: created_at.into(),
            updated_at: updated_at.into(),
            password: password.map(|(_, _, scheme, hash, changed_at)| StoredPassword {
                scheme,
                hash,
                changed_at: changed_at.into(),
            }),
        }
    };
    rows.into_iter().map(whole).collect()
}
