//! Where an import and an export write to.
//!
//! A regular file is written under a fresh name, readable by its owner only, and takes its own name when it
//! is whole. A device, a pipe and a terminal are opened as they are. No other file is changed or removed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::protected::{ProtectedFiles, folder};
use crate::cli::Misuse;
use crate::cli::operator::Failure;
use crate::cli::streams::StandardOutput;

/// A path that a command is to write to. Nothing is opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `-`, or a link to the same.
    StandardOutput,
    /// A link to the same.
    StandardError,
    /// A regular file, or none yet.
    File(PathBuf),
    /// A device, a pipe or a terminal.
    Special(PathBuf),
}

impl Target {
    /// Finds out what `path` is. `-` is standard output.
    ///
    /// # Errors
    /// [`Misuse`] when it is one of the `protected` files, a folder, or a symbolic link to a regular file, which
    /// somebody else may have put there; also when it cannot be examined.
    pub(super) fn find(path: &Path, protected: &ProtectedFiles) -> Result<Self, Failure> {
        protected.check(path)?;
        if path == Path::new("-") {
            return Ok(Self::StandardOutput);
        }
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link && leads_to(path, io::stdout().as_fd()) {
            return Ok(Self::StandardOutput);
        }
        if is_link && leads_to(path, io::stderr().as_fd()) {
            return Ok(Self::StandardError);
        }
        let misuse = |problem| Err(Misuse(format!("{} {problem}", path.display())).into());
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => misuse("is a folder: name a file"),
            Ok(found) if !found.is_file() => Ok(Self::Special(path.to_owned())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path.display(), error).into()),
            _ if is_link => misuse("is a symbolic link: name the file that it leads to"),
            Ok(_) | Err(_) => Ok(Self::File(path.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardOutput => f.write_str("standard output"),
            Self::StandardError => f.write_str("standard error"),
            Self::File(path) | Self::Special(path) => path.display().fmt(f),
        }
    }
}

/// Whether `path` leads to the open file `stream`, as `/dev/stdout` does.
fn leads_to(path: &Path, stream: BorrowedFd<'_>) -> bool {
    let stream = stream.try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    match (fs::metadata(path), stream) {
        (Ok(path), Ok(stream)) => (path.dev(), path.ino()) == (stream.dev(), stream.ino()),
        _ => false,
    }
}

/// The error with what it is about.
pub(super) fn named(name: impl fmt::Display, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Something open for writing.
#[derive(Debug)]
pub(super) enum Output {
    Stdout,
    Stderr,
    Special(File),
    File(NewFile),
}

impl Output {
    /// Opens `target`. That of a pipe waits for its reader.
    pub(super) fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::StandardOutput => Ok(Self::Stdout),
            Target::StandardError => Ok(Self::Stderr),
            Target::Special(path) => open_special(path).map(Self::Special),
            Target::File(path) => NewFile::create(path).map(Self::File),
        }
    }

    /// Ends what was written; a regular file takes its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout => StandardOutput.flush(),
            Self::Stderr | Self::Special(_) => Ok(()),
            Self::File(file) => file.keep(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => StandardOutput.write(bytes),
            Self::Stderr => io::stderr().write(bytes),
            Self::Special(file) | Self::File(NewFile { file, .. }) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => StandardOutput.flush(),
            Self::Stderr => io::stderr().flush(),
            Self::Special(file) | Self::File(NewFile { file, .. }) => file.flush(),
        }
    }
}

/// Neither creates nor truncates.
fn open_special(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).open(path)?;
    // Another file may have taken its place since it was examined.
    if file.metadata()?.is_file() {
        return Err(io::Error::other("is a regular file by now"));
    }
    Ok(file)
}

/// A file that takes its name when it is whole. Removed when dropped before.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_kept: bool,
}

impl NewFile {
    /// Creates it beside `path`, with a name that nothing has, and mode 0600.
    fn create(path: &Path) -> io::Result<Self> {
        // No secret: `create_new` follows no link, and fails where anything has the name.
        let number = RandomState::new().hash_one(path);
        let temporary = path.with_file_name(format!("identity-{number:016x}.partial"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { path: path.to_owned(), temporary, file, is_kept: false })
    }

    fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_kept = true;
        sync_folder(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // At worst a part of it stays, readable by its owner only.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes the new name survive a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}
