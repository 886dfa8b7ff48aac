//! The pools of one database, and the way in for everything that queries it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt as _;

use super::blocking::{BlockingThreads, Urgency};
use super::connection::{AsyncSqliteConnection, Backend, Conn, query};
use super::error::StorageError;
use super::inspection::{self, Inspection};
use super::lane::{Lane, LaneSizes};
use super::link::{Loan, Opened, Pool, PoolLimits, Pooled};
use super::listing::Listing;
use super::migrate;
use super::postgres::{Connector, ServerErrors, Session};
use super::reachability::Reachability;
use super::snapshot::Snapshot;
use super::sqlite::{self, Access};
use super::sqlite_file::SqliteFile;
use super::transaction::Tx;
use super::url::{DatabaseUrl, PostgresTarget};
use super::usage::PoolUsage;
use crate::budget::{Gate, GateUsage, Place};
use crate::domain::Party;

/// Which database to use, and how much of it.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// Where the database is.
    pub url: DatabaseUrl,
    /// The most connections to PostgreSQL, by lane, the health probe's own one aside. SQLite has one that
    /// writes and a few that read, whatever is said here.
    pub connections: LaneSizes,
    /// After that, PostgreSQL ends a statement; after two thirds of it, one that waits for a lock. SQLite's
    /// have no limit.
    pub statement_limit: Duration,
    /// How long a call waits for a connection at most, while the database answers.
    pub queue_limit: Duration,
}

/// A database. Cheap to clone; all clones share the pools.
#[derive(Clone)]
pub struct Storage(Arc<Database>);

struct Database {
    pools: Pools,
    /// Pages of lists that are being put together.
    pages: Gate,
    reachability: Reachability,
}

enum Pools {
    Postgres {
        lanes: Lanes<AsyncPgConnection>,
        probe: Pool<AsyncPgConnection>,
    },
    /// There is one connection that writes; the readers are apart by lane. What reads in the lane of writes
    /// does so on the connection that writes.
    Sqlite {
        write: Pool<AsyncSqliteConnection>,
        read: Pool<AsyncSqliteConnection>,
        list: Pool<AsyncSqliteConnection>,
        operate: Pool<AsyncSqliteConnection>,
        probe: Pool<AsyncSqliteConnection>,
        file: Arc<SqliteFile>,
    },
}

/// A pool for each lane.
struct Lanes<C: Pooled> {
    reads: Pool<C>,
    writes: Pool<C>,
    lists: Pool<C>,
    operators: Pool<C>,
}

impl<C: Pooled> Lanes<C> {
    fn of(&self, lane: Lane) -> &Pool<C> {
        match lane {
            Lane::Reads => &self.reads,
            Lane::Writes => &self.writes,
            Lane::Lists => &self.lists,
            Lane::Operators => &self.operators,
        }
    }
}

/// The right to one unit of work in a lane: a connection of it is free. Given back when dropped.
///
/// Taken before anything is spawned, so that there are never more units than connections.
#[must_use]
pub struct Permit {
    storage: Storage,
    lane: Lane,
    place: Place,
}

impl Permit {
    /// Opens a transaction for writing; `name` is what logs call it.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when no connection can be opened.
    pub async fn begin(self, name: &'static str) -> Result<Tx, StorageError> {
        let file = self.storage.sqlite_file().cloned();
        Tx::begin(self.connect().await?, name, file).await
    }

    /// The connection.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when it cannot be opened, or SQLite's file was moved or deleted.
    pub async fn connect(self) -> Result<Conn, StorageError> {
        let Self { storage, lane, place } = self;
        storage.check_file()?;
        Ok(Conn(match &storage.0.pools {
            Pools::Postgres { lanes, .. } => Backend::postgres(lanes.of(lane).loan(place).await?),
            Pools::Sqlite { write, .. } => Backend::Sqlite(write.loan(place).await?),
        }))
    }
}

/// On PostgreSQL, a caller is told within two seconds that the database is away: opening a
/// connection and running a statement are each given somewhat less. Where it goes away between the
/// two, both limits add up.
const POSTGRES_CONNECT: Duration = Duration::from_millis(1_500);

/// How long no connection is tried after one could not be opened.
const POSTGRES_REST: Duration = Duration::from_millis(200);

/// How long a statement is waited for that the server ends after `limit`. Then the connection is given
/// up. The server comes first, so that a statement which only waited for a lock costs no connection
/// and is not taken for a server that does not answer.
fn postgres_wait(limit: Duration) -> Duration {
    limit + limit / 5
}

/// How long a statement waits for a lock: less than a statement may take, and than a caller waits.
fn postgres_lock_wait(limit: Duration) -> Duration {
    limit * 2 / 3
}

/// The longest that a transaction may sit between statements: this process was stopped, or is gone.
const IDLE_IN_TRANSACTION_MILLIS: u32 = 10_000;

/// How old the health probe's connection may become: an address, or a role of the server, may lead new connections
/// elsewhere.
const PROBE_RENEWAL: Duration = Duration::from_secs(5);

/// Connections are replaced now and then, so that load spreads over what is behind a balancer.
const POSTGRES_MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A local file is never away, only busy: nobody gives up a statement on it.
const SQLITE_LIMITS: PoolLimits = PoolLimits {
    connections: 1,
    queue: Lane::Writes.queue(),
    turn: Duration::MAX,
    connect: Duration::from_secs(10),
    rest: Duration::ZERO,
    statement: None,
};

/// Connections that read, opened when they are first needed. Each statement under way has one of its
/// own, so this is how many the threads find in their queue, at most, when they wake.
const SQLITE_READERS: u32 = 16;

/// Threads that read. A second one, so that a page that has to come from the disk does not keep those
/// waiting whose pages are in memory.
const SQLITE_READ_THREADS: usize = 2;

/// Pages that are put together at once, for each connection that lists: most of what a page takes is memory, some
/// megabytes, while it waits for its next connection.
const PAGES_PER_LISTER: u32 = 4;

/// Connections that list. They share a thread of their own, so more would not be faster.
const SQLITE_LISTERS: u32 = 2;

/// Connections that read for operators and the service itself, on the same thread.
const SQLITE_OPERATORS: u32 = 4;

impl Storage {
    /// Prepares the pools. Connections are opened when they are first needed, so this neither
    /// waits nor fails; [`Storage::probe`] tells whether the database answers.
    ///
    /// # Errors
    /// [`StorageError::Unsuitable`] when the certificates that the URL names cannot be read.
    pub fn new(settings: &StorageSettings) -> Result<Self, StorageError> {
        let reachability = match &settings.url {
            DatabaseUrl::Postgres(_) => Reachability::new(),
            DatabaseUrl::Sqlite { .. } => Reachability::with_writes_tried(),
        };
        let (pools, listers) = match &settings.url {
            DatabaseUrl::Postgres(target) => {
                (postgres_pools(target, settings, &reachability)?, settings.connections.lists.get())
            }
            DatabaseUrl::Sqlite { path } => {
                (sqlite_pools(path, settings.queue_limit, &reachability)?, SQLITE_LISTERS)
            }
        };
        let pages = (listers * PAGES_PER_LISTER) as usize;
        let pages = Gate::with_room_for_newcomers(pages, Lane::Lists.queue(), settings.queue_limit);
        Ok(Self(Arc::new(Database { pools, pages, reachability })))
    }

    /// Waits for a connection of `lane` that reads. On SQLite it cannot write, but for that of
    /// [`Lane::Writes`].
    ///
    /// # Errors
    /// [`StorageError::Busy`] when too many wait, or it took too long; [`StorageError::Unavailable`] when none
    /// can be opened.
    pub async fn reader(&self, lane: Lane, party: Party) -> Result<Conn, StorageError> {
        if let Some(file) = self.sqlite_file() {
            file.check_if_lost()?;
        }
        Ok(Conn(match &self.0.pools {
            Pools::Postgres { lanes, .. } => {
                Backend::postgres(enter_and_loan(lanes.of(lane), lane, party).await?)
            }
            Pools::Sqlite { write, read, list, operate, .. } => {
                let pool = match lane {
                    Lane::Reads => read,
                    Lane::Writes => write,
                    Lane::Lists => list,
                    Lane::Operators => operate,
                };
                Backend::Sqlite(enter_and_loan(pool, lane, party).await?)
            }
        }))
    }

    /// Waits for the right to put a page of a list together; tenants come before users. Dropping the future
    /// leaves the queue.
    ///
    /// # Errors
    /// As [`Storage::permit`].
    pub async fn listing(&self, party: Party) -> Result<Listing, StorageError> {
        let Database { pages, reachability, .. } = &*self.0;
        let place = reachability.while_reachable(pages.enter_by_group(party)).await?;
        Ok(Listing::new(self.clone(), party, place))
    }

    /// Waits for the right to one unit of work that writes in `lane`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`StorageError::Busy`] when too many wait, or it took too long; [`StorageError::Unavailable`] when the
    /// database was found to be away while waiting.
    pub async fn permit(&self, lane: Lane, party: Party) -> Result<Permit, StorageError> {
        let place = match &self.0.pools {
            Pools::Postgres { lanes, .. } => lanes.of(lane).enter(party).await?,
            Pools::Sqlite { write, .. } => write.enter(party).await?,
        };
        Ok(Permit { storage: self.clone(), lane, place })
    }

    /// Whether others wait for a connection that what holds one of `lane` keeps from them.
    pub fn is_awaited(&self, lane: Lane) -> bool {
        match &self.0.pools {
            Pools::Postgres { lanes, .. } => lanes.of(lane).is_awaited(),
            Pools::Sqlite { write, list, .. } => match lane {
                Lane::Lists => list.is_awaited(),
                Lane::Reads | Lane::Writes | Lane::Operators => write.is_awaited(),
            },
        }
    }

    /// A connection for reading, for an operator or the service itself. On SQLite it cannot write.
    ///
    /// # Errors
    /// As [`Storage::reader`].
    pub async fn read(&self) -> Result<Conn, StorageError> {
        self.reader(Lane::Operators, Party::System).await
    }

    /// Opens a transaction for writing, for an operator or the service itself; `name` is what logs call it.
    ///
    /// # Errors
    /// As [`Storage::permit`] and [`Permit::begin`].
    pub async fn begin(&self, name: &'static str) -> Result<Tx, StorageError> {
        self.permit(Lane::Operators, Party::System).await?.begin(name).await
    }

    /// Opens a transaction that only reads, and sees the same moment throughout, for an operator.
    ///
    /// # Errors
    /// As [`Storage::reader`].
    pub async fn snapshot(&self, name: &'static str) -> Result<Snapshot, StorageError> {
        Snapshot::begin(self.read().await?, name, self.sqlite_file().cloned()).await
    }

    /// Prepares the connection that writes for rows by the million, until [`Storage::end_bulk`]. On SQLite
    /// it keeps more in memory, and its commits survive the end of the process but not yet a loss of power.
    ///
    /// # Errors
    /// As [`Storage::permit`].
    pub async fn begin_bulk(&self) -> Result<(), StorageError> {
        self.tell_sqlite_writer(sqlite::BULK).await
    }

    /// From the next commit on, everything that was committed is on disk when the commit returns.
    ///
    /// # Errors
    /// As [`Storage::permit`].
    pub async fn end_bulk(&self) -> Result<(), StorageError> {
        self.tell_sqlite_writer(sqlite::BULK_END).await
    }

    async fn tell_sqlite_writer(&self, pragmas: &'static str) -> Result<(), StorageError> {
        if let Pools::Sqlite { .. } = &self.0.pools {
            let mut conn = self.permit(Lane::Operators, Party::System).await?.connect().await?;
            query!(conn, |c| c.batch_execute(pragmas))?;
        }
        Ok(())
    }

    fn sqlite_file(&self) -> Option<&Arc<SqliteFile>> {
        match &self.0.pools {
            Pools::Postgres { .. } => None,
            Pools::Sqlite { file, .. } => Some(file),
        }
    }

    /// Whether SQLite's file is still where it was.
    fn check_file(&self) -> Result<(), StorageError> {
        self.sqlite_file().map_or(Ok(()), |file| file.check())
    }

    /// Whether the database answers, was ever migrated, and can be written to, by what it says and by what calls
    /// saw; where these wrote nothing to an SQLite file lately, something is written. Asked on a connection of its own, so a full pool is no bad health; nor is a server that has no room
    /// for that connection while calls are served.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong.
    pub async fn probe(&self) -> Result<(), StorageError> {
        self.check_file()?;
        self.begin_write_trial();
        let reachability = &self.0.reachability;
        let mut conn = Conn(match &self.0.pools {
            Pools::Postgres { lanes, probe } => {
                let loan = match enter_and_loan(probe, Lane::Operators, Party::System).await {
                    Err(_) if reachability.has_answered_lately() => return reachability.require_writes(),
                    Err(_) => enter_and_loan(&lanes.reads, Lane::Reads, Party::System).await?,
                    Ok(loan) => loan,
                };
                Backend::postgres(loan)
            }
            Pools::Sqlite { probe, .. } => {
                Backend::Sqlite(enter_and_loan(probe, Lane::Operators, Party::System).await?)
            }
        });
        migrate::find_latest(&mut conn).await?;
        reachability.answered();
        let writable = inspection::require_writable(&mut conn).await;
        // Another connection may lead to another server, or find this one in another role.
        conn.retire_after(if writable.is_ok() { PROBE_RENEWAL } else { Duration::ZERO });
        writable.and_then(|()| reachability.require_writes())
    }

    /// Tries whether SQLite's file can be written to, if that is due, without anybody waiting for it: a lock may be
    /// held for seconds.
    fn begin_write_trial(&self) {
        if let Pools::Sqlite { .. } = &self.0.pools
            && let Some(trial) = self.0.reachability.begin_write_trial()
        {
            let storage = self.clone();
            tokio::spawn(async move {
                if let Err(error) = storage.try_write().await {
                    tracing::debug!(%error, "nothing could be written to the database");
                }
                drop(trial);
            });
        }
    }

    /// Writes to SQLite's file without changing what it holds. What is refused then is noted with the connection,
    /// and that something was written is noted here. PostgreSQL is left alone.
    ///
    /// # Errors
    /// [`StorageError`] when that fails, or too many calls wait to write.
    pub async fn try_write(&self) -> Result<(), StorageError> {
        if let Pools::Sqlite { .. } = &self.0.pools {
            let mut conn = self.permit(Lane::Operators, Party::System).await?.connect().await?;
            query!(conn,
                postgres: |_c| async { Ok(()) },
                sqlite: |c| c.spawn_blocking(sqlite::write_page)
            )?;
            conn.note_written();
        }
        Ok(())
    }

    /// Refuses a database that this program cannot work with although it answers: another encoding, a column or a
    /// privilege that is missing. Returns what else is remarkable.
    ///
    /// # Errors
    /// [`StorageError::Unsuitable`] says what is wrong and what to do; [`StorageError::Unavailable`] when the
    /// database does not answer.
    pub async fn inspect(&self) -> Result<Inspection, StorageError> {
        let mut conn = self.read().await?;
        inspection::require_encoding(&mut conn).await?;
        inspection::require_columns(&mut conn).await?;
        inspection::require_privileges(&mut conn).await?;
        migrate::compare(&mut conn).await
    }

    /// How much of each pool is in use now. The health probe's own connections are left aside.
    pub fn usage(&self) -> Vec<PoolUsage> {
        match &self.0.pools {
            Pools::Postgres { lanes, .. } => {
                Lane::ALL.into_iter().map(|lane| lanes.of(lane).usage(lane.name())).collect()
            }
            Pools::Sqlite { write, read, list, operate, .. } => vec![
                read.usage(Lane::Reads.name()),
                write.usage(Lane::Writes.name()),
                list.usage(Lane::Lists.name()),
                operate.usage(Lane::Operators.name()),
            ],
        }
    }

    /// How many pages of lists are being put together, and wait for that.
    pub fn pages(&self) -> GateUsage {
        self.0.pages.usage()
    }

    /// Closes all connections, once those in use have been given back; none is to be had from then
    /// on. SQLite writes its log back into the file with that, and removes it.
    pub async fn close(&self) {
        self.0.pages.close().await;
        match &self.0.pools {
            Pools::Postgres { lanes, probe } => {
                for lane in Lane::ALL {
                    lanes.of(lane).close().await;
                }
                probe.close().await;
            }
            Pools::Sqlite { write, read, list, operate, probe, file } => {
                for pool in [probe, operate, list, read] {
                    pool.close().await;
                }
                file.close();
                write.close().await;
            }
        }
    }
}

/// A connection of `pool`. Lists are long, so they are shared among tenants before users.
async fn enter_and_loan<C: Pooled>(
    pool: &Pool<C>,
    lane: Lane,
    party: Party,
) -> Result<Loan<C>, StorageError> {
    let place = match lane {
        Lane::Lists => pool.enter_by_group(party).await?,
        Lane::Reads | Lane::Writes | Lane::Operators => pool.enter(party).await?,
    };
    pool.loan(place).await
}

fn postgres_pools(
    target: &PostgresTarget,
    settings: &StorageSettings,
    reachability: &Reachability,
) -> Result<Pools, StorageError> {
    let limit = settings.statement_limit;
    let connector = Connector::new(target)?;
    let pool = |connections, queue| {
        let connector = connector.clone();
        let (turn, statement) = (settings.queue_limit, Some(postgres_wait(limit)));
        let (connect, rest) = (POSTGRES_CONNECT, POSTGRES_REST);
        let limits = PoolLimits { connections, queue, turn, connect, rest, statement };
        Pool::new(limits, Some(POSTGRES_MAX_LIFETIME), reachability.clone(), move || {
            connect_postgres(connector.clone(), limit).boxed()
        })
    };
    let lane = |lane: Lane| pool(settings.connections.get(lane), lane.queue());
    let lanes = Lanes {
        reads: lane(Lane::Reads),
        writes: lane(Lane::Writes),
        lists: lane(Lane::Lists),
        operators: lane(Lane::Operators),
    };
    Ok(Pools::Postgres { lanes, probe: pool(1, 1) })
}

fn sqlite_pools(path: &Path, turn: Duration, reachability: &Reachability) -> Result<Pools, StorageError> {
    let threads = |name, count, urgency| {
        BlockingThreads::start(name, count, urgency)
            .map_err(|error| StorageError::Refused(format!("cannot start the threads for SQLite: {error}")))
    };
    let writing = threads("sqlite-write", 1, Urgency::Usual)?;
    let reading = threads("sqlite-read", SQLITE_READ_THREADS, Urgency::Usual)?;
    let listing = threads("sqlite-list", 1, Urgency::Low)?;
    let file = Arc::new(SqliteFile::new(path.to_owned()));
    let pool = |connections, lane: Lane, access, threads: &BlockingThreads| {
        let (file, threads) = (Arc::clone(&file), threads.clone());
        let limits = PoolLimits { connections, queue: lane.queue(), turn, ..SQLITE_LIMITS };
        Pool::new(limits, None, reachability.clone(), move || {
            connect_sqlite(Arc::clone(&file), access, threads.clone()).boxed()
        })
    };
    Ok(Pools::Sqlite {
        write: pool(1, Lane::Writes, Access::Write, &writing),
        read: pool(SQLITE_READERS, Lane::Reads, Access::Read, &reading),
        list: pool(SQLITE_LISTERS, Lane::Lists, Access::Read, &listing),
        operate: pool(SQLITE_OPERATORS, Lane::Operators, Access::Read, &listing),
        probe: pool(1, Lane::Operators, Access::Read, &reading),
        file,
    })
}

async fn connect_sqlite(
    file: Arc<SqliteFile>,
    access: Access,
    threads: BlockingThreads,
) -> Result<Opened<AsyncSqliteConnection>, StorageError> {
    let connection = tokio::task::spawn_blocking(move || file.open(access))
        .await
        .map_err(|error| StorageError::Unavailable(error.to_string()))??;
    let connection = AsyncSqliteConnection::with_runtime(connection, threads);
    Ok(Opened { connection, errors: ServerErrors::default(), interrupt: None })
}

async fn connect_postgres(
    connector: Connector,
    limit: Duration,
) -> Result<Opened<AsyncPgConnection>, StorageError> {
    let Session { mut connection, errors, interrupt } = connector.connect_within(POSTGRES_CONNECT).await?;
    // The server ends what takes too long, and transactions that nobody ends.
    connection
        .batch_execute(&format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MILLIS}",
            limit = limit.as_millis(),
            lock = postgres_lock_wait(limit).as_millis(),
        ))
        .await
        .map_err(|error| StorageError::of_statement(error, errors.take()))?;
    instrument(|instrumentation| connection.set_instrumentation(instrumentation));
    Ok(Opened { connection, errors, interrupt: Some(Box::new(interrupt)) })
}

/// Gives a connection the instrumentation that logs its queries, whenever anybody sees them: the log level may
/// change while the connection is open.
pub(super) fn instrument(set: impl FnOnce(QueryLog)) {
    set(QueryLog);
}

/// Logs the text of each query, never its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryLog;

impl Instrumentation for QueryLog {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event
            && tracing::enabled!(tracing::Level::DEBUG)
        {
            let text = query.to_string();
            // Every value is a bound parameter; diesel shows those after this mark.
            let sql = text.split(" -- binds:").next().unwrap_or_default();
            tracing::debug!(db.query = %sql, "query");
        }
    }
}
