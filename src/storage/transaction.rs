//! Units of work: what is written together or not at all.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::connection::AnsiTransactionManager as SyncTransactionManager;
use diesel::sql_query;
use diesel_async::{AsyncConnection, RunQueryDsl as _, SimpleAsyncConnection as _, TransactionManager as _};

use super::connection::{AsyncSqliteConnection, Backend, Conn};
use super::error::StorageError;
use super::pipeline::{self, PostgresConn};
use super::prepared::Prepared;
use super::sqlite_file::SqliteFile;

/// What diesel knows of a transaction on SQLite. On PostgreSQL it knows of none: see [`PostgresConn::begin`].
type SqliteTransactions = <AsyncSqliteConnection as AsyncConnection>::TransactionManager;

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
        match &mut conn.0 {
            Backend::Postgres(conn) => conn.begin("BEGIN"),
            Backend::Sqlite(loan) => {
                let (c, limits) = loan.parts();
                let begin =
                    c.spawn_blocking(|c| SyncTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"));
                limits.hold(begin).await?;
            }
        }
        Ok(Self { conn: Some(conn), name, has_events: false, file })
    }

    /// Opens a transaction that sees one moment, writes nothing, and may wait between two statements for
    /// as long as it takes.
    pub(super) async fn begin_snapshot(mut conn: Conn, name: &'static str) -> Result<Self, StorageError> {
        match &mut conn.0 {
            Backend::Postgres(conn) => conn.begin(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL idle_in_transaction_session_timeout = 0",
            ),
            // The moment is that of the first statement; the connection is one that cannot write.
            Backend::Sqlite(loan) => {
                let (c, limits) = loan.parts();
                limits.hold(SqliteTransactions::begin_transaction(c)).await?;
            }
        }
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

    /// Keeps what was written. What was kept back is sent along.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the connection was lost before the database answered, or SQLite's
    /// file was moved or deleted: whether the writes were kept is then unknown. [`StorageError::Refused`] when one of its
    /// statements had failed, or when it breaks a rule that is checked at the end; nothing is kept.
    pub async fn commit(self) -> Result<(), StorageError> {
        self.commit_and_go_on().await.map(drop)
    }

    /// As [`Tx::commit`]; returns the connection, so that the caller can read what others have written.
    ///
    /// # Errors
    /// As there.
    pub async fn commit_and_go_on(mut self) -> Result<Conn, StorageError> {
        // PostgreSQL would answer such a COMMIT as if it had kept the writes; SQLite would keep all
        // but the failed one.
        if self.has_failed() {
            return Err(StorageError::Refused(format!(
                "the unit of work {:?} cannot be kept: one of its statements failed",
                self.name
            )));
        }
        self.check_file()?;
        let mut conn =
            self.conn.take().ok_or_else(|| StorageError::Refused("there is no connection".into()))?;
        match &mut conn.0 {
            Backend::Postgres(postgres) => {
                if let Err(error) = postgres.commit().await {
                    // To be rolled back, so that the connection serves on.
                    self.conn = Some(conn);
                    return Err(error);
                }
            }
            Backend::Sqlite(loan) => {
                let (c, limits) = loan.parts();
                limits.hold(SqliteTransactions::commit_transaction(c)).await?;
            }
        }
        // Where the file went away meanwhile, what was committed went with it.
        self.check_file()?;
        if self.has_events {
            conn.note_written();
        }
        tracing::trace!(unit = self.name, "unit of work committed");
        Ok(conn)
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
                if let Err(error) = roll_back(&mut conn).await {
                    tracing::debug!(unit, error = %error, "a connection was closed instead of rolled back");
                }
            });
        }
    }
}

impl PostgresConn {
    /// Opens a transaction with the next statement.
    ///
    /// Diesel's own transactions wait for the answer to BEGIN, and so do not know of this one. The pool does, and
    /// gives no connection away on which one is open.
    fn begin(&mut self, begin: &'static str) {
        self.loan_mut().set_in_transaction(true);
        self.keep_back(pipeline::statement(move |mut c| {
            Box::pin(async move { c.batch_execute(begin).await })
        }));
    }

    /// Ends the transaction together with what was kept back.
    async fn commit(&mut self) -> Result<(), StorageError> {
        let (mut c, unsent, limits) = self.parts();
        let commit = Prepared(sql_query("COMMIT")).execute(&mut c);
        pipeline::run(limits, c, unsent, commit).await?;
        self.loan_mut().set_in_transaction(false);
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), StorageError> {
        self.discard_unsent();
        // Or else the server knows of no transaction.
        if self.has_sent() {
            let (mut c, _, limits) = self.parts();
            limits.hold(c.batch_execute("ROLLBACK")).await?;
        }
        self.loan_mut().set_in_transaction(false);
        Ok(())
    }
}

async fn roll_back(conn: &mut Conn) -> Result<(), StorageError> {
    match &mut conn.0 {
        Backend::Postgres(conn) => conn.roll_back().await,
        Backend::Sqlite(loan) => {
            let (c, limits) = loan.parts();
            limits.hold(SqliteTransactions::rollback_transaction(c)).await
        }
    }
}
