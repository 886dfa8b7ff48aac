//! Reads rows from JSON lines.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use tokio::sync::mpsc;

use super::{END, FORMAT, VERSION, foreign};
use crate::domain::{PasswordScheme, Timestamp, rfc3339};
use crate::service::moving::{ImportError, Incoming, IncomingTenant, IncomingUser, Kind, Refusal, Why};

/// The most bytes of a line, many times what the longest user takes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// More than any header or end has.
const MAX_MARK_BYTES: usize = 200;

/// What some programs begin a file of UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A line of any type.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    name: Option<String>,
    tenant_id: Option<String>,
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    external_id: Option<String>,
    role: Option<String>,
    state: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    password_hash: Option<String>,
    password_scheme: Option<String>,
    password_changed_at: Option<String>,
}

/// Whether a file has all the rows that its export wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::moving) enum Ending {
    /// Its last line says so.
    Whole,
    /// There is no such line, so that it may have been cut off.
    Missing,
    /// The line says another number than there are.
    Wrong { position: u64, told: u64, found: u64 },
}

/// Reads all lines, and sends them in batches of `batch`. Blank ones count, and are passed over.
pub(in crate::cli::moving) fn feed(
    mut input: Box<dyn BufRead + Send>,
    batch: usize,
    rows: &mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
) -> Ending {
    let (mut pages, mut parts) = (Pages { rows, batch, page: Vec::new() }, Parts::default());
    if let Err(problem) = send_all(&mut *input, &mut pages, &mut parts) {
        // Nobody listens any more: the import has failed by itself.
        let _ = rows.blocking_send(Err(ImportError::Source(problem)));
    }
    parts.ending()
}

fn send_all(input: &mut dyn BufRead, pages: &mut Pages<'_>, parts: &mut Parts) -> Result<(), String> {
    let mut buffer = Vec::new();
    for position in 1.. {
        let is_whole = match read_line(input, &mut buffer).map_err(|error| error.to_string())? {
            None if parts.have_begun() => break,
            None => return Err(foreign::problem(1, b"")),
            Some(is_whole) => is_whole,
        };
        let line = buffer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&buffer);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = match Mark::read(line) {
            Some(mark) => {
                parts.mark(position, mark);
                continue;
            }
            None if !parts.have_begun() => return Err(foreign::problem(position, line)),
            None if is_whole => read(position, line),
            None => refused(position, Kind::Line, None, "is longer than 64 KiB"),
        };
        parts.count();
        if !pages.push(row) {
            return Ok(());
        }
    }
    pages.send();
    Ok(())
}

/// Rows on their way, in batches.
struct Pages<'r> {
    rows: &'r mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
    batch: usize,
    page: Vec<Incoming>,
}

impl Pages<'_> {
    /// Adds a row; false when nobody listens any more.
    fn push(&mut self, row: Incoming) -> bool {
        // A batch that has the users of a tenant that the one before it has would have to wait for it.
        let is_early = matches!(row, Incoming::Tenant(_)) && self.page.len() >= self.batch / 2;
        if is_early && !self.send() {
            return false;
        }
        self.page.push(row);
        self.page.len() < self.batch || self.send()
    }

    fn send(&mut self) -> bool {
        let page = std::mem::replace(&mut self.page, Vec::with_capacity(self.batch));
        page.is_empty() || self.rows.blocking_send(Ok(page)).is_ok()
    }
}

/// The exports that a file is made of: they may be joined.
#[derive(Default)]
struct Parts {
    has_header: bool,
    /// Whether the last row is followed by an end.
    has_end: bool,
    /// Since the last header or end.
    rows: u64,
    is_end_missing: bool,
    wrong: Option<Ending>,
}

impl Parts {
    fn have_begun(&self) -> bool {
        self.has_header
    }

    fn count(&mut self) {
        self.rows += 1;
        self.has_end = false;
    }

    fn mark(&mut self, position: u64, mark: Mark) {
        let found = std::mem::take(&mut self.rows);
        match mark {
            Mark::Header => {
                self.is_end_missing |= self.has_header && !self.has_end;
                self.has_header = true;
                self.has_end = false;
            }
            Mark::End { rows: told } => {
                if told != found {
                    self.wrong.get_or_insert(Ending::Wrong { position, told, found });
                }
                self.has_end = true;
            }
        }
    }

    fn ending(&self) -> Ending {
        match self.wrong {
            Some(wrong) => wrong,
            None if self.is_end_missing || !self.has_end => Ending::Missing,
            None => Ending::Whole,
        }
    }
}

/// A line that is no row.
enum Mark {
    Header,
    End { rows: u64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkLine {
    #[serde(rename = "type")]
    kind: String,
    version: Option<u64>,
    rows: Option<u64>,
}

impl Mark {
    fn read(line: &[u8]) -> Option<Self> {
        // Cheaper than to parse every line twice.
        if line.len() >= MAX_MARK_BYTES {
            return None;
        }
        let MarkLine { kind, version, rows } = serde_json::from_slice(line).ok()?;
        match (kind.as_str(), version, rows) {
            (FORMAT, Some(VERSION), None) => Some(Self::Header),
            (END, None, Some(rows)) => Some(Self::End { rows }),
            _ => None,
        }
    }
}

/// Reads a line; `None` at the end, and false when it was too long and only its end was found.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    if input.take(MAX_LINE_BYTES + 1).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 <= MAX_LINE_BYTES || line.ends_with(b"\n") {
        return Ok(Some(true));
    }
    input.skip_until(b'\n')?;
    Ok(Some(false))
}

fn refused(position: u64, kind: Kind, id: Option<String>, detail: &str) -> Incoming {
    let (why, detail) = (Why::BadLine, detail.to_owned());
    Incoming::Unreadable(Refusal { position, kind, id, why, detail })
}

fn read(position: u64, text: &[u8]) -> Incoming {
    let Ok(line) = serde_json::from_slice::<Line>(text) else { return unreadable(position, text) };
    match line.kind.as_str() {
        "tenant" => Incoming::Tenant(IncomingTenant {
            position,
            id: line.id,
            name: line.name,
            created_at: time(line.created_at.as_deref()),
            updated_at: time(line.updated_at.as_deref()),
        }),
        "user" => read_user(position, line),
        _ => refused(position, Kind::Line, line.id, "has a type that is neither tenant nor user"),
    }
}

/// Where no time can be read, there is none.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(rfc3339::parse)
}

fn read_user(position: u64, line: Line) -> Incoming {
    let refuse = |id, why, detail: &str| {
        Incoming::Unreadable(Refusal { position, kind: Kind::User, id, why, detail: detail.to_owned() })
    };
    let password_scheme = match line.password_scheme.as_deref().map(PasswordScheme::from_name) {
        Some(None) => {
            let detail = "password_scheme must be bcrypt, bcrypt-sha256 or bcrypt-truncated";
            return refuse(line.id, Why::BadPasswordHash, detail);
        }
        scheme => scheme.flatten(),
    };
    let password_changed_at = match line.password_changed_at.as_deref().map(rfc3339::parse) {
        Some(None) => return refuse(line.id, Why::BadTime, "password_changed_at is no point in time"),
        at => at.flatten(),
    };
    Incoming::User(Box::new(IncomingUser {
        position,
        id: line.id,
        tenant_id: line.tenant_id,
        email: line.email,
        first_name: line.first_name,
        last_name: line.last_name,
        external_id: line.external_id,
        role: line.role,
        state: line.state,
        created_at: time(line.created_at.as_deref()),
        updated_at: time(line.updated_at.as_deref()),
        password_hash: line.password_hash,
        password_scheme,
        password_changed_at,
    }))
}

/// Says what can be said of a line without quoting it, which the parser's own words would do.
fn unreadable(position: u64, text: &[u8]) -> Incoming {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else {
        return refused(position, Kind::Line, None, "is no JSON");
    };
    let word = |name: &str| value.get(name).and_then(|value| value.as_str());
    let kind = match word("type") {
        Some("tenant") => Kind::Tenant,
        Some("user") => Kind::User,
        _ => Kind::Line,
    };
    let id = word("id").map(|id| id.chars().take(200).collect());
    refused(position, kind, id, "has a field that is unknown, twice there, or of the wrong type")
}
