//! The files of an import and of an export. All that are written are readable by their owner only: they
//! hold personal data or hashes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::ImportArguments;
use super::progress::Progress;
use crate::service::moving::{Counts, Kind, Ledger, Refusal};

/// How much of a file is read or written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file to read, or standard input for `-`.
pub(super) fn open_input(path: &Path) -> Result<Box<dyn BufRead + Send>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
    }
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    options.open(path).map_err(named)
}

/// A file that takes its name when it is whole.
pub(super) struct Output {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Output {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = create(&partial)?;
        Ok(Self { path: path.to_owned(), partial, file })
    }

    /// To write to.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its name.
    pub(super) fn keep(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)
    }
}

/// JSON lines, in a file that is made with the first of them.
struct Lines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Lines {
    /// Removes what an earlier run left under that name, which would be taken for this one's.
    fn new(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
            _ => {}
        }
        Ok(Self { path: path.to_owned(), file: None })
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::with_capacity(BUFFER_BYTES, create(&self.path)?)),
        };
        serde_json::to_writer(&mut *file, line)?;
        file.write_all(b"\n")
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}

/// Writes down what an import tells of, and shows how far it is.
pub(super) struct Reports {
    refused: Lines,
    mapping: Option<Lines>,
    progress: Progress,
}

impl Reports {
    pub(super) fn new(arguments: &ImportArguments, total: Option<u64>) -> io::Result<Self> {
        let mapping = (!arguments.dry_run).then(|| Lines::new(&arguments.mapping)).transpose()?;
        Ok(Self { refused: Lines::new(&arguments.report)?, mapping, progress: Progress::new(total) })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.progress.finish();
        self.refused.finish()?;
        self.mapping.as_mut().map_or(Ok(()), Lines::finish)
    }
}

#[derive(Serialize)]
struct RefusedLine<'a> {
    position: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    id: Option<&'a str>,
    reason: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
struct MappingLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    old_id: &'a str,
    new_id: String,
}

impl Ledger for Reports {
    fn refused(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.refused.write(&RefusedLine {
            position: refusal.position,
            kind: refusal.kind.as_str(),
            id: refusal.id.as_deref(),
            reason: refusal.why.as_str(),
            detail: &refusal.detail,
        })
    }

    fn renamed(&mut self, kind: Kind, old_id: &str, new_id: Uuid) -> io::Result<()> {
        let Some(mapping) = &mut self.mapping else { return Ok(()) };
        mapping.write(&MappingLine { kind: kind.as_str(), old_id, new_id: new_id.to_string() })
    }

    fn progressed(&mut self, counts: &Counts) {
        self.progress.show(counts);
    }
}
