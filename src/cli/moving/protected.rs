//! The files that an import or an export must not write to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::cli::Misuse;
use crate::config::{Environment, Flags, master_key_file};
use crate::storage::DatabaseUrl;

/// What is kept beside an SQLite database: its own files, and the master key.
const BESIDE_DATABASE: [(&str, &str); 4] = [
    ("-wal", "a file of the database"),
    ("-shm", "a file of the database"),
    ("-journal", "a file of the database"),
    (".key", "the master key"),
];

/// Files that a command must not write to, whether they exist yet or not.
#[derive(Debug, Default)]
pub(in crate::cli) struct ProtectedFiles(Vec<Protected>);

#[derive(Debug)]
struct Protected {
    path: PathBuf,
    what: &'static str,
}

impl ProtectedFiles {
    /// The file of the master key, if a setting names one.
    pub(in crate::cli) fn of_settings(flags: &Flags, environment: &dyn Environment) -> Self {
        let mut protected = Self::default();
        if let Some(path) = master_key_file(flags, environment) {
            protected.add(path, "the master key");
        }
        protected
    }

    /// Adds the files of an SQLite database.
    pub(super) fn add_database(&mut self, url: &DatabaseUrl) {
        let Some(path) = url.sqlite_path() else { return };
        // SQLite puts its other files beside the one that a link leads to.
        let real = fs::canonicalize(path).ok();
        for path in [Some(path.to_owned()), real].into_iter().flatten() {
            for (ending, what) in BESIDE_DATABASE {
                let mut beside = path.clone().into_os_string();
                beside.push(ending);
                self.add(beside.into(), what);
            }
            self.add(path, "the database");
        }
    }

    /// Adds what a command reads.
    pub(super) fn add_input(&mut self, path: &Path) {
        let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
        self.add(path.to_owned(), "the input");
    }

    /// Adds what a command writes to already.
    pub(super) fn add_output(&mut self, path: &Path, what: &'static str) {
        self.add(output_path(path).to_owned(), what);
    }

    fn add(&mut self, path: PathBuf, what: &'static str) {
        self.0.push(Protected { path, what });
    }

    /// Checks that a command may write to `path`: it is none of these files, by whatever name or link.
    ///
    /// # Errors
    /// [`Misuse`] says which one it is.
    pub(super) fn check(&self, path: &Path) -> Result<(), Misuse> {
        let path = output_path(path);
        match self.0.iter().find(|protected| is_same(&protected.path, path)) {
            Some(Protected { what, .. }) => {
                Err(Misuse(format!("{} is {what}: write to another file", path.display())))
            }
            None => Ok(()),
        }
    }
}

/// The path of an output: `-` is standard output.
fn output_path(path: &Path) -> &Path {
    if path == Path::new("-") { Path::new("/dev/stdout") } else { path }
}

/// Whether both paths lead to the same regular file or pipe, or would. Devices and sockets may well be shared:
/// `/dev/null`, or a terminal that is read and written.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => {
            (one.is_file() || one.file_type().is_fifo())
                && (one.dev(), one.ino()) == (other.dev(), other.ino())
        }
        (Err(_), Err(_)) => resolved(one).is_ok_and(|one| resolved(other).is_ok_and(|other| one == other)),
        _ => false,
    }
}

/// The path of a file that may be absent, in a folder that is there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::canonicalize(folder(path))?.join(name))
}

/// The folder that a path is in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
