//! SQLite connections: how a file is opened, and what every connection to it is told first.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use diesel::SqliteConnection;
use diesel::connection::{Connection, SimpleConnection};

use super::error::StorageError;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The one connection of this process that writes.
    Write,
    /// One of several that read, beside each other and beside the writer.
    Read,
}

/// How long a connection waits for the lock of another process: the command line, a backup.
const BUSY_TIMEOUT_MILLIS: u32 = 5_000;

/// Pages of 4 KiB kept by each connection: 2 MiB for the writer, 1 MiB for a reader. The operating
/// system caches the file besides.
const fn cache_kib(access: Access) -> u32 {
    match access {
        Access::Write => 2_048,
        Access::Read => 1_024,
    }
}

/// Told to a connection that writes rows by the million. 64 MiB of pages, so that those which a batch
/// touches are in memory; a log of 256 MiB before it is written back, since the same pages are written again
/// and again; and no waiting for the disk with each commit, but only before the log is written back, which
/// keeps the file whole whatever happens.
pub(super) const BULK: &str =
    "PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 65536; PRAGMA synchronous = NORMAL;";

/// Told to it at the end: the next commit waits until all before it are on disk as well.
pub(super) const BULK_END: &str = "PRAGMA synchronous = FULL;";

/// Opens the file, and creates it when it does not exist.
///
/// WAL lets readers and the writer work beside each other; `synchronous=FULL` makes a commit wait
/// until it is on disk, so that what was acknowledged survives a loss of power.
///
/// # Errors
/// [`StorageError::Unavailable`] with SQLite's own words: no such folder, no permission, not a
/// database, disk full.
pub(super) fn open(path: &Path, access: Access) -> Result<SqliteConnection, StorageError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        StorageError::Unavailable(format!("cannot open the SQLite file {}: {error}", path.display()))
    };
    create_private(path).map_err(|error| unavailable(&error))?;
    let mut connection = SqliteConnection::establish(&uri(path)).map_err(|error| unavailable(&error))?;
    // The busy timeout comes first: the switch to WAL itself needs a lock.
    connection
        .batch_execute(&format!(
            "PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLIS};
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -{};
             PRAGMA query_only = {};",
            cache_kib(access),
            if access == Access::Read { "ON" } else { "OFF" },
        ))
        .map_err(|error| unavailable(&error))?;
    super::pool::instrument(|instrumentation| connection.set_instrumentation(instrumentation));
    Ok(connection)
}

/// Makes the file, when there is none, readable by its owner only: it holds password hashes. SQLite
/// gives its WAL the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// [`open`] from asynchronous code.
pub(super) async fn connect(path: PathBuf, access: Access) -> Result<SqliteConnection, StorageError> {
    tokio::task::spawn_blocking(move || open(&path, access))
        .await
        .map_err(|error| StorageError::Unavailable(error.to_string()))?
}

/// The path as SQLite reads it. A name that starts with `file:` or holds a colon first would be
/// taken for a URI or for memory; a leading `./` keeps it a path.
fn uri(path: &Path) -> String {
    let text = path.to_string_lossy();
    if path.is_absolute() || text.starts_with("./") || text.starts_with("../") {
        text.into_owned()
    } else {
        format!("./{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_for_reading_reads_and_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.db");
        let mut writer = open(&path, Access::Write).unwrap();
        writer.batch_execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)").unwrap();
        let mut reader = open(&path, Access::Read).unwrap();
        reader.batch_execute("SELECT a FROM t").unwrap();
        for sql in ["INSERT INTO t VALUES (2)", "DELETE FROM t", "DROP TABLE t", "CREATE TABLE u (a INTEGER)"]
        {
            let refused = reader.batch_execute(sql).unwrap_err();
            assert_eq!(refused.to_string(), "attempt to write a readonly database", "{sql}");
        }
        writer.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    }

    #[test]
    fn every_connection_enforces_foreign_keys_and_waits_for_the_disk() {
        use diesel::dsl::sql;
        use diesel::sql_types::BigInt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.db");
        for access in [Access::Write, Access::Read] {
            let mut connection = open(&path, access).unwrap();
            // 2 is FULL.
            for (pragma, expected) in [("foreign_keys", 1), ("synchronous", 2), ("trusted_schema", 0)] {
                let query = sql::<BigInt>(&format!("SELECT * FROM pragma_{pragma}"));
                let value: i64 = diesel::RunQueryDsl::get_result(query, &mut connection).unwrap();
                assert_eq!(value, expected, "{pragma} of {access:?}");
            }
        }
    }
}
