//! SQL from outside: another connection to a test's database, which storage knows nothing of.

use diesel::connection::{Connection as _, SimpleConnection as _};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use tokio::task::block_in_place;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::service::TestDatabase;

/// A connection to either database.
pub(crate) enum Outside {
    Sqlite(Box<SqliteConnection>),
    Postgres(tokio_postgres::Client),
}

/// Why a statement was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Whether the row, and not the statement, was to blame.
    pub(crate) is_violation: bool,
    /// PostgreSQL: the constraint's name, or the column that may not be NULL. SQLite: its message.
    pub(crate) rule: String,
}

#[derive(QueryableByName)]
struct Cell {
    #[diesel(sql_type = Text)]
    cell: String,
}

impl Outside {
    pub(crate) async fn connect(database: &TestDatabase) -> Self {
        if let Some(path) = database.parsed().sqlite_path() {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON").unwrap();
            return Self::Sqlite(Box::new(connection));
        }
        let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Self::Postgres(client)
    }

    /// Runs statements that may be refused.
    pub(crate) async fn try_run(&mut self, sql: &str) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(connection) => block_in_place(|| connection.batch_execute(sql)).map_err(|error| {
                let DieselError::DatabaseError(kind, information) = error else { panic!("{sql}: {error}") };
                // A trigger may say so in the same words: see `audit_events_stay_together`.
                let is_violation = information.message().starts_with("UNIQUE constraint failed")
                    || matches!(
                        kind,
                        DatabaseErrorKind::UniqueViolation
                            | DatabaseErrorKind::ForeignKeyViolation
                            | DatabaseErrorKind::NotNullViolation
                            | DatabaseErrorKind::CheckViolation
                    );
                Refusal { is_violation, rule: information.message().to_owned() }
            }),
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(|error| {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
                let rule = error.constraint().or(error.column()).unwrap_or(error.message());
                Refusal {
                    // Class 23: integrity constraint violation (PostgreSQL, appendix A).
                    is_violation: error.code().code().starts_with("23"),
                    rule: rule.to_owned(),
                }
            }),
        }
    }

    /// Lets this connection write words into a table that a newer version of the service may know.
    pub(crate) async fn without_word_checks(&mut self) {
        match self {
            Self::Sqlite(_) => self.run("PRAGMA ignore_check_constraints = ON").await,
            Self::Postgres(_) => {
                self.run(
                    "ALTER TABLE users DROP CONSTRAINT users_role_check, DROP CONSTRAINT users_state_check;
                     ALTER TABLE passwords DROP CONSTRAINT passwords_scheme_check;
                     ALTER TABLE audit_events DROP CONSTRAINT audit_events_actor_kind_check",
                )
                .await;
            }
        }
    }

    /// Runs statements.
    pub(crate) async fn run(&mut self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
    }

    /// The texts in the one column, named `cell`, of a query.
    pub(crate) async fn texts(&mut self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => {
                let cells: Vec<Cell> = block_in_place(|| sql_query(sql).load(&mut **connection))
                    .unwrap_or_else(|error| panic!("{sql}: {error}"));
                cells.into_iter().map(|cell| cell.cell).collect()
            }
            Self::Postgres(client) => {
                let messages =
                    client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let rows = messages.into_iter().filter_map(|message| {
                    let SimpleQueryMessage::Row(row) = message else { return None };
                    Some(row.get(0).unwrap().to_owned())
                });
                rows.collect()
            }
        }
    }

    /// How many rows a table has.
    pub(crate) async fn count(&mut self, table: &str) -> usize {
        let counted = self.texts(&format!("SELECT CAST(count(*) AS text) AS cell FROM {table}")).await;
        counted[0].parse().unwrap()
    }
}
