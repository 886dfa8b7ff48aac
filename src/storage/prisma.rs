//! Reads the tables of the system that this one replaces: PostgreSQL, as Prisma made it.
//!
//! All reads see the same moment, in pages of a cursor. What the rows mean is left to the caller. Texts come as bytes:
//! those of a database without an encoding (`SQL_ASCII`) may be anything.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::columns::{DbInstant, Instant};
use super::error::StorageError;
use super::postgres::ConnectError;
use super::url::PostgresTarget;
use super::{migrate, postgres};
use crate::domain::Timestamp;

/// A row of the old system's tenants, unchecked.
#[derive(Clone, Debug, QueryableByName)]
pub struct OldTenant {
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub id: Option<Vec<u8>>,
    /// Its name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub name: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Instant>)]
    created_at: Option<DbInstant>,
    #[diesel(sql_type = Nullable<Instant>)]
    updated_at: Option<DbInstant>,
}

impl OldTenant {
    /// When it was created, and when it last changed.
    pub fn times(&self) -> [Option<Timestamp>; 2] {
        [self.created_at, self.updated_at].map(|at| at.map(Timestamp::from))
    }
}

/// A row of the old system's users, unchecked.
#[derive(Clone, QueryableByName)]
pub struct OldUser {
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub id: Option<Vec<u8>>,
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub tenant_id: Option<Vec<u8>>,
    /// The e-mail.
    #[diesel(sql_type = Nullable<Binary>)]
    pub email: Option<Vec<u8>>,
    /// Given name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub first_name: Option<Vec<u8>>,
    /// Family name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub last_name: Option<Vec<u8>>,
    /// What Node's bcrypt made of the password.
    #[diesel(sql_type = Nullable<Binary>)]
    pub password: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Instant>)]
    created_at: Option<DbInstant>,
    #[diesel(sql_type = Nullable<Instant>)]
    updated_at: Option<DbInstant>,
}

impl OldUser {
    /// When the user was created, and when it last changed.
    pub fn times(&self) -> [Option<Timestamp>; 2] {
        [self.created_at, self.updated_at].map(|at| at.map(Timestamp::from))
    }
}

/// What Prisma may have called a table: by `@@map`, or by its model.
struct Table {
    names: [&'static str; 2],
    columns: &'static [&'static str],
}

const TENANTS: Table =
    Table { names: ["tenants", "\"Tenant\""], columns: &["id", "name", "createdAt", "updatedAt"] };

const USERS: Table = Table {
    names: ["users", "\"User\""],
    columns: &["id", "email", "firstName", "lastName", "password", "tenantId", "createdAt", "updatedAt"],
};

/// The old database, as it was when it was opened.
pub struct OldSystem {
    connection: AsyncPgConnection,
    tenants: &'static str,
    users: &'static str,
}

/// The place of a tenant's id among the ids here: its bytes where it is a UUID, else about those that
/// `crypto::foreign::derived_id` makes of it. No more than an order: were it another one, the import would
/// be slower.
const PLACE: &str = r#"CASE WHEN u."tenantId"::text ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'
       THEN uuid_send(u."tenantId"::text::uuid)
       ELSE sha256(textsend('identity:import:1') || '\x00'::bytea || textsend('tenant')
           || '\x00'::bytea || textsend(u."tenantId"::text) || '\x00'::bytea) END"#;

/// The session works for as long as it takes, reads times without a zone as UTC, and may sort in memory.
const SESSION: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
     SET lock_timeout = '10s'; SET TIME ZONE 'UTC'; SET work_mem = '64MB'; \
     BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Makes a database without an encoding send bytes as they are. It would refuse to send those that are no UTF-8, and
/// end the transaction.
const RAW: &str = "SELECT set_config('client_encoding', 'SQL_ASCII', false) \
     WHERE current_setting('server_encoding') = 'SQL_ASCII'";

/// Why the old system cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OldSystemError {
    /// No connection to its database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OldSystem {
    /// Connects, and begins the transaction that everything is read in.
    ///
    /// # Errors
    /// [`OldSystemError::Connect`] when the database cannot be reached, [`StorageError::Refused`] when it has no such
    /// tables, or they lack a column.
    pub async fn open(target: &PostgresTarget) -> Result<Self, OldSystemError> {
        let mut connection = postgres::connect(target).await?;
        for setup in [SESSION, RAW] {
            let done = connection.batch_execute(setup).await;
            answered(&mut connection, done).await?;
        }
        let tenants = find_table(&mut connection, &TENANTS).await?;
        let users = find_table(&mut connection, &USERS).await?;
        Ok(Self { connection, tenants, users })
    }

    /// How many tenants and users there are.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn count(&mut self) -> Result<(u64, u64), StorageError> {
        let counts = format!(
            "SELECT (SELECT count(*) FROM {}) AS tenants, (SELECT count(*) FROM {}) AS users",
            self.tenants, self.users
        );
        let counts = sql_query(counts).get_result::<Counts>(&mut self.connection).await;
        let counts = answered(&mut self.connection, counts).await?;
        Ok((counts.tenants.try_into().unwrap_or(0), counts.users.try_into().unwrap_or(0)))
    }

    /// Begins to read the tenants, by age.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn begin_tenants(&mut self) -> Result<(), StorageError> {
        let declare = format!(
            r#"DECLARE old_tenants NO SCROLL CURSOR FOR
               SELECT id::text AS id, name::text AS name, "createdAt"::timestamptz AS created_at,
                   "updatedAt"::timestamptz AS updated_at
               FROM {} ORDER BY "createdAt", id"#,
            self.tenants
        );
        let done = self.connection.batch_execute(&declare).await;
        answered(&mut self.connection, done).await
    }

    /// The next tenants; none at the end.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn next_tenants(&mut self, limit: usize) -> Result<Vec<OldTenant>, StorageError> {
        let fetch = sql_query(format!("FETCH {limit} FROM old_tenants"));
        let rows = fetch.load(&mut self.connection).await;
        answered(&mut self.connection, rows).await
    }

    /// Begins to read the users: tenant by tenant in the order of their ids here, so that what is written
    /// lies side by side, and each tenant's by age. Where e-mails differ in case alone, those of all but the oldest come at
    /// the end, so that the oldest has the e-mail.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn begin_users(&mut self) -> Result<(), StorageError> {
        let declare = format!(
            r#"DECLARE old_users NO SCROLL CURSOR FOR
               SELECT u.id::text AS id, u."tenantId"::text AS tenant_id, u.email::text AS email,
                   u."firstName"::text AS first_name, u."lastName"::text AS last_name,
                   u.password::text AS password, u."createdAt"::timestamptz AS created_at,
                   u."updatedAt"::timestamptz AS updated_at
               FROM {users} u LEFT JOIN (
                   SELECT id FROM (
                       SELECT id, row_number() OVER (
                           PARTITION BY lower(email) COLLATE "C" ORDER BY "createdAt", id
                       ) AS place FROM {users}
                   ) AS placed WHERE place > 1
               ) AS later ON later.id = u.id
               ORDER BY later.id IS NOT NULL, {PLACE}, u."tenantId", u."createdAt", u.id"#,
            users = self.users
        );
        let done = self.connection.batch_execute(&declare).await;
        answered(&mut self.connection, done).await
    }

    /// The next users; none at the end.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn next_users(&mut self, limit: usize) -> Result<Vec<OldUser>, StorageError> {
        let fetch = sql_query(format!("FETCH {limit} FROM old_users"));
        let rows = fetch.load(&mut self.connection).await;
        answered(&mut self.connection, rows).await
    }
}

/// What a statement gave. A failure after which the server still answers is a refusal, such as a missing permission,
/// and ends the transaction.
async fn answered<T>(
    connection: &mut AsyncPgConnection,
    outcome: Result<T, DieselError>,
) -> Result<T, StorageError> {
    match outcome.map_err(StorageError::from) {
        Err(StorageError::Unavailable(cause)) if migrate::answers(connection).await => {
            Err(StorageError::Refused(cause))
        }
        outcome => outcome,
    }
}

#[derive(QueryableByName)]
struct Counts {
    #[diesel(sql_type = BigInt)]
    tenants: i64,
    #[diesel(sql_type = BigInt)]
    users: i64,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// The table's name in SQL.
async fn find_table(c: &mut AsyncPgConnection, table: &Table) -> Result<&'static str, StorageError> {
    for name in table.names {
        let exists = sql_query("SELECT to_regclass($1) IS NOT NULL AS found").bind::<Text, _>(name);
        let exists = exists.get_result::<Found>(c).await;
        if !answered(c, exists).await?.found {
            continue;
        }
        for column in table.columns {
            let exists = sql_query(
                "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) \
                 AND attname = $2 AND NOT attisdropped) AS found",
            );
            let exists = exists.bind::<Text, _>(name).bind::<Text, _>(*column);
            let exists = exists.get_result::<Found>(c).await;
            if !answered(c, exists).await?.found {
                return Err(StorageError::Refused(format!("the table {name} has no column \"{column}\"")));
            }
        }
        return Ok(name);
    }
    let [mapped, model] = table.names;
    Err(StorageError::Refused(format!("there is neither a table {mapped} nor {model}")))
}
