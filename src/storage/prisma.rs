//! Reads the tables of the system that this one replaces: PostgreSQL, as Prisma made it.
//!
//! All reads see the same moment, in pages of a cursor. What the rows mean is left to the caller.

mod text;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::columns::{DbInstant, Instant};
use super::error::StorageError;
use super::postgres::{ConnectError, Connector, ServerErrors, Session};
use super::url::PostgresTarget;
use crate::domain::Timestamp;

pub use text::OldText;

/// A row of the old system's tenants, unchecked.
#[derive(Clone, QueryableByName)]
pub struct OldTenant {
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub id: Option<OldText>,
    /// Its name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub name: Option<OldText>,
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

    fn texts(&mut self) -> impl Iterator<Item = &mut OldText> {
        [&mut self.id, &mut self.name].into_iter().flatten()
    }
}

/// A row of the old system's users, unchecked.
#[derive(Clone, QueryableByName)]
pub struct OldUser {
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub id: Option<OldText>,
    /// As text, whatever the column is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub tenant_id: Option<OldText>,
    /// The e-mail.
    #[diesel(sql_type = Nullable<Binary>)]
    pub email: Option<OldText>,
    /// Given name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub first_name: Option<OldText>,
    /// Family name.
    #[diesel(sql_type = Nullable<Binary>)]
    pub last_name: Option<OldText>,
    /// What Node's bcrypt made of the password.
    #[diesel(sql_type = Nullable<Binary>)]
    pub password: Option<OldText>,
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

    fn texts(&mut self) -> impl Iterator<Item = &mut OldText> {
        let Self { id, tenant_id, email, first_name, last_name, password, .. } = self;
        [id, tenant_id, email, first_name, last_name, password].into_iter().flatten()
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
    source: Source,
    /// The encoding of its texts, when they have one and have to be converted.
    encoding: Option<String>,
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

/// Makes the database send texts as it stores them. It would refuse to send those that cannot be converted to UTF-8,
/// and end the transaction.
const RAW: &str = "SET client_encoding = 'SQL_ASCII'";

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
        let Session { connection, errors, .. } = Connector::new(target)?.connect().await?;
        let mut source = Source { connection, errors };
        source.run(SESSION).await?;
        let encoding = "SELECT current_setting('server_encoding') AS encoding";
        let encoding = source.row::<Encoding>(encoding).await?.encoding;
        if encoding != "UTF8" {
            source.run(RAW).await?;
        }
        let is_converted = !["UTF8", "SQL_ASCII"].contains(&encoding.as_str());
        let encoding = is_converted.then_some(encoding);
        let tenants = find_table(&mut source, &TENANTS).await?;
        let users = find_table(&mut source, &USERS).await?;
        Ok(Self { source, encoding, tenants, users })
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
        let counts = self.source.row::<Counts>(&counts).await?;
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
        self.source.run(&declare).await
    }

    /// The next tenants; none at the end.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn next_tenants(&mut self, limit: usize) -> Result<Vec<OldTenant>, StorageError> {
        let mut rows: Vec<OldTenant> = self.source.rows(&format!("FETCH {limit} FROM old_tenants")).await?;
        if let Some(encoding) = &self.encoding {
            let texts = rows.iter_mut().flat_map(OldTenant::texts).collect();
            self.source.convert(encoding, texts).await?;
        }
        Ok(rows)
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
        self.source.run(&declare).await
    }

    /// The next users; none at the end.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn next_users(&mut self, limit: usize) -> Result<Vec<OldUser>, StorageError> {
        let mut rows: Vec<OldUser> = self.source.rows(&format!("FETCH {limit} FROM old_users")).await?;
        if let Some(encoding) = &self.encoding {
            let texts = rows.iter_mut().flat_map(OldUser::texts).collect();
            self.source.convert(encoding, texts).await?;
        }
        Ok(rows)
    }
}

/// A session that reads.
struct Source {
    connection: AsyncPgConnection,
    errors: ServerErrors,
}

impl Source {
    async fn run(&mut self, sql: &str) -> Result<(), StorageError> {
        let done = self.connection.batch_execute(sql).await;
        self.outcome(done)
    }

    async fn rows<R: FromRow>(&mut self, sql: &str) -> Result<Vec<R>, StorageError> {
        let rows = sql_query(sql).load(&mut self.connection).await;
        self.outcome(rows)
    }

    async fn row<R: FromRow>(&mut self, sql: &str) -> Result<R, StorageError> {
        let row = sql_query(sql).get_result(&mut self.connection).await;
        self.outcome(row)
    }

    /// What a statement gave. A failure ends the transaction.
    fn outcome<T>(&self, outcome: Result<T, DieselError>) -> Result<T, StorageError> {
        outcome.map_err(|error| StorageError::of_statement(error, self.errors.take()))
    }
}

/// What a row is read as.
trait FromRow: QueryableByName<Pg> + Send + 'static {}

impl<R: QueryableByName<Pg> + Send + 'static> FromRow for R {}

#[derive(QueryableByName)]
struct Encoding {
    #[diesel(sql_type = Text)]
    encoding: String,
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
async fn find_table(source: &mut Source, table: &Table) -> Result<&'static str, StorageError> {
    for name in table.names {
        let exists = sql_query("SELECT to_regclass($1) IS NOT NULL AS found").bind::<Text, _>(name);
        let exists = exists.get_result::<Found>(&mut source.connection).await;
        if !source.outcome(exists)?.found {
            continue;
        }
        for column in table.columns {
            let exists = sql_query(
                "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) \
                 AND attname = $2 AND NOT attisdropped) AS found",
            );
            let exists = exists.bind::<Text, _>(name).bind::<Text, _>(*column);
            let exists = exists.get_result::<Found>(&mut source.connection).await;
            if !source.outcome(exists)?.found {
                return Err(StorageError::Refused(format!("the table {name} has no column \"{column}\"")));
            }
        }
        return Ok(name);
    }
    let [mapped, model] = table.names;
    Err(StorageError::Refused(format!("there is neither a table {mapped} nor {model}")))
}
