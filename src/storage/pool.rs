//! The pools of one database, and the way in for everything that queries it.

mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;

use self::postgres::PostgresPools;
use self::sqlite::SqlitePools;
use super::connection::{Backend, Conn, query};
use super::connection_pool::{Loan, Pool};
use super::error::StorageError;
use super::inspection::{self, Inspection};
use super::lane::Lane;
use super::link::Pooled;
use super::listing::Listing;
use super::migrate;
use super::reachability::Reachability;
use super::settings::StorageSettings;
use super::snapshot::Snapshot;
use super::sqlite::{BULK, BULK_END, write_page};
use super::sqlite_file::SqliteFile;
use super::transaction::Tx;
use super::url::DatabaseUrl;
use super::usage::PoolUsage;
use crate::budget::{Gate, GateUsage, Place};
use crate::domain::Party;

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
    Postgres(PostgresPools),
    Sqlite(SqlitePools),
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
            Pools::Postgres(pools) => Backend::postgres(pools.of(lane).loan(place).await?),
            Pools::Sqlite(pools) => Backend::Sqlite(pools.write.loan(place).await?),
        }))
    }
}

/// How old the health probe's connection may become: an address, or a role of the server, may lead new connections
/// elsewhere.
const PROBE_RENEWAL: Duration = Duration::from_secs(5);

/// Pages that are put together at once, for each connection that lists: most of what a page takes is memory, some
/// megabytes, while it waits for its next connection.
const PAGES_PER_LISTER: u32 = 4;

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
                let pools = PostgresPools::new(target, settings, &reachability)?;
                (Pools::Postgres(pools), settings.connections.lists.get())
            }
            DatabaseUrl::Sqlite { path } => {
                let pools = SqlitePools::new(path, settings.queue_limit, &reachability)?;
                (Pools::Sqlite(pools), SqlitePools::LISTERS)
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
            Pools::Postgres(pools) => Backend::postgres(enter_and_loan(pools.of(lane), lane, party).await?),
            Pools::Sqlite(pools) => Backend::Sqlite(enter_and_loan(pools.of(lane), lane, party).await?),
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
            Pools::Postgres(pools) => pools.of(lane).enter(party).await?,
            Pools::Sqlite(pools) => pools.write.enter(party).await?,
        };
        Ok(Permit { storage: self.clone(), lane, place })
    }

    /// Whether others wait for a connection that what holds one of `lane` keeps from them.
    pub fn is_awaited(&self, lane: Lane) -> bool {
        match &self.0.pools {
            Pools::Postgres(pools) => pools.of(lane).is_awaited(),
            Pools::Sqlite(pools) if lane == Lane::Lists => pools.list.is_awaited(),
            Pools::Sqlite(pools) => pools.write.is_awaited(),
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
        self.tell_sqlite_writer(BULK).await
    }

    /// From the next commit on, everything that was committed is on disk when the commit returns.
    ///
    /// # Errors
    /// As [`Storage::permit`].
    pub async fn end_bulk(&self) -> Result<(), StorageError> {
        self.tell_sqlite_writer(BULK_END).await
    }

    async fn tell_sqlite_writer(&self, pragmas: &'static str) -> Result<(), StorageError> {
        if let Pools::Sqlite(_) = &self.0.pools {
            let mut conn = self.permit(Lane::Operators, Party::System).await?.connect().await?;
            query!(conn, |c| c.batch_execute(pragmas))?;
        }
        Ok(())
    }

    fn sqlite_file(&self) -> Option<&Arc<SqliteFile>> {
        match &self.0.pools {
            Pools::Postgres(_) => None,
            Pools::Sqlite(pools) => Some(&pools.file),
        }
    }

    /// Whether SQLite's file is still where it was.
    fn check_file(&self) -> Result<(), StorageError> {
        self.sqlite_file().map_or(Ok(()), |file| file.check())
    }

    /// Whether the database answers, was ever migrated, and can be written to, by what it says and by what calls
    /// saw; where these wrote nothing to an SQLite file lately, something is written. Asked on a connection of its own,
    /// so a full pool is no bad health; nor is a server that has no room for that connection while calls are
    /// served.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong.
    pub async fn probe(&self) -> Result<(), StorageError> {
        self.check_file()?;
        self.begin_write_trial();
        let reachability = &self.0.reachability;
        let mut conn = Conn(match &self.0.pools {
            Pools::Postgres(pools) => {
                let loan = match enter_and_loan(&pools.probe, Lane::Operators, Party::System).await {
                    Err(_) if reachability.has_answered_lately() => return reachability.require_writes(),
                    Err(_) => enter_and_loan(pools.of(Lane::Reads), Lane::Reads, Party::System).await?,
                    Ok(loan) => loan,
                };
                Backend::postgres(loan)
            }
            Pools::Sqlite(pools) => {
                Backend::Sqlite(enter_and_loan(&pools.probe, Lane::Operators, Party::System).await?)
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
        if let Pools::Sqlite(_) = &self.0.pools
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
        if let Pools::Sqlite(_) = &self.0.pools {
            let mut conn = self.permit(Lane::Operators, Party::System).await?.connect().await?;
            query!(conn,
                postgres: |_c| async { Ok(()) },
                sqlite: |c| c.spawn_blocking(write_page)
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
            Pools::Postgres(pools) => pools.usage(),
            Pools::Sqlite(pools) => pools.usage(),
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
            Pools::Postgres(pools) => pools.close().await,
            Pools::Sqlite(pools) => pools.close().await,
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
