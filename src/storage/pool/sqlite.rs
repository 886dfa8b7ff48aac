//! The pools of an SQLite file: one connection that writes, and readers apart by lane.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::storage::blocking::{BlockingThreads, Urgency};
use crate::storage::connection::AsyncSqliteConnection;
use crate::storage::connection_pool::{Pool, PoolLimits};
use crate::storage::error::StorageError;
use crate::storage::lane::Lane;
use crate::storage::link::Opened;
use crate::storage::postgres::ServerErrors;
use crate::storage::reachability::Reachability;
use crate::storage::sqlite::Access;
use crate::storage::sqlite_file::SqliteFile;
use crate::storage::usage::PoolUsage;

/// A local file is never away, only busy: nobody gives up a statement on it.
const LIMITS: PoolLimits = PoolLimits {
    connections: 1,
    queue: Lane::Writes.queue(),
    turn: Duration::MAX,
    connect: Duration::from_secs(10),
    rest: Duration::ZERO,
    statement: None,
};

/// Connections that read, opened when they are first needed. Each statement under way has one of its
/// own, so this is how many the threads find in their queue, at most, when they wake.
const READERS: u32 = 16;

/// Threads that read. A second one, so that a page that has to come from the disk does not keep those
/// waiting whose pages are in memory.
const READ_THREADS: usize = 2;

/// Connections that read for operators and the service itself, on the thread of those that list.
const OPERATORS: u32 = 4;

pub(super) struct SqlitePools {
    pub(super) write: Pool<AsyncSqliteConnection>,
    read: Pool<AsyncSqliteConnection>,
    pub(super) list: Pool<AsyncSqliteConnection>,
    operate: Pool<AsyncSqliteConnection>,
    pub(super) probe: Pool<AsyncSqliteConnection>,
    pub(super) file: Arc<SqliteFile>,
}

impl SqlitePools {
    /// Connections that list. They share a thread of their own, so more would not be faster.
    pub(super) const LISTERS: u32 = 2;

    /// Pools of connections to the file at `path`, for each of which a call waits `turn` at most.
    pub(super) fn new(
        path: &Path,
        turn: Duration,
        reachability: &Reachability,
    ) -> Result<Self, StorageError> {
        let threads = |name, count, urgency| {
            BlockingThreads::start(name, count, urgency).map_err(|error| {
                StorageError::Refused(format!("cannot start the threads for SQLite: {error}"))
            })
        };
        let writing = threads("sqlite-write", 1, Urgency::Usual)?;
        let reading = threads("sqlite-read", READ_THREADS, Urgency::Usual)?;
        let listing = threads("sqlite-list", 1, Urgency::Low)?;
        let file = Arc::new(SqliteFile::new(path.to_owned()));
        let pool = |connections, lane: Lane, access, threads: &BlockingThreads| {
            let (file, threads) = (Arc::clone(&file), threads.clone());
            let limits = PoolLimits { connections, queue: lane.queue(), turn, ..LIMITS };
            Pool::new(limits, None, reachability.clone(), move || {
                connect(Arc::clone(&file), access, threads.clone()).boxed()
            })
        };
        Ok(Self {
            write: pool(1, Lane::Writes, Access::Write, &writing),
            read: pool(READERS, Lane::Reads, Access::Read, &reading),
            list: pool(Self::LISTERS, Lane::Lists, Access::Read, &listing),
            operate: pool(OPERATORS, Lane::Operators, Access::Read, &listing),
            probe: pool(1, Lane::Operators, Access::Read, &reading),
            file,
        })
    }

    /// The pool whose connections read in `lane`. What reads in the lane of writes does so on the connection
    /// that writes.
    pub(super) fn of(&self, lane: Lane) -> &Pool<AsyncSqliteConnection> {
        match lane {
            Lane::Reads => &self.read,
            Lane::Writes => &self.write,
            Lane::Lists => &self.list,
            Lane::Operators => &self.operate,
        }
    }

    pub(super) fn usage(&self) -> Vec<PoolUsage> {
        Lane::ALL.into_iter().map(|lane| self.of(lane).usage(lane.name())).collect()
    }

    pub(super) async fn close(&self) {
        for pool in [&self.probe, &self.operate, &self.list, &self.read] {
            pool.close().await;
        }
        self.file.close();
        self.write.close().await;
    }
}

async fn connect(
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
