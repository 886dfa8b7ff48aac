//! A setting as it is declared: its name, its flag, its values, its default, its help.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry::logs::LogFilter;

/// Keeps a token within what proxies allow a header to be.
const NAME_MAX_BYTES: usize = 255;

/// The declaration of a setting whose values are of the kind `V`.
pub(super) struct Setting<V> {
    /// The environment variable.
    pub(super) variable: &'static str,
    /// As `--help` shows it: `--listen <ADDRESS>`. A secret has none, as every user of the machine can read a
    /// command line.
    pub(super) flag: Option<&'static str>,
    /// Which values it has.
    pub(super) values: V,
    /// What counts when none is given.
    pub(super) default: Fallback,
    /// What it means; `{values}` stands for the range.
    pub(super) help: &'static str,
}

/// What counts when a setting is not given.
pub(super) enum Fallback {
    /// This value.
    Value(&'static str),
    /// What its reader makes of the situation, in words.
    Described(&'static str),
    /// What the words say; this value where they do not apply.
    DescribedOr(&'static str, &'static str),
}

impl<V: Values> Setting<V> {
    /// The value that counts when none is given.
    pub(super) fn default_value(&self) -> V::Value {
        let text = match self.default {
            Fallback::Value(text) | Fallback::DescribedOr(_, text) => Some(text),
            Fallback::Described(_) => None,
        };
        let value = text.and_then(|text| self.values.parse(text).ok());
        value.expect("the declared default is one of the values")
    }
}

/// A setting of any kind.
pub(super) trait Declared {
    fn variable(&self) -> &'static str;

    /// The flag without its dashes, and what help calls the value: `listen` and `ADDRESS`.
    fn flag(&self) -> Option<(&'static str, &'static str)>;

    /// What it means, with its range.
    fn meaning(&self) -> String;

    /// What counts when it is not given, in words.
    fn default(&self) -> String;

    /// `IDENTITY_LISTEN (--listen)`, or the variable alone.
    fn shown(&self) -> String {
        match self.flag() {
            Some((flag, _)) => format!("{} (--{flag})", self.variable()),
            None => self.variable().to_owned(),
        }
    }
}

impl<V: Values> Declared for Setting<V> {
    fn variable(&self) -> &'static str {
        self.variable
    }

    fn flag(&self) -> Option<(&'static str, &'static str)> {
        self.flag?.strip_prefix("--")?.strip_suffix('>')?.split_once(" <")
    }

    fn meaning(&self) -> String {
        self.help.replace("{values}", &self.values.range())
    }

    fn default(&self) -> String {
        match self.default {
            Fallback::Value(text) | Fallback::Described(text) => text.to_owned(),
            Fallback::DescribedOr(words, value) => format!("{words}, else {value}"),
        }
    }
}

/// A kind of values.
pub(super) trait Values {
    /// What it is read into.
    type Value;

    /// Reads a value.
    ///
    /// # Errors
    /// What it must be, as a predicate that follows the setting's name. Never quotes the text.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// The limits, as help tells them; empty where there are none.
    fn range(&self) -> String {
        String::new()
    }
}

/// Whole numbers, both limits included.
pub(super) struct Numbers(pub(super) u32, pub(super) u32);

impl Values for Numbers {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, String> {
        let number = text.parse().ok().filter(|number| (self.0..=self.1).contains(number));
        number.ok_or_else(|| format!("must be a number from {} to {}", self.0, self.1))
    }

    fn range(&self) -> String {
        format!("{} to {}", self.0, self.1)
    }
}

/// Whole numbers from 1 to this.
pub(super) struct CountsUpTo(pub(super) u32);

impl Values for CountsUpTo {
    type Value = NonZeroUsize;

    fn parse(&self, text: &str) -> Result<NonZeroUsize, String> {
        let count = Numbers(1, self.0).parse(text)?;
        Ok(NonZeroUsize::new(count as usize).expect("a number from 1 on is not 0"))
    }

    fn range(&self) -> String {
        Numbers(1, self.0).range()
    }
}

/// Durations as humantime writes them: `15m`, `1h 30m`, `14d`; both limits included.
pub(super) struct Durations(pub(super) &'static str, pub(super) &'static str);

impl Values for Durations {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let [least, most] = [self.0, self.1]
            .map(|limit| humantime::parse_duration(limit).expect("a declared limit is a duration"));
        let duration = humantime::parse_duration(text).ok().filter(|given| (least..=most).contains(given));
        duration.ok_or_else(|| {
            let [least, most] = [least, most].map(humantime::format_duration);
            format!("must be a duration from {least} to {most}, such as 90s, 15m, 1h 30m or 14d")
        })
    }

    fn range(&self) -> String {
        if self.0 == "0s" { format!("up to {}", self.1) } else { format!("{} to {}", self.0, self.1) }
    }
}

/// Words, each with what it stands for.
pub(super) struct Choices<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> Values for Choices<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let choice = self.0.iter().find(|(word, _)| *word == text);
        choice.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
            format!("must be {}", words.join(" or "))
        })
    }
}

/// Addresses with a port, such as the one given.
pub(super) struct Addresses(pub(super) &'static str);

impl Values for Addresses {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| {
            let port = self.0.rsplit(':').next().unwrap_or_default();
            format!("must be an address and a port, such as {} or [::]:{port}", self.0)
        })
    }
}

/// Addresses with a port, such as the one given, or `off`.
pub(super) struct AddressesOrOff(pub(super) &'static str);

impl Values for AddressesOrOff {
    type Value = Option<SocketAddr>;

    fn parse(&self, text: &str) -> Result<Option<SocketAddr>, String> {
        match text {
            "off" => Ok(None),
            text => Addresses(self.0).parse(text).map(Some).map_err(|problem| problem + ", or off"),
        }
    }
}

/// `StringOrURI`s (RFC 7519, 2) that survive being written into a header and a log line.
pub(super) struct Names();

impl Values for Names {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        if text.len() <= NAME_MAX_BYTES && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            Ok(text.to_owned())
        } else {
            Err("must have at most 255 bytes, without white space or control characters".to_owned())
        }
    }
}

/// Paths of files. Whoever reads a file says what is wrong with it.
pub(super) struct Files();

impl Values for Files {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }
}

/// Log levels, also for single modules.
pub(super) struct LogFilters();

impl Values for LogFilters {
    type Value = LogFilter;

    fn parse(&self, text: &str) -> Result<LogFilter, String> {
        text.parse().map_err(|_| {
            "must be error, warn, info, debug or trace, or a list such as info,identity::rpc=debug".to_owned()
        })
    }
}

/// The URL of a database. Its reader parses it, since that has warnings as well.
pub(super) struct DatabaseUrls();

impl Values for DatabaseUrls {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// Secrets. Only [`Reader::secret`](super::read::Reader::secret) reads them.
pub(super) struct Secrets();

impl Values for Secrets {
    type Value = ();

    fn parse(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
