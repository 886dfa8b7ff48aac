//! The pools of one database, and the way in for everything that queries it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt as _;

use super::blocking::BlockingThreads;
use super::connection::{AsyncSqliteConnection, Backend, Conn, query};
use super::error::StorageError;
use super::link::{Pool, PoolLimits};
use super::migrate;
use super::postgres::Connector;
use super::snapshot::Snapshot;
use super::sqlite::{self, Access};
use super::transaction::Tx;
use super::url::DatabaseUrl;
use super::usage::PoolUsage;

/// Which database to use, and how much of it.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// Where the database is.
    pub url: DatabaseUrl,
    /// The most connections to PostgreSQL, the health probe's own one aside. SQLite has one that
    /// writes and a few that read, whatever is said here.
    pub connections: NonZeroU32,
    /// After that, PostgreSQL ends a statement. SQLite's have no limit.
    pub statement_limit: Duration,
}

/// A database. Cheap to clone; all clones share the pools.
#[derive(Clone)]
pub struct Storage(Arc<Pools>);

enum Pools {
    Postgres {
        all: Pool<AsyncPgConnection>,
        probe: Pool<AsyncPgConnection>,
    },
    Sqlite {
        write: Pool<AsyncSqliteConnection>,
        read: Pool<AsyncSqliteConnection>,
        probe: Pool<AsyncSqliteConnection>,
    },
}

/// On PostgreSQL, a caller is told within two seconds that the database is away: opening a
/// connection and running a statement are each given somewhat less. Where it goes away between the
/// two, both limits add up.
const POSTGRES_CONNECT: Duration = Duration::from_millis(1_500);

/// The longest wait for a connection to PostgreSQL while it answers.
const POSTGRES_TURN: Duration = Duration::from_secs(10);

/// How long a statement is waited for that the server ends after `limit`. Then the connection is given
/// up. The server comes first, so that a statement which only waited for a lock costs no connection
/// and is not taken for a server that does not answer.
fn postgres_wait(limit: Duration) -> Duration {
    limit + limit / 5
}

/// The longest that a transaction may sit between statements: this process was stopped, or is gone.
const IDLE_IN_TRANSACTION_MILLIS: u32 = 10_000;

/// Connections are replaced now and then, so that load spreads over what is behind a balancer.
const POSTGRES_MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A local file is never away, only busy: nobody gives up a statement on it, and writers queue for
/// longer.
const SQLITE_LIMITS: PoolLimits = PoolLimits {
    connections: 1,
    turn: Duration::from_secs(30),
    connect: Duration::from_secs(10),
    statement: None,
};

/// Connections that read, opened when they are first needed. Each statement under way has one of its
/// own, so this is how many the threads find in their queue, at most, when they wake.
const SQLITE_READERS: u32 = 16;

/// Threads that read. A second one, so that a page that has to come from the disk does not keep those
/// waiting whose pages are in memory.
const SQLITE_READ_THREADS: usize = 2;

impl Storage {
    /// Prepares the pools. Connections are opened when they are first needed, so this neither
    /// waits nor fails; [`Storage::probe`] tells whether the database answers.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the certificates that the URL names cannot be read.
    pub fn new(settings: &StorageSettings) -> Result<Self, StorageError> {
        let limit = settings.statement_limit;
        Ok(Self(Arc::new(match &settings.url {
            DatabaseUrl::Postgres(target) => {
                let connector =
                    Connector::new(target).map_err(|error| StorageError::Refused(error.to_string()))?;
                // Hosts are tried one after the other, so that one that is silent needs time for the next.
                let connect = match target.config().get_hosts() {
                    [] | [_] => POSTGRES_CONNECT,
                    _ => connector.time_limit(),
                };
                let connector = Arc::new(connector);
                let pool = |connections| {
                    let connector = Arc::clone(&connector);
                    Pool::new(
                        PoolLimits {
                            connections,
                            connect,
                            turn: POSTGRES_TURN,
                            statement: Some(postgres_wait(limit)),
                        },
                        Some(POSTGRES_MAX_LIFETIME),
                        move || connect_postgres(Arc::clone(&connector), limit).boxed(),
                    )
                };
                Pools::Postgres { all: pool(settings.connections.get()), probe: pool(1) }
            }
            DatabaseUrl::Sqlite { path } => {
                let threads = |name, count| {
                    BlockingThreads::start(name, count).map_err(|error| {
                        StorageError::Refused(format!("cannot start the threads for SQLite: {error}"))
                    })
                };
                let (writing, reading) =
                    (threads("sqlite-write", 1)?, threads("sqlite-read", SQLITE_READ_THREADS)?);
                let pool = |connections, access, threads: &BlockingThreads| {
                    let (path, threads) = (path.clone(), threads.clone());
                    Pool::new(PoolLimits { connections, ..SQLITE_LIMITS }, None, move || {
                        connect_sqlite(path.clone(), access, threads.clone()).boxed()
                    })
                };
                Pools::Sqlite {
                    write: pool(1, Access::Write, &writing),
                    read: pool(SQLITE_READERS, Access::Read, &reading),
                    probe: pool(1, Access::Read, &reading),
                }
            }
        })))
    }

    /// A connection for reading. On SQLite it cannot write.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when none is to be had within the limits.
    pub async fn read(&self) -> Result<Conn, StorageError> {
        Ok(Conn(match &*self.0 {
            Pools::Postgres { all, .. } => Backend::Postgres(Box::new(all.loan().await?)),
            Pools::Sqlite { read, .. } => Backend::Sqlite(read.loan().await?),
        }))
    }

    /// Opens a transaction for writing; `name` is what logs call it.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when no connection is to be had within the limits.
    pub async fn begin(&self, name: &'static str) -> Result<Tx, StorageError> {
        Tx::begin(self.writer().await?, name).await
    }

    /// Opens a transaction that only reads, and sees the same moment throughout.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when no connection is to be had within the limits.
    pub async fn snapshot(&self, name: &'static str) -> Result<Snapshot, StorageError> {
        Snapshot::begin(self.read().await?, name).await
    }

    /// Prepares the connection that writes for rows by the million, until [`Storage::end_bulk`]. On SQLite
    /// it keeps more in memory, and its commits survive the end of the process but not yet a loss of power.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when no connection is to be had within the limits.
    pub async fn begin_bulk(&self) -> Result<(), StorageError> {
        self.tell_sqlite_writer(sqlite::BULK).await
    }

    /// From the next commit on, everything that was committed is on disk when the commit returns.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when no connection is to be had within the limits.
    pub async fn end_bulk(&self) -> Result<(), StorageError> {
        self.tell_sqlite_writer(sqlite::BULK_END).await
    }

    async fn tell_sqlite_writer(&self, pragmas: &'static str) -> Result<(), StorageError> {
        if let Pools::Sqlite { write, .. } = &*self.0 {
            let mut conn = Conn(Backend::Sqlite(write.loan().await?));
            query!(conn, |c| c.batch_execute(pragmas))?;
        }
        Ok(())
    }

    async fn writer(&self) -> Result<Conn, StorageError> {
        Ok(Conn(match &*self.0 {
            Pools::Postgres { all, .. } => Backend::Postgres(Box::new(all.loan().await?)),
            Pools::Sqlite { write, .. } => Backend::Sqlite(write.loan().await?),
        }))
    }

    /// Whether the database answers and was ever migrated. Asked on a connection of its own, so a
    /// full pool is no bad health.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong.
    pub async fn probe(&self) -> Result<(), StorageError> {
        let mut conn = Conn(match &*self.0 {
            Pools::Postgres { probe, .. } => Backend::Postgres(Box::new(probe.loan().await?)),
            Pools::Sqlite { probe, .. } => Backend::Sqlite(probe.loan().await?),
        });
        migrate::find_latest(&mut conn).await?;
        match &*self.0 {
            Pools::Postgres { all, .. } => all.note_answer(),
            Pools::Sqlite { write, read, .. } => {
                write.note_answer();
                read.note_answer();
            }
        }
        Ok(())
    }

    /// How much of each pool is in use now. The health probe's own connections are left aside.
    pub fn usage(&self) -> Vec<PoolUsage> {
        match &*self.0 {
            Pools::Postgres { all, .. } => vec![all.usage("main")],
            Pools::Sqlite { write, read, .. } => vec![write.usage("write"), read.usage("read")],
        }
    }

    /// Closes all connections, once those in use have been given back; none is to be had from then
    /// on. SQLite writes its log back into the file with that, and removes it.
    pub async fn close(&self) {
        match &*self.0 {
            Pools::Postgres { all, probe } => {
                all.close().await;
                probe.close().await;
            }
            Pools::Sqlite { write, read, probe } => {
                probe.close().await;
                read.close().await;
                write.close().await;
            }
        }
    }
}

async fn connect_sqlite(
    path: PathBuf,
    access: Access,
    threads: BlockingThreads,
) -> Result<AsyncSqliteConnection, StorageError> {
    let connection = sqlite::connect(path, access).await?;
    Ok(AsyncSqliteConnection::with_runtime(connection, threads))
}

async fn connect_postgres(
    connector: Arc<Connector>,
    limit: Duration,
) -> Result<AsyncPgConnection, StorageError> {
    let mut connection =
        connector.connect().await.map_err(|error| StorageError::Unavailable(error.to_string()))?;
    // The server ends what takes too long, and transactions that nobody ends.
    connection
        .batch_execute(&format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
             SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MILLIS}",
            limit = limit.as_millis(),
        ))
        .await?;
    instrument(|instrumentation| connection.set_instrumentation(instrumentation));
    Ok(connection)
}

/// Gives a connection the instrumentation that logs its queries, when anybody would see them.
pub(super) fn instrument(set: impl FnOnce(QueryLog)) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        set(QueryLog);
    }
}

/// Logs the text of each query, never its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryLog;

impl Instrumentation for QueryLog {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            // Every value is a bound parameter; diesel shows those after this mark.
            let sql = text.split(" -- binds:").next().unwrap_or_default();
            tracing::debug!(db.query = %sql, "query");
        }
    }
}
