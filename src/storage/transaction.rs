//! Units of work: what is written together or not at all.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::AnsiTransactionManager as SyncTransactionManager;
use diesel_async::{AnsiTransactionManager, AsyncConnection, SimpleAsyncConnection, TransactionManager};

use super::connection::{Conn, query};
use super::error::StorageError;
use super::sqlite_file::SqliteFile;

async fn begin<C: AsyncConnection>(connection: &mut C) -> QueryResult<()> {
    C::TransactionManager::begin_transaction(connection).await
}

async fn commit<C: AsyncConnection>(connection: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(connection).await
}

async fn roll_back<C: AsyncConnection>(connection: &mut C) -> QueryResult<()> {
    C::TransactionManager::rollback_transaction(connection).await
}

/// A transaction. Queries run on it as on a [`Conn`]; nothing they write is kept unless
/// [`Tx::commit`] returned `Ok`. Dropping it rolls back.
///
/// PostgreSQL's is READ COMMITTED. SQLite's takes the write lock at once (`BEGIN IMMEDIATE`).
///
/// A caller that may go away must not own a `Tx`: run the unit in a task of its own, or the write
/// stops where the caller left.
pub struct Tx {
    // Empty only after commit.
    conn: Option<Conn>,
    name: &'static str,
    has_events: bool,
    /// SQLite's file, in which the writes have to be found afterwards.
    file: Option<Arc<SqliteFile>>,
}

impl Tx {
    /// Opens a transaction; `file` is SQLite's, which the connection leads to.
    pub(super) async fn begin(
        mut conn: Conn,
        name: &'static str,
        file: Option<Arc<SqliteFile>>,
    ) -> Result<Self, StorageError> {
        query!(conn,
            postgres: |c| begin(c),
            sqlite: |c| c.spawn_blocking(|c| SyncTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"))
        )?;
        Ok(Self { conn: Some(conn), name, has_events: false, file })
    }

    /// Opens a transaction that sees one moment, writes nothing, and may wait between two statements for
    /// as long as it takes.
    pub(super) async fn begin_snapshot(mut conn: Conn, name: &'static str) -> Result<Self, StorageError> {
        query!(conn,
            postgres: |c| async {
                const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                AnsiTransactionManager::begin_transaction_sql(c, BEGIN).await?;
                c.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0").await
            },
            // The moment is that of the first statement; the connection is one that cannot write.
            sqlite: |c| begin(c)
        )?;
        Ok(Self { conn: Some(conn), name, has_events: false, file: None })
    }

    /// Notes that an audit event was written.
    pub(super) fn note_event(&mut self) {
        self.has_events = true;
    }

    /// Whether an audit event was written, as everything that changes something does.
    pub fn has_events(&self) -> bool {
        self.has_events
    }

    /// Keeps what was written.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the connection was lost before the database answered, or SQLite's
    /// file was moved or deleted: whether the writes were kept is then unknown. [`StorageError::Refused`] when one of its
    /// statements had failed, or when it breaks a rule that is checked at the end; nothing is kept.
    pub async fn commit(mut self) -> Result<(), StorageError> {
        // PostgreSQL would answer such a COMMIT as if it had kept the writes; SQLite would keep all
        // but the failed one.
        if self.has_failed() {
            return Err(StorageError::Refused(format!(
                "the unit of work {:?} cannot be kept: one of its statements failed",
                self.name
            )));
        }
        self.check_file()?;
        let Some(mut conn) = self.conn.take() else { return Ok(()) };
        query!(conn, |c| commit(c))?;
        // Where the file went away meanwhile, what was committed went with it.
        self.check_file()?;
        if self.has_events {
            conn.note_written();
        }
        tracing::trace!(unit = self.name, "unit of work committed");
        Ok(())
    }

    fn check_file(&self) -> Result<(), StorageError> {
        self.file.as_ref().map_or(Ok(()), |file| file.check())
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("only commit takes the connection, and it takes the transaction too")
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("only commit takes the connection, and it takes the transaction too")
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        let unit = self.name;
        // Without a runtime the connection is dropped as it is, which ends the transaction too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = query!(conn, |c| roll_back(c)) {
                    tracing::debug!(unit, error = %error, "a connection was closed instead of rolled back");
                }
            });
        }
    }
}
