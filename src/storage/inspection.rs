//! Whether a database that answers is one that this program can work with.

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::query_builder::AsQuery as _;
use diesel::sql_types::{Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::connection::{Backend, Conn, query};
use super::error::StorageError;
use super::postgres::Connector;
use super::schema;

/// What a database that this program can work with has and this program has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The versions of the migrations that this program does not know: those of a newer release.
    pub unknown: Vec<String>,
    /// The names of the migrations that were edited after the database ran them.
    pub edited: Vec<String>,
}

/// What the service does with each table on PostgreSQL, reading aside. To lock a row is to update it.
const PRIVILEGES: &[(&str, &[&str])] = &[
    ("tenants", &["INSERT", "UPDATE", "DELETE"]),
    ("users", &["INSERT", "UPDATE", "DELETE"]),
    ("login_names", &["INSERT", "UPDATE", "DELETE"]),
    ("passwords", &["INSERT", "UPDATE", "DELETE"]),
    ("sessions", &["INSERT", "UPDATE", "DELETE"]),
    ("request_outcomes", &["INSERT", "UPDATE", "DELETE"]),
    ("signing_keys", &["INSERT", "UPDATE", "DELETE"]),
    ("service_tokens", &["INSERT", "UPDATE"]),
    ("attempts", &["INSERT", "UPDATE", "DELETE"]),
    ("audit_events", &["INSERT", "DELETE"]),
    ("audit_cutoffs", &["INSERT", "UPDATE"]),
    ("imported_costs", &["INSERT", "UPDATE"]),
];

/// A query for each of the tables that names all of its columns, and returns no row.
macro_rules! selections {
    ($database:ty: $($table:ident),* $(,)?) => {
        [$(diesel::debug_query::<$database, _>(&schema::$table::table.as_query()).to_string()),*].map(|text| {
            // What follows the mark are the values, of which there are none.
            let sql = text.split(" -- binds:").next().unwrap_or_default();
            format!("{sql} LIMIT 0")
        })
    };
    ($database:ty) => {
        selections!(
            $database: tenants, all_tenants, users, login_names, passwords, sessions, request_outcomes,
            signing_keys, service_tokens, attempts, audit_events, audit_cutoffs, imported_costs,
            __diesel_schema_migrations,
        )
    };
}

/// Refuses a pooler that lends out connections for one transaction or statement at a time.
pub(super) async fn require_own_backends(connector: &Connector) -> Result<(), StorageError> {
    if connector.shares_backends().await? {
        return Err(StorageError::Unsuitable(
            "a pooler in front of PostgreSQL lends connections for single transactions or statements: set its \
             pool_mode to session, or let DATABASE_URL lead to PostgreSQL itself"
                .into(),
        ));
    }
    Ok(())
}

/// Refuses a database that cannot store every text.
pub(super) async fn require_encoding(conn: &mut Conn) -> Result<(), StorageError> {
    let encoding: String = query!(conn,
        postgres: |c| diesel::select(sql::<Text>("current_setting('server_encoding')")).get_result(c),
        // SQLite knows no other.
        sqlite: |_c| async { Ok("UTF8".to_owned()) }
    )?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(StorageError::Unsuitable(format!(
        "the encoding of the database is {encoding} and must be UTF8: \
         create another one with ENCODING 'UTF8' TEMPLATE template0"
    )))
}

/// Refuses a database that lacks a table or a column.
pub(super) async fn require_columns(conn: &mut Conn) -> Result<(), StorageError> {
    let queries = match &conn.0 {
        Backend::Postgres(_) => selections!(Pg),
        Backend::Sqlite(_) => selections!(Sqlite),
    };
    for query in queries {
        let outcome: Result<(), StorageError> = query!(conn, |c| c.batch_execute(&query));
        outcome.map_err(|error| match error {
            StorageError::Refused(cause) => {
                StorageError::Unsuitable(format!("the schema of the database is not this program's: {cause}"))
            }
            StorageError::Unavailable(_)
            | StorageError::Stale(_)
            | StorageError::Busy { .. }
            | StorageError::Corrupt(_)
            | StorageError::Unsuitable(_) => error,
        })?;
    }
    Ok(())
}

/// Refuses a role that may not do all that the service does.
pub(super) async fn require_privileges(conn: &mut Conn) -> Result<(), StorageError> {
    let needed = PRIVILEGES
        .iter()
        .flat_map(|(table, privileges)| privileges.iter().map(move |privilege| (table, privilege)))
        .map(|(table, privilege)| format!("('{table}', '{privilege}')"));
    let missing = format!(
        "(SELECT string_agg(privilege || ' on ' || name, ', ') \
          FROM (VALUES {}) AS needed (name, privilege) WHERE NOT has_table_privilege(name, privilege))",
        needed.collect::<Vec<_>>().join(", ")
    );
    let missing: Option<String> = query!(conn,
        postgres: |c| diesel::select(sql::<Nullable<Text>>(&missing)).get_result(c),
        // A file has one owner.
        sqlite: |_c| async { Ok(None) }
    )?;
    match missing {
        None => Ok(()),
        Some(missing) => {
            Err(StorageError::Refused(format!("the database's role lacks privileges: grant it {missing}")))
        }
    }
}

/// Refuses a server that accepts no writes: a standby, or one that was told so.
pub(super) async fn require_writable(conn: &mut Conn) -> Result<(), StorageError> {
    let is_writable: bool = query!(conn,
        postgres: |c| diesel::select(sql::<Bool>("current_setting('transaction_read_only') = 'off'")).get_result(c),
        sqlite: |_c| async { Ok(true) }
    )?;
    if is_writable { Ok(()) } else { Err(StorageError::Unavailable("the database accepts no writes".into())) }
}
