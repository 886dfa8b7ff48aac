//! One connection of either database, and the macro that lets a query be written once for both.

use std::time::Duration;

use diesel::{OptionalExtension as _, QueryResult, SqliteConnection};
use diesel_async::AsyncPgConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use super::blocking::BlockingThreads;
use super::connection_pool::Loan;
use super::error::StorageError;
use super::pipeline::{self, PostgresConn};

/// SQLite behind diesel-async's interface: each statement runs on a thread where it may block.
pub(super) type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection, BlockingThreads>;

/// A connection on loan from a pool; returned when dropped.
pub struct Conn(pub(super) Backend);

/// Which database it is.
pub(super) enum Backend {
    Postgres(Box<PostgresConn>),
    Sqlite(Loan<AsyncSqliteConnection>),
}

impl Backend {
    pub(super) fn postgres(loan: Loan<AsyncPgConnection>) -> Self {
        Self::Postgres(Box::new(PostgresConn::new(loan)))
    }
}

impl Conn {
    /// Whether a statement failed, or was given up, since the connection was lent.
    pub(super) fn has_failed(&self) -> bool {
        match &self.0 {
            Backend::Postgres(conn) => conn.loan().has_failed(),
            Backend::Sqlite(loan) => loan.has_failed(),
        }
    }

    /// Notes that something was written.
    pub(super) fn note_written(&self) {
        match &self.0 {
            Backend::Postgres(conn) => conn.loan().note_written(),
            Backend::Sqlite(loan) => loan.note_written(),
        }
    }

    /// Sends what was kept back, and waits for the answers.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn flush(&mut self) -> Result<(), StorageError> {
        let Backend::Postgres(conn) = &mut self.0 else { return Ok(()) };
        if !conn.has_unsent() {
            return Ok(());
        }
        let (connection, unsent, limits) = conn.parts();
        pipeline::run(limits, connection, unsent, std::future::ready(Ok(()))).await
    }

    /// Has a connection to a server closed rather than used again when it is older than `age`.
    pub(super) fn retire_after(&mut self, age: Duration) {
        match &mut self.0 {
            Backend::Postgres(conn) => conn.loan_mut().retire_after(age),
            Backend::Sqlite(_) => {}
        }
    }
}

/// Runs one diesel query on a [`Conn`] of either database: `query!(conn, |c| users::table.load(c))`.
///
/// The body is compiled once per database. Where the two need different SQL, name both:
/// `query!(conn, postgres: |c| …, sqlite: |c| …)`. The result is a `Result<_, StorageError>`. What was kept
/// back is sent along, and fails the query where it fails.
macro_rules! query {
    ($conn:expr, |$c:ident| $body:expr) => {
        $crate::storage::connection::query!($conn, postgres: |$c| $body, sqlite: |$c| $body)
    };
    ($conn:expr, postgres: |$p:ident| $postgres:expr, sqlite: |$s:ident| $sqlite:expr) => {
        match &mut $conn.0 {
            $crate::storage::connection::Backend::Postgres(conn) => {
                let (connection, unsent, limits) = conn.parts();
                let mut shared = connection;
                let $p = &mut shared;
                $crate::storage::pipeline::run(limits, connection, unsent, $postgres).await
            }
            $crate::storage::connection::Backend::Sqlite(loan) => {
                let ($s, limits) = loan.parts();
                limits.hold($sqlite).await
            }
        }
    };
}
pub(super) use query;

/// Runs one query whose result nobody needs: on PostgreSQL it is kept back and sent with the next one that is
/// waited for, on SQLite it runs at once. The body owns its values: it may run later.
///
/// The result is a `Result<(), StorageError>`. A failure is that of the query that it is sent with.
macro_rules! later {
    ($conn:expr, |$c:ident| $body:expr) => {
        $crate::storage::connection::later!($conn, postgres: |$c| $body, sqlite: |$c| $body)
    };
    ($conn:expr, postgres: |$p:ident| $postgres:expr, sqlite: |$s:ident| $sqlite:expr) => {
        match &mut $conn.0 {
            $crate::storage::connection::Backend::Postgres(conn) => {
                conn.keep_back($crate::storage::pipeline::statement(move |mut shared| {
                    Box::pin(async move {
                        let $p = &mut shared;
                        $postgres.await.map(drop)
                    })
                }));
                Ok(())
            }
            $crate::storage::connection::Backend::Sqlite(loan) => {
                let ($s, limits) = loan.parts();
                limits.hold($sqlite).await.map(drop)
            }
        }
    };
}
pub(super) use later;

/// Runs one query whose result is needed, but not yet. It is kept back as by [`later!`]. The closure `then`
/// converts what the query returns into a `Result<_, StorageError>`; the macro returns a
/// `Result<Answer<_>, StorageError>`.
macro_rules! ask {
    ($conn:expr, |$c:ident| $body:expr, then: $then:expr) => {
        $crate::storage::connection::ask!($conn, postgres: |$c| $body, sqlite: |$c| $body, then: $then)
    };
    ($conn:expr, postgres: |$p:ident| $postgres:expr, sqlite: |$s:ident| $sqlite:expr, then: $then:expr) => {{
        let (sender, answer) = $crate::storage::pipeline::Answer::channel();
        let then = $then;
        // Sending fails where the answer was dropped, because nobody needs it any more.
        let asked = match &mut $conn.0 {
            $crate::storage::connection::Backend::Postgres(conn) => {
                conn.keep_back($crate::storage::pipeline::statement(move |mut shared| {
                    Box::pin(async move {
                        let $p = &mut shared;
                        drop(sender.send(then($postgres.await?)));
                        Ok(())
                    })
                }));
                Ok(())
            }
            $crate::storage::connection::Backend::Sqlite(loan) => {
                let ($s, limits) = loan.parts();
                limits.hold($sqlite).await.map(|found| drop(sender.send(then(found))))
            }
        };
        asked.map(|()| answer)
    }};
}
pub(super) use ask;

/// The row that `query` returns, or `None` when it returns none.
pub(super) async fn optional<T>(query: impl Future<Output = QueryResult<T>>) -> QueryResult<Option<T>> {
    query.await.optional()
}
