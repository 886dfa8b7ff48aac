//! SQLite connections: how a file is opened, and what every connection to it is told first.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use diesel::connection::{Connection, SimpleConnection};
use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{QueryResult, SqliteConnection};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::error::StorageError;
use super::query_log::QueryLog;

/// What stands for itself in the path of a URI, besides letters and digits.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The one connection of this process that writes.
    Write,
    /// One of several that read, beside each other and beside the writer.
    Read,
}

/// SQLite's words for SQLITE_BUSY.
const LOCKED: &str = "database is locked";

/// How long a connection waits for the lock of another process: the command line, a backup.
const BUSY_TIMEOUT_MILLIS: u32 = 5_000;

/// What the log is cut to, in bytes, when it grew while somebody read for long and is then begun anew.
const MAX_IDLE_LOG: u32 = 64 * 1024 * 1024;

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

/// Creates the file if there is none, and opens it for writing. Only for migrations: anywhere else, a missing
/// file is one that was moved or deleted.
///
/// # Errors
/// As [`open`].
pub(super) fn create(path: &Path) -> Result<SqliteConnection, StorageError> {
    create_private(path).map_err(|error| cannot_open(path, &error))?;
    let until = Instant::now() + Duration::from_millis(BUSY_TIMEOUT_MILLIS.into());
    loop {
        match open(path, Access::Write) {
            // SQLite itself waits for no lock when it switches a new file to WAL.
            Err(StorageError::Unavailable(cause)) if cause.ends_with(LOCKED) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Opens the file, which has to exist and to be writable: readers too write into what lies beside it.
///
/// WAL lets readers and the writer work beside each other; `synchronous=FULL` makes a commit wait
/// until it is on disk, so that what was acknowledged survives a loss of power.
///
/// # Errors
/// [`StorageError::Unavailable`] with the words of the system or of SQLite: no such file, no permission, not
/// a database, disk full.
pub(super) fn open(path: &Path, access: Access) -> Result<SqliteConnection, StorageError> {
    use rustix::fs::Access as Permission;

    let unavailable = |error: &dyn Display| cannot_open(path, error);
    // SQLite itself would open a file that may not be written for reading, and say so at the first write.
    rustix::fs::access(path, Permission::READ_OK).map_err(|error| unavailable(&io::Error::from(error)))?;
    rustix::fs::access(path, Permission::WRITE_OK)
        .map_err(|error| unavailable(&format_args!("it cannot be written to: {}", io::Error::from(error))))?;
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
             PRAGMA journal_size_limit = {MAX_IDLE_LOG};
             PRAGMA cache_size = -{};
             PRAGMA query_only = {};",
            cache_kib(access),
            if access == Access::Read { "ON" } else { "OFF" },
        ))
        .map_err(|error| match require_writable_folder(path) {
            Ok(()) => unavailable(&error),
            Err(reason) => unavailable(&reason),
        })?;
    connection.set_instrumentation(QueryLog);
    Ok(connection)
}

/// Writes a page of the file and waits until it is on disk, as every commit does. The page is the first one, with
/// the number that SQLite leaves to applications, which stays what it is.
pub(super) fn write_page(connection: &mut SqliteConnection) -> QueryResult<()> {
    connection.immediate_transaction(|connection| {
        let version = sql::<Integer>("SELECT user_version FROM pragma_user_version");
        let version: i32 = diesel::RunQueryDsl::get_result(version, connection)?;
        connection.batch_execute(&format!("PRAGMA user_version = {version}"))
    })
}

/// Tells why SQLite cannot put its log beside the file, which it says of no folder.
fn require_writable_folder(path: &Path) -> Result<(), String> {
    use rustix::fs::Access as Permission;

    // It follows links, and puts the log beside the file that they lead to.
    let Ok(real) = std::fs::canonicalize(path) else { return Ok(()) };
    let Some(folder) = real.parent() else { return Ok(()) };
    rustix::fs::access(folder, Permission::WRITE_OK | Permission::EXEC_OK).map_err(|error| {
        format!("its folder {} cannot be written to: {}", folder.display(), io::Error::from(error))
    })
}

fn cannot_open(path: &Path, error: &dyn Display) -> StorageError {
    StorageError::Unavailable(format!("cannot open the SQLite file {}: {error}", path.display()))
}

/// Makes the file, when there is none, readable by its owner only: it holds password hashes. SQLite
/// gives its WAL the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The path as one of SQLite's URIs, which alone can say that no file is to be made.
fn uri(path: &Path) -> String {
    // An empty host, so that a path that starts with two slashes names none.
    let start = if path.is_absolute() { "file://" } else { "file:" };
    format!("{start}{}?mode=rw", percent_encode(path.as_os_str().as_encoded_bytes(), IN_PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_for_reading_reads_and_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.db");
        let mut writer = create(&path).unwrap();
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
    fn what_is_written_to_try_the_file_grows_the_log_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.db");
        let mut connection = create(&path).unwrap();
        connection.batch_execute("PRAGMA user_version = 7").unwrap();
        let log = || std::fs::metadata(folder.path().join("identity.db-wal")).unwrap().len();
        let before = log();
        write_page(&mut connection).unwrap();
        assert!(log() > before);
        let version = sql::<Integer>("SELECT user_version FROM pragma_user_version");
        assert_eq!(diesel::RunQueryDsl::get_result::<i32>(version, &mut connection), Ok(7));
    }

    #[test]
    fn only_a_migration_makes_a_file_and_it_has_the_name_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["identity.db", "a?mode=memory#b", "100%25 é", ":memory:", "file:x"] {
            let path = folder.path().join(name);
            for access in [Access::Write, Access::Read] {
                assert!(open(&path, access).is_err(), "{name}");
                assert!(!path.exists(), "{name}");
            }
            create(&path).unwrap().batch_execute("CREATE TABLE t (a INTEGER)").unwrap();
            open(&path, Access::Read).unwrap().batch_execute("SELECT a FROM t").unwrap();
            assert!(path.exists(), "{name}");
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_path_is_one_whatever_is_in_it() {
        for (path, expected) in [
            ("identity.db", "file:identity.db?mode=rw"),
            ("file:identity.db", "file:file%3Aidentity.db?mode=rw"),
            ("/var/lib/a b.db", "file:///var/lib/a%20b.db?mode=rw"),
            ("//host/a.db", "file:////host/a.db?mode=rw"),
            ("a?b#c%d", "file:a%3Fb%23c%25d?mode=rw"),
        ] {
            assert_eq!(uri(Path::new(path)), expected);
        }
    }

    #[test]
    fn every_connection_enforces_foreign_keys_and_waits_for_the_disk() {
        use diesel::sql_types::BigInt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.db");
        create(&path).unwrap();
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
