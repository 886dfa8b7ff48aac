//! Reads rows from JSON lines.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use tokio::sync::mpsc;

use super::{FORMAT, VERSION};
use crate::domain::{PasswordScheme, Timestamp, rfc3339};
use crate::service::moving::{ImportError, Incoming, IncomingTenant, IncomingUser, Kind, Refusal, Why};

/// The most bytes of a line, many times what the longest user takes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// A line of any type.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    version: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    tenant_id: Option<String>,
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    role: Option<String>,
    state: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    password_hash: Option<String>,
    password_scheme: Option<String>,
    password_changed_at: Option<String>,
}

/// Reads all lines, and sends them in batches of `batch`. Blank ones count, and are passed over.
pub(in crate::cli::moving) fn feed(
    mut input: Box<dyn BufRead + Send>,
    batch: usize,
    rows: &mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
) {
    let outcome = send_all(&mut *input, batch, rows);
    if let Err(problem) = outcome {
        // Nobody listens any more: the import has failed by itself.
        let _ = rows.blocking_send(Err(ImportError::Source(problem)));
    }
}

fn send_all(
    input: &mut dyn BufRead,
    batch: usize,
    rows: &mpsc::Sender<Result<Vec<Incoming>, ImportError>>,
) -> Result<(), String> {
    let mut line = Vec::new();
    let mut page = Vec::with_capacity(batch);
    let mut has_header = false;
    for position in 1.. {
        let whole = match read_line(input, &mut line).map_err(|error| error.to_string())? {
            None => break,
            Some(whole) => whole,
        };
        if !whole {
            page.push(refused(position, Kind::Line, None, "is longer than 64 KiB"));
        } else if !line.iter().all(u8::is_ascii_whitespace) {
            match (is_header(&line), has_header) {
                // Files may be joined.
                (true, _) => has_header = true,
                (false, true) => page.push(read(position, &line)),
                (false, false) => {
                    return Err(format!(
                        r#"line {position} must be {{"type":"{FORMAT}","version":{VERSION}}}"#
                    ));
                }
            }
        }
        let is_tenant = matches!(page.last(), Some(Incoming::Tenant(_)));
        if is_tenant && page.len() > batch / 2 {
            // A batch that has the users of a tenant that the one before it has would have to wait for it.
            let tenant = page.pop();
            if rows.blocking_send(Ok(std::mem::replace(&mut page, Vec::with_capacity(batch)))).is_err() {
                return Ok(());
            }
            page.extend(tenant);
        }
        if page.len() == batch && rows.blocking_send(Ok(std::mem::take(&mut page))).is_err() {
            return Ok(());
        }
    }
    if !page.is_empty() {
        // As above.
        let _ = rows.blocking_send(Ok(page));
    }
    Ok(())
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

fn is_header(line: &[u8]) -> bool {
    // Cheaper than to parse every line twice.
    line.len() < 200
        && serde_json::from_slice::<Line>(line)
            .is_ok_and(|line| line.kind == FORMAT && line.version == Some(VERSION))
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
