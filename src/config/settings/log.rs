//! What is logged, and how.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::super::read::{Name, Reader};
use crate::telemetry::logs::{LogFilter, LogFormat, LogSettings};

const LOG: Name = Name::with_flag("IDENTITY_LOG", |flags| flags.log.as_deref());
const LOG_LEVEL_FILE: Name =
    Name::with_flag("IDENTITY_LOG_LEVEL_FILE", |flags| flags.log_level_file.as_deref());
const LOG_FORMAT: Name = Name::with_flag("IDENTITY_LOG_FORMAT", |flags| flags.log_format.as_deref());

const NO_FILTER: &str =
    "must be error, warn, info, debug or trace, or a list such as info,identity::rpc=debug";

/// Longer than any list of levels; what is longer is another file.
const MAX_FILE_BYTES: u64 = 4 * 1024;

pub(super) fn read(reader: &mut Reader<'_>) -> LogSettings {
    let given = reader.parsed(LOG, |text| text.parse::<LogFilter>().map_err(|_| NO_FILTER));
    let has_given = reader.text(LOG).is_some();
    let filter_file = reader.text(LOG_LEVEL_FILE).map(PathBuf::from);
    let in_file = match &filter_file {
        Some(_) if has_given => {
            reader.fault(LOG_LEVEL_FILE, "must not be set together with IDENTITY_LOG");
            None
        }
        Some(path) => log_filter_in(path).map_err(|problem| reader.fault(LOG_LEVEL_FILE, problem)).ok(),
        None => None,
    };
    let formats = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
    LogSettings {
        filter: given.or(in_file).unwrap_or_default(),
        filter_file,
        format: reader.choice(LOG_FORMAT, &formats).unwrap_or(LogFormat::Auto),
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
