//! What is logged, and how.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::config::declared::{IDENTITY_LOG, IDENTITY_LOG_FORMAT, IDENTITY_LOG_LEVEL_FILE};
use crate::config::read::Reader;
use crate::telemetry::logs::{LogFilter, LogSettings};

/// Longer than any list of levels; what is longer is another file.
const MAX_FILE_BYTES: u64 = 4 * 1024;

pub(super) fn read(reader: &mut Reader<'_>) -> LogSettings {
    let given = reader.given(&IDENTITY_LOG);
    let has_given = reader.text(&IDENTITY_LOG).is_some();
    let filter_file = reader.given(&IDENTITY_LOG_LEVEL_FILE);
    let in_file = match &filter_file {
        Some(_) if has_given => {
            reader.fault(&IDENTITY_LOG_LEVEL_FILE, "must not be set together with IDENTITY_LOG");
            None
        }
        Some(path) => {
            log_filter_in(path).map_err(|problem| reader.fault(&IDENTITY_LOG_LEVEL_FILE, problem)).ok()
        }
        None => None,
    };
    LogSettings {
        filter: given.or(in_file).unwrap_or_else(|| IDENTITY_LOG.default_value()),
        filter_file,
        format: reader.get(&IDENTITY_LOG_FORMAT),
    }
}

/// The filter that a file holds, as `IDENTITY_LOG` would, with white space around it.
///
/// # Errors
/// What the file must be, as a predicate. Quotes nothing of it: it may be another file.
pub fn log_filter_in(path: &Path) -> Result<LogFilter, String> {
    let unreadable = |error: io::Error| format!("must name a file that can be read: {error}");
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text)).map_err(unreadable)?;
    let text = str::from_utf8(&text).ok().map(str::trim);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        "must name a file with error, warn, info, debug or trace, or a list such as info,identity::rpc=debug".into()
    })
}
