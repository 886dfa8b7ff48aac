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
pub use super::rows::{TenantRow, UserRow};
use super::rows::{tenant_columns, user_columns};
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

/// A user as it is stored, with the hash of the password. `Debug` shows the ids alone.
#[derive(Clone)]
pub struct StoredUser {
    /// All but the password.
    pub row: UserRow,
    /// The password, where the user has one.
    pub password: Option<StoredPassword>,
}

impl StoredUser {
    /// The user's key: that of the tenant, and the user's own.
    pub fn key(&self) -> (TenantId, UserId) {
        (self.row.tenant_id.into(), self.row.id.into())
    }
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
        f.debug_tuple("StoredUser").field(&self.key()).finish_non_exhaustive()
    }
}

type HashRow = (DbId, DbId, String, String, DbInstant);

/// Lists tenants by id, from behind `after` on.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn list_tenants(
    conn: &mut Conn,
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<TenantRow>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = tenants::table
        .filter(tenants::id.gt(after.map_or(DbId(Uuid::nil()), DbId::from)))
        .order(tenants::id)
        .select(tenant_columns())
        .limit(limit);
    query!(conn,
        postgres: |c| found.load::<TenantRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<TenantRow>(found, c))
    )
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
        .select(user_columns())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query!(conn,
        postgres: |c| found.load::<UserRow>(c),
        sqlite: |c| c.spawn_blocking(move |c| diesel::RunQueryDsl::load::<UserRow>(found, c))
    )?;
    let Some(last) = rows.last() else { return Ok(Vec::new()) };

    // Not a join: planned for any page, one might read the whole of the other table each time.
    let is_in_page = sql::<Bool>("(tenant_id, user_id) > (").bind::<Id, _>(tenant_id).sql(", ");
    let is_in_page = is_in_page.bind::<Id, _>(id).sql(") AND (tenant_id, user_id) <= (");
    let is_in_page = is_in_page.bind::<Id, _>(last.tenant_id).sql(", ").bind::<Id, _>(last.id).sql(")");
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
        let password = hashes.next_if(|hash| (hash.0, hash.1) == (row.tenant_id, row.id));
        let password = password.map(|(_, _, scheme, hash, changed_at)| StoredPassword {
            scheme,
            hash,
            changed_at: changed_at.into(),
        });
        StoredUser { row, password }
    };
    rows.into_iter().map(whole).collect()
}
