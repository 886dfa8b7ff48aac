//! The file of an SQLite database while it is in use, and whether it is still where it was.
//!
//! SQLite goes on writing into a file that was moved, deleted or replaced, and into a write-ahead log that was
//! deleted: what it writes there, nobody will find again. So the names are compared with what was opened.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use diesel::SqliteConnection;
use diesel::connection::SimpleConnection as _;

use super::error::StorageError;
use super::sqlite::{self, Access};

/// What stands beside the file while it is open: the write-ahead log, and the index of it that connections
/// share.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The file of one database, from its first connection on.
pub(super) struct SqliteFile {
    path: PathBuf,
    opened: OnceLock<[Named; 3]>,
    /// A connection that does nothing. While it is open, SQLite keeps the companions that it found or made.
    anchor: Mutex<Option<SqliteConnection>>,
    /// Whether the last check failed.
    is_lost: AtomicBool,
}

/// A name, and the file that it stood for.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Named {
    fn of(path: PathBuf) -> io::Result<Self> {
        let found = std::fs::metadata(&path)?;
        Ok(Self { path, device: found.dev(), inode: found.ino() })
    }

    /// What has become of it, if it is not what it was.
    fn change(&self) -> Option<Change> {
        match Self::of(self.path.clone()) {
            Ok(found) if found == *self => None,
            Ok(_) => Some(Change::Replaced),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Change::Gone),
            Err(error) => Some(Change::Unreadable(error)),
        }
    }
}

enum Change {
    Gone,
    Replaced,
    Unreadable(io::Error),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("was moved or deleted"),
            Self::Replaced => f.write_str("was replaced by another file"),
            Self::Unreadable(error) => write!(f, "cannot be looked at: {error}"),
        }
    }
}

impl SqliteFile {
    /// The database at `path`, which is not opened yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new(), anchor: Mutex::new(None), is_lost: AtomicBool::new(false) }
    }

    /// Opens a connection to the file. It has to be there.
    ///
    /// # Errors
    /// As [`sqlite::open`] and [`SqliteFile::check`].
    pub(super) fn open(&self, access: Access) -> Result<SqliteConnection, StorageError> {
        self.hold()?;
        self.check()?;
        let connection = sqlite::open(&self.path, access)?;
        // What the name stands for now is what it stood for when the connection was opened.
        self.check()?;
        Ok(connection)
    }

    /// Looks whether the file and its companions are those that were opened. Nothing is wrong before that.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] says which one is not: it may be put back.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        let mut opened = self.opened.get().into_iter().flatten();
        let change = opened.find_map(|named| Some((named.path.display(), named.change()?)));
        self.is_lost.store(change.is_some(), Relaxed);
        match change {
            None => Ok(()),
            Some((name, change)) => Err(StorageError::Unavailable(format!(
                "the SQLite file {name} {change} while it was in use: put it back or restart the server"
            ))),
        }
    }

    /// As [`SqliteFile::check`], which looks only if the last look found something wrong. For reads, which lose
    /// nothing: the health probe looks every second.
    ///
    /// # Errors
    /// As [`SqliteFile::check`].
    pub(super) fn check_if_lost(&self) -> Result<(), StorageError> {
        if self.is_lost.load(Relaxed) { self.check() } else { Ok(()) }
    }

    /// How large the write-ahead log is, in bytes; nothing before the file was opened.
    pub(super) fn log_bytes(&self) -> u64 {
        let log = self.opened.get().map(|[_, log, _]| log);
        log.and_then(|log| std::fs::metadata(&log.path).ok()).map_or(0, |found| found.len())
    }

    /// Lets go of the companions, so that SQLite removes them with the last connection.
    pub(super) fn close(&self) {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Opens the file for the first time and notes what was opened.
    fn hold(&self) -> Result<(), StorageError> {
        // Held while opening, so that of several first connections one does this.
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if self.opened.get().is_some() {
            return Ok(());
        }
        let unavailable = |error: &dyn fmt::Display| {
            StorageError::Unavailable(format!("cannot open the SQLite file {}: {error}", self.path.display()))
        };
        // SQLite follows links too, and puts the companions beside the file that they lead to.
        let real = std::fs::canonicalize(&self.path).map_err(|error| unavailable(&error))?;
        let main = Named::of(self.path.clone()).map_err(|error| unavailable(&error))?;
        let mut connection = sqlite::open(&self.path, Access::Read)?;
        // The companions come with the first look into the file.
        connection
            .batch_execute("SELECT count(*) FROM sqlite_schema")
            .map_err(|error| unavailable(&error))?;
        let [log, index] = COMPANIONS.map(|suffix| Named::of(beside(&real, suffix)));
        let named =
            [main, log.map_err(|error| unavailable(&error))?, index.map_err(|error| unavailable(&error))?];
        if let Some(change) = named[0].change() {
            return Err(unavailable(&change));
        }
        *anchor = Some(connection);
        // Empty until now, by the lock.
        let _ = self.opened.set(named);
        Ok(())
    }
}

/// The file beside `path` whose name is longer by `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
