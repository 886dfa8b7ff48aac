//! What an import reads, and its reports.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use super::output::{Output, Target, named};
use super::progress::Progress;
use super::protected::ProtectedFiles;
use crate::cli::Misuse;
use crate::cli::arguments::ImportArguments;
use crate::cli::operator::Failure;
use crate::service::moving::{Counts, Kind, Ledger, Refusal};

/// How much of a file is read or written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Many times the longest line of a report.
const MAX_REPORT_LINE_BYTES: u64 = 64 * 1024;

/// A file to read, or standard input for `-`.
pub(super) fn open_input(path: &Path) -> Result<Box<dyn BufRead + Send>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
    }
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

/// Where the reports of an import go.
pub(super) struct ReportTargets {
    refused: Target,
    /// None in a dry run, which gives no ids.
    mapping: Option<Target>,
}

impl ReportTargets {
    /// Finds out what the paths in `arguments` are.
    ///
    /// # Errors
    /// [`Misuse`] when a path is none for a report, or both are the same file.
    pub(super) fn find(arguments: &ImportArguments, mut protected: ProtectedFiles) -> Result<Self, Failure> {
        let refused = find_report(&arguments.report, &protected, &REFUSED_FIELDS)?;
        protected.add_output(&arguments.report, "the report of refused rows");
        let mapping = (!arguments.dry_run)
            .then(|| find_report(&arguments.mapping, &protected, &MAPPING_FIELDS))
            .transpose()?;
        Ok(Self { refused, mapping })
    }

    /// Where refused rows are listed.
    pub(super) fn refused(&self) -> &Target {
        &self.refused
    }

    /// Whether one of them goes to standard output.
    pub(super) fn use_standard_output(&self) -> bool {
        self.refused == Target::StandardOutput || self.mapping == Some(Target::StandardOutput)
    }
}

/// The target of a report, which may replace an earlier report of the same fields and no other file.
fn find_report(path: &Path, protected: &ProtectedFiles, fields: &[&str]) -> Result<Target, Failure> {
    let target = Target::find(path, protected)?;
    if let Target::File(path) = &target
        && !is_replaceable(path, fields).map_err(|error| named(path.display(), error))?
    {
        let problem = "was not written by an import: remove it, or name another file";
        return Err(Misuse(format!("{} {problem}", path.display())).into());
    }
    Ok(target)
}

/// Whether a file is absent, empty, or a report whose lines have these `fields`.
fn is_replaceable(path: &Path, fields: &[&str]) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        file => file?,
    };
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_REPORT_LINE_BYTES)).read_until(b'\n', &mut line)?;
    let has_fields = |line: serde_json::Map<String, serde_json::Value>| {
        line.len() == fields.len() && fields.iter().all(|field| line.contains_key(*field))
    };
    Ok(line.is_empty() || serde_json::from_slice(&line).is_ok_and(has_fields))
}

/// JSON lines. A regular file is made with the first of them.
struct Lines {
    target: Target,
    output: Option<BufWriter<Output>>,
}

impl Lines {
    /// Removes the report of an earlier run, which would be taken for this one's.
    fn new(target: Target, fields: &[&str]) -> io::Result<Self> {
        let mut lines = Self { target, output: None };
        let begun = match &lines.target {
            Target::File(path) => remove_report(path, fields),
            Target::StandardOutput | Target::StandardError | Target::Special(_) => lines.open().map(drop),
        };
        begun.map_err(|error| named(&lines.target, error))?;
        Ok(lines)
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<Output>> {
        let opened = match self.output.take() {
            Some(output) => output,
            None => BufWriter::with_capacity(BUFFER_BYTES, Output::open(&self.target)?),
        };
        Ok(self.output.insert(opened))
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let written = self.open().and_then(|output| {
            serde_json::to_writer(&mut *output, line)?;
            output.write_all(b"\n")
        });
        written.map_err(|error| named(&self.target, error))
    }

    fn finish(self) -> io::Result<()> {
        let Some(output) = self.output else { return Ok(()) };
        let finished = output.into_inner().map_err(io::IntoInnerError::into_error).and_then(Output::finish);
        finished.map_err(|error| named(&self.target, error))
    }
}

/// An empty file stays until it is replaced: somebody else may have made it.
fn remove_report(path: &Path, fields: &[&str]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Ok(());
    }
    if !is_replaceable(path, fields)? {
        return Err(io::Error::other("was replaced by another file"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes down what an import tells of, and shows how far it is.
pub(super) struct Reports {
    refused: Lines,
    mapping: Option<Lines>,
    progress: Progress,
}

impl Reports {
    pub(super) fn new(targets: &ReportTargets, total: Option<u64>) -> io::Result<Self> {
        let mapping = targets.mapping.clone().map(|target| Lines::new(target, &MAPPING_FIELDS));
        Ok(Self {
            refused: Lines::new(targets.refused.clone(), &REFUSED_FIELDS)?,
            mapping: mapping.transpose()?,
            progress: Progress::new(total),
        })
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.progress.finish();
        self.refused.finish()?;
        self.mapping.map_or(Ok(()), Lines::finish)
    }
}

/// The fields of a [`RefusedLine`].
const REFUSED_FIELDS: [&str; 5] = ["position", "type", "id", "reason", "detail"];

#[derive(Serialize)]
struct RefusedLine<'a> {
    position: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    id: Option<&'a str>,
    reason: &'static str,
    detail: &'a str,
}

/// The fields of a [`MappingLine`].
const MAPPING_FIELDS: [&str; 3] = ["type", "old_id", "new_id"];

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
