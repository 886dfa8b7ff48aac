//! One connection of either database, and the macro that lets a query be written once for both.

use std::time::Duration;

use diesel::{OptionalExtension as _, QueryResult, SqliteConnection};
use diesel_async::AsyncPgConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use super::blocking::BlockingThreads;
use super::link::Loan;

/// SQLite behind diesel-async's interface: each statement runs on a thread where it may block.
pub(super) type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection, BlockingThreads>;

/// A connection on loan from a pool; returned when dropped.
pub struct Conn(pub(super) Backend);

/// Which database it is.
pub(super) enum Backend {
    Postgres(Box<Loan<AsyncPgConnection>>),
    Sqlite(Loan<AsyncSqliteConnection>),
}

impl Conn {
    /// Whether a statement failed, or was given up, since the connection was lent.
    pub(super) fn has_failed(&self) -> bool {
        match &self.0 {
            Backend::Postgres(loan) => loan.has_failed(),
            Backend::Sqlite(loan) => loan.has_failed(),
        }
    }

    /// Notes that something was written.
    pub(super) fn note_written(&self) {
        match &self.0 {
            Backend::Postgres(loan) => loan.note_written(),
            Backend::Sqlite(loan) => loan.note_written(),
        }
    }

    /// Has a connection to a server closed rather than used again when it is older than `age`.
    pub(super) fn retire_after(&mut self, age: Duration) {
        match &mut self.0 {
            Backend::Postgres(loan) => loan.retire_after(age),
            Backend::Sqlite(_) => {}
        }
    }
}

/// Runs one diesel query on a [`Conn`] of either database: `query!(conn, |c| users::table.load(c))`.
///
/// The body is compiled once per database. Where the two need different SQL, name both:
/// `query!(conn, postgres: |c| …, sqlite: |c| …)`. The result is a `Result<_, StorageError>`.
macro_rules! query {
    ($conn:expr, |$c:ident| $body:expr) => {
        $crate::storage::connection::query!($conn, postgres: |$c| $body, sqlite: |$c| $body)
    };
    ($conn:expr, postgres: |$p:ident| $postgres:expr, sqlite: |$s:ident| $sqlite:expr) => {
        match &mut $conn.0 {
            $crate::storage::connection::Backend::Postgres(loan) => {
                let ($p, limits) = loan.parts();
                limits.hold($postgres).await
            }
            $crate::storage::connection::Backend::Sqlite(loan) => {
                let ($s, limits) = loan.parts();
                limits.hold($sqlite).await
            }
        }
    };
}
pub(super) use query;

/// The row that `query` returns, or `None` when it returns none.
pub(super) async fn optional<T>(query: impl Future<Output = QueryResult<T>>) -> QueryResult<Option<T>> {
    query.await.optional()
}
