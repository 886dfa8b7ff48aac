//! The log: lines on standard error, for people on a terminal and as JSON elsewhere. Writing them is left to
//! [`lines`](super::lines), so that no caller waits for a slow reader.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use super::lines::{DroppedLines, LineWriter};

/// The target of this service's own lines, and of those of its crates.
const OWN_TARGET: &str = "identity";

/// How long the exit waits for the last lines to be written, at most: the pipe may be full and have no reader.
pub const LAST_LINES: Duration = Duration::from_secs(2);

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Which events are written.
    pub filter: LogFilter,
    /// The file that `filter` was read from, if it was.
    pub filter_file: Option<PathBuf>,
    /// How lines look.
    pub format: LogFormat,
}

/// Levels and targets, separated by commas: `info`, `debug`, `identity=debug,tonic=warn`. A level
/// without a target is for `identity`; what it depends on then logs warnings, and at `debug` or
/// `trace` information too. The default is `info`.
#[derive(Clone, Debug)]
pub struct LogFilter(Targets);

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people when standard error is a terminal, else JSON.
    Auto,
    /// For people; in colour on a terminal, unless the environment says NO_COLOR.
    Human,
    /// One JSON object a line, the event's fields at its top.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("`{0}` is neither a level (off, error, warn, info, debug, trace) nor of the form target=level")]
    Filter(String),
    /// The process logs already.
    #[error("logging has begun already")]
    Begun,
    /// Standard error cannot be written to.
    #[error("cannot log to standard error: {0}")]
    Output(#[source] io::Error),
}

/// The log of this process. Dropping it waits until what was logged is written, for [`LAST_LINES`] at most.
#[derive(Debug)]
#[must_use]
pub struct Log {
    lines: LineWriter,
    filter: FilterInUse,
}

/// The filter of the log, which can be exchanged. All clones stand for the same one.
#[derive(Clone, Debug)]
pub struct FilterInUse(reload::Handle<Targets, Registry>);

impl Log {
    /// The lines that were dropped because nobody read them.
    pub fn dropped(&self) -> DroppedLines {
        self.lines.dropped()
    }

    /// What decides which events are written.
    pub fn filter(&self) -> FilterInUse {
        self.filter.clone()
    }
}

impl FilterInUse {
    /// Writes the events of `filter` from now on.
    pub fn exchange(&self, filter: LogFilter) {
        if let Err(error) = self.0.reload(filter.0) {
            tracing::error!(%error, "the log level could not be changed");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(LAST_LINES);
    }
}

/// Begins to log, for the whole process and for good. Panics are logged too, from then on, with
/// their place instead of their text, which may quote what nobody should read.
///
/// # Errors
/// [`LogError`], for a second call and when there is no standard error.
pub fn init(settings: &LogSettings) -> Result<Log, LogError> {
    let lines = LineWriter::start(io::stderr(), warn_of_dropped).map_err(LogError::Output)?;
    let (filter, handle) = reload::Layer::new(settings.filter.0.clone());
    let log = Log { lines: lines.clone(), filter: FilterInUse(handle) };
    let writer = move || lines.clone();
    let is_terminal = io::stderr().is_terminal();
    let is_json = match settings.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let lines = if is_json { json(writer) } else { human(writer, is_terminal) };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(|_| LogError::Begun)?;
    log_panics();
    Ok(log)
}

fn warn_of_dropped(lines: u64) {
    tracing::warn!(log.dropped = lines, "log lines are missing here: standard error was not read in time");
}

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn json<S, W>(writer: W) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed()
}

fn human<S, W>(writer: W, is_terminal: bool) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    if is_terminal { lines.boxed() } else { lines.with_ansi(false).boxed() }
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(tracing::field::display);
        tracing::error!(panic.location = place, "a thread panicked");
    }));
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(targets(LevelFilter::INFO))
    }
}

impl FromStr for LogFilter {
    type Err = LogError;

    fn from_str(filter: &str) -> Result<Self, LogError> {
        let mut own = LevelFilter::INFO;
        let mut others = Vec::new();
        for item in filter.split(',').map(str::trim) {
            let invalid = || LogError::Filter(item.to_owned());
            match item.split_once('=') {
                None => own = level(item).ok_or_else(invalid)?,
                Some((target, text)) if !target.is_empty() => {
                    others.push((target.to_owned(), level(text).ok_or_else(invalid)?));
                }
                Some(_) => return Err(invalid()),
            }
        }
        Ok(Self(targets(own).with_targets(others)))
    }
}

/// The targets of a level for this service's own lines.
fn targets(own: LevelFilter) -> Targets {
    Targets::new().with_default(level_of_dependencies(own)).with_target(OWN_TARGET, own)
}

/// A level by its name. Numbers, which `LevelFilter` reads too, would be a second spelling.
fn level(text: &str) -> Option<LevelFilter> {
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    LevelFilter::from_str(text).ok()
}

fn level_of_dependencies(own: LevelFilter) -> LevelFilter {
    if own >= Level::DEBUG { LevelFilter::INFO } else { own.min(LevelFilter::WARN) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written to any of its clones.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `layer` writes of one event in one span.
    fn written(layer: impl FnOnce(Written) -> Lines<tracing_subscriber::Registry>) -> String {
        let written = Written::default();
        let subscriber = tracing_subscriber::registry().with(layer(written.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _entered = tracing::info_span!("call", request.id = "r1").entered();
            tracing::info!(rpc.code = "OK", "call finished");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_event_at_the_top_and_those_of_its_span_below() {
        let line = written(|writer| json(move || writer.clone()));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["message"], &line["rpc.code"]), (&"call finished".into(), &"OK".into()));
        assert_eq!(line["span"]["request.id"], "r1");
        assert!(line.get("spans").is_none());
    }

    #[test]
    fn a_line_for_people_has_no_colour_codes_away_from_a_terminal() {
        let line = written(|writer| human(move || writer.clone(), false));
        assert!(line.contains("call finished") && !line.contains('\x1b'), "{line}");
    }

    /// The most that `target` logs under `filter`.
    fn enabled(filter: &str, target: &str) -> Option<Level> {
        let LogFilter(targets) = filter.parse().unwrap();
        [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
            .into_iter()
            .find(|level| targets.would_enable(target, level))
    }

    #[test]
    fn a_bare_level_is_for_the_service_and_keeps_dependencies_quiet() {
        for (filter, own, dependency) in [
            ("info", Some(Level::INFO), Some(Level::WARN)),
            ("WARN", Some(Level::WARN), Some(Level::WARN)),
            ("error", Some(Level::ERROR), Some(Level::ERROR)),
            ("debug", Some(Level::DEBUG), Some(Level::INFO)),
            ("trace", Some(Level::TRACE), Some(Level::INFO)),
            ("off", None, None),
        ] {
            assert_eq!(enabled(filter, "identity::server::edge"), own, "{filter}");
            assert_eq!(enabled(filter, "h2::proto"), dependency, "{filter}");
        }
    }

    #[test]
    fn targets_are_named_one_by_one() {
        let filter = "debug, h2=trace, identity::storage=warn";
        assert_eq!(enabled(filter, "h2::proto"), Some(Level::TRACE));
        assert_eq!(enabled(filter, "hyper"), Some(Level::INFO));
        assert_eq!(enabled(filter, "identity::storage::pool"), Some(Level::WARN));
        assert_eq!(enabled(filter, "identity::server"), Some(Level::DEBUG));
        assert_eq!(enabled("tonic=error", "identity"), Some(Level::INFO));
        assert_eq!(enabled("identity=trace", "identity"), Some(Level::TRACE));
    }

    #[test]
    fn a_filter_that_cannot_be_read_names_the_part_that_is_wrong() {
        for (filter, part) in [
            ("", ""),
            ("inof", "inof"),
            ("info,h2=loud", "h2=loud"),
            ("=info", "=info"),
            ("info,", ""),
            ("3", "3"),
        ] {
            let error = filter.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{part}` is neither")), "{filter:?}: {error}");
        }
    }
}
