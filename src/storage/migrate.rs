//! Schema migrations, embedded in the binary.
//!
//! Any number of processes may start at once: one migrates, the others wait and find nothing to do.
//! PostgreSQL's take turns by an advisory lock of the session, SQLite's by the write lock.

use std::path::Path;
use std::time::Duration;

use diesel::backend::Backend as DieselBackend;
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel::sqlite::Sqlite;
use diesel::{ExpressionMethods, SqliteConnection};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::timeout;

use super::checksums::{self, Engine};
use super::connection::{Backend, Conn, optional, query};
use super::error::StorageError;
use super::inspection::{self, Inspection};
use super::postgres::{Connector, Session};
use super::schema::__diesel_schema_migrations as applied;
use super::sqlite::{self, Access};
use super::url::{DatabaseUrl, PostgresTarget};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The advisory lock that a migrating process holds: "identity" in ASCII.
const POSTGRES_LOCK: i64 = i64::from_be_bytes(*b"identity");

/// How long a server that answers takes to say so.
const ANSWER: Duration = Duration::from_secs(5);

/// One migration of this program, or one that the database has and this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its folder's name, or its version alone when this program does not know it.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Runs all pending migrations, and returns the names of those it ran, oldest first. Waits for another process that
/// migrates a PostgreSQL database for `lock_limit` at most.
///
/// # Errors
/// [`StorageError::Unavailable`] when the database cannot be reached or goes away meanwhile,
/// [`StorageError::Refused`] when it refuses a migration; the failed one leaves nothing behind.
pub async fn run(url: &DatabaseUrl, lock_limit: Duration) -> Result<Vec<String>, StorageError> {
    // What changes nothing needs neither the lock nor the right to create tables.
    if pending(url).await?.is_empty() {
        return Ok(Vec::new());
    }
    match url {
        DatabaseUrl::Postgres(target) => {
            let record = checksums::recording(Engine::Postgres);
            on_postgres(target, lock_limit, |harness| run_pending(harness, POSTGRES), record).await
        }
        DatabaseUrl::Sqlite { path } => {
            let record = checksums::recording(Engine::Sqlite);
            on_sqlite(path, sqlite::create, |connection| run_pending(connection, SQLITE), record).await
        }
    }
}

/// The names of the migrations that the database lacks, oldest first. Only reads; a database without
/// a table that records them was never migrated, and lacks all.
///
/// # Errors
/// [`StorageError::Unavailable`] when the database cannot be reached, or does not tell.
pub async fn pending(url: &DatabaseUrl) -> Result<Vec<String>, StorageError> {
    match url {
        DatabaseUrl::Postgres(target) => {
            let Session { connection, errors, .. } = connect(target).await?;
            let applied = applied_on_postgres(&mut &connection).await;
            let applied = applied.map_err(|error| StorageError::of_statement(error, errors.take()))?;
            lacking::<Pg>(POSTGRES, &applied)
        }
        DatabaseUrl::Sqlite { path } if !path.exists() => lacking::<Sqlite>(SQLITE, &[]),
        DatabaseUrl::Sqlite { path } => {
            let path = path.clone();
            lacking::<Sqlite>(SQLITE, &blocking(move || applied_on_sqlite(&path)).await?)
        }
    }
}

async fn applied_on_postgres(connection: &mut &AsyncPgConnection) -> QueryResult<Vec<String>> {
    let is_recorded = sql::<Bool>("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL");
    if !is_recorded.get_result::<bool>(connection).await? {
        return Ok(Vec::new());
    }
    applied::table.select(applied::version).load(connection).await
}

fn applied_on_sqlite(path: &Path) -> Result<Vec<String>, StorageError> {
    let mut connection = sqlite::open(path, Access::Read)?;
    let is_recorded =
        sql::<Bool>("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '__diesel_schema_migrations')");
    if !diesel::RunQueryDsl::get_result::<bool>(is_recorded, &mut connection)? {
        return Ok(Vec::new());
    }
    Ok(diesel::RunQueryDsl::load(applied::table.select(applied::version), &mut connection)?)
}

/// The names of `migrations` whose versions are not among `applied`, oldest first.
fn lacking<DB: DieselBackend>(
    migrations: EmbeddedMigrations,
    applied: &[String],
) -> Result<Vec<String>, StorageError> {
    let known = oldest_first::<DB>(migrations).map_err(refused)?;
    let names = known.iter().map(|migration| migration.name());
    Ok(names
        .filter(|name| !applied.contains(&name.version().to_string()))
        .map(|name| name.to_string())
        .collect())
}

/// Compares the database's record of migrations with this program's.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or was never migrated.
pub(super) async fn compare(conn: &mut Conn) -> Result<Inspection, StorageError> {
    let engine = match &conn.0 {
        Backend::Postgres(_) => Engine::Postgres,
        Backend::Sqlite(_) => Engine::Sqlite,
    };
    let recorded = applied::table.select((applied::version, applied::checksum)).order(applied::version.asc());
    let recorded: Vec<(String, Option<String>)> = query!(conn, |c| recorded.load(c))?;
    let mut inspection = Inspection::default();
    for (version, checksum) in recorded {
        match checksums::of(engine).find(|known| known.version == version) {
            None => inspection.unknown.push(version),
            Some(known) if checksum.is_some_and(|checksum| checksum != known.sha256) => {
                inspection.edited.push(known.name.to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(inspection)
}

/// Reverts the newest `steps` migrations, and returns their names, newest first. Waits as [`run`] does.
///
/// # Errors
/// As [`run`].
pub async fn revert(
    url: &DatabaseUrl,
    lock_limit: Duration,
    steps: usize,
) -> Result<Vec<String>, StorageError> {
    let nothing = String::new();
    match url {
        DatabaseUrl::Postgres(target) => {
            on_postgres(target, lock_limit, move |harness| revert_newest(harness, POSTGRES, steps), nothing)
                .await
        }
        DatabaseUrl::Sqlite { path } => {
            on_sqlite(
                path,
                open_or_empty,
                move |connection| revert_newest(connection, SQLITE, steps),
                nothing,
            )
            .await
        }
    }
}

/// Every migration, oldest first. Creates the (empty) table that records them when it is missing, though not
/// an SQLite file. Waits as [`run`] does.
///
/// # Errors
/// [`StorageError::Unavailable`] when the database cannot be reached.
pub async fn status(url: &DatabaseUrl, lock_limit: Duration) -> Result<Vec<MigrationStatus>, StorageError> {
    let nothing = String::new();
    match url {
        DatabaseUrl::Postgres(target) => {
            on_postgres(target, lock_limit, |harness| list_status(harness, POSTGRES), nothing).await
        }
        DatabaseUrl::Sqlite { path } => {
            on_sqlite(path, open_or_empty, |connection| list_status(connection, SQLITE), nothing).await
        }
    }
}

type HarnessResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn run_pending<DB: DieselBackend>(
    harness: &mut impl MigrationHarness<DB>,
    migrations: EmbeddedMigrations,
) -> HarnessResult<Vec<String>> {
    let pending = harness.pending_migrations(migrations)?;
    harness.run_migrations(&pending)?;
    Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
}

fn revert_newest<DB: DieselBackend>(
    harness: &mut impl MigrationHarness<DB>,
    migrations: EmbeddedMigrations,
    steps: usize,
) -> HarnessResult<Vec<String>> {
    let known = oldest_first(migrations)?;
    let mut reverted = Vec::new();
    for version in harness.applied_migrations()?.into_iter().take(steps) {
        let migration = known
            .iter()
            .find(|migration| migration.name().version() == version)
            .ok_or_else(|| format!("the migration {version} is not one of this program's"))?;
        harness.revert_migration(migration.as_ref())?;
        reverted.push(migration.name().to_string());
    }
    Ok(reverted)
}

fn list_status<DB: DieselBackend>(
    harness: &mut impl MigrationHarness<DB>,
    migrations: EmbeddedMigrations,
) -> HarnessResult<Vec<MigrationStatus>> {
    let mut applied = harness.applied_migrations()?;
    let mut all = Vec::new();
    for migration in oldest_first::<DB>(migrations)? {
        let version = migration.name().version();
        let before = applied.len();
        applied.retain(|other| *other != version);
        all.push(MigrationStatus { name: migration.name().to_string(), applied: applied.len() < before });
    }
    let unknown = applied.into_iter().rev();
    all.extend(unknown.map(|version| MigrationStatus { name: version.to_string(), applied: true }));
    Ok(all)
}

fn oldest_first<DB: DieselBackend>(
    migrations: EmbeddedMigrations,
) -> HarnessResult<Vec<Box<dyn Migration<DB>>>> {
    let mut known: Vec<Box<dyn Migration<DB>>> = migrations.migrations()?;
    known.sort_by(|a, b| a.name().version().cmp(&b.name().version()));
    Ok(known)
}

fn refused(error: impl ToString) -> StorageError {
    StorageError::Refused(error.to_string())
}

/// Opens a connection, unless a pooler would lend it to others as well: the lock for migrations is the session's.
async fn connect(target: &PostgresTarget) -> Result<Session, StorageError> {
    let connector = Connector::new(target)?;
    inspection::require_own_backends(&connector).await?;
    Ok(connector.connect().await?)
}

/// Calls `task` while it holds the lock for migrations, and then runs the SQL `afterwards`.
async fn on_postgres<T: Send + 'static>(
    target: &PostgresTarget,
    lock_limit: Duration,
    task: impl FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> HarnessResult<T> + Send + 'static,
    afterwards: String,
) -> Result<T, StorageError> {
    let Session { mut connection, errors, .. } = connect(target).await?;
    lock(&mut connection, lock_limit)
        .await
        .map_err(|error| explain_lock(StorageError::of_statement(error, errors.take()), lock_limit))?;
    // The harness blocks for as long as the migrations take, and with it all that shares its task.
    let perform = async move {
        let mut harness = AsyncMigrationHarness::new(connection);
        let outcome = task(&mut harness);
        let mut connection = harness.into_inner();
        match outcome {
            Ok(done) => {
                let ran = connection.batch_execute(&afterwards).await;
                ran.map(|()| done).map_err(|error| StorageError::of_statement(error, errors.take()))
            }
            Err(error) => {
                let passes = match errors.take() {
                    Some(server) => server.state.passes(),
                    None => !answers(&mut connection).await,
                };
                let error = error.to_string();
                Err(if passes { StorageError::Unavailable(error) } else { StorageError::Refused(error) })
            }
        }
    };
    tokio::spawn(perform).await.map_err(refused)?
}

/// Takes the lock that migrating processes take turns by. It ends with the connection.
async fn lock(connection: &mut AsyncPgConnection, limit: Duration) -> QueryResult<()> {
    let attempt = sql::<Bool>(&format!("SELECT pg_try_advisory_lock({POSTGRES_LOCK})"));
    if !attempt.get_result::<bool>(connection).await? {
        tracing::info!("another process migrates the database; waiting for it");
        let millis = limit.as_millis();
        let wait = format!("SET lock_timeout = {millis}; SELECT pg_advisory_lock({POSTGRES_LOCK})");
        connection.batch_execute(&wait).await?;
    }
    // A migration may rightly take longer than a request's statement.
    connection.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await
}

fn explain_lock(error: StorageError, limit: Duration) -> StorageError {
    match error {
        StorageError::Unavailable(cause) => StorageError::Unavailable(format!(
            "another process has held the lock for migrations for {}: {cause}",
            humantime::format_duration(limit)
        )),
        StorageError::Busy { .. }
        | StorageError::Stale(_)
        | StorageError::Corrupt(_)
        | StorageError::Refused(_)
        | StorageError::Unsuitable(_) => error,
    }
}

/// Whether the server still answers on a connection on which something failed without a word from it. Its
/// transaction ends.
async fn answers(connection: &mut AsyncPgConnection) -> bool {
    // Good in every state of a session, a failed transaction included.
    let answer = timeout(ANSWER, connection.batch_execute("ROLLBACK")).await;
    matches!(answer, Ok(Ok(())))
}

/// Calls `task` and then runs the SQL `afterwards`, all in one transaction of the database that `open` opens.
async fn on_sqlite<T: Send + 'static>(
    path: &Path,
    open: fn(&Path) -> Result<SqliteConnection, StorageError>,
    task: impl FnOnce(&mut SqliteConnection) -> HarnessResult<T> + Send + 'static,
    afterwards: String,
) -> Result<T, StorageError> {
    let path = path.to_owned();
    let perform = move || {
        let mut connection = open(&path)?;
        // Rebuilding a table, SQLite's way to alter one, must not fire its cascades. The setting has
        // no effect inside a transaction, so it comes before.
        connection.batch_execute("PRAGMA foreign_keys = OFF")?;
        connection.immediate_transaction(|connection| {
            let done = task(connection).map_err(refused)?;
            connection.batch_execute(&afterwards)?;
            let orphans = sql::<BigInt>("SELECT count(*) FROM pragma_foreign_key_check");
            let orphans: i64 = diesel::RunQueryDsl::get_result(orphans, connection)?;
            if orphans > 0 {
                let problem = format!("the migrations would leave {orphans} rows without parents");
                return Err(StorageError::Refused(problem));
            }
            Ok(done)
        })
    };
    blocking(perform).await
}

/// Opens an SQLite database. A missing file stands for an empty database, and is not made.
fn open_or_empty(path: &Path) -> Result<SqliteConnection, StorageError> {
    if path.exists() {
        return sqlite::open(path, Access::Write);
    }
    SqliteConnection::establish(":memory:").map_err(refused)
}

/// Runs what blocks the thread beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(refused)?
}

/// The version of the newest migration that the database has, if it has any.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or was never migrated.
pub(super) async fn find_latest(conn: &mut Conn) -> Result<Option<String>, StorageError> {
    let latest = applied::table.select(applied::version).order(applied::version.desc());
    query!(conn, |c| optional(latest.first::<String>(c)))
}
