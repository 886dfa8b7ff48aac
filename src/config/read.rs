//! Reads single settings and collects what is wrong with them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::SecretString;

use super::{Environment, Fault, Flags, Resolved};

/// A setting's variable, and where its flag is among the flags.
#[derive(Clone, Copy)]
pub(super) struct Name {
    variable: &'static str,
    flag: Option<fn(&Flags) -> Option<&str>>,
}

impl Name {
    pub(super) const fn with_flag(variable: &'static str, flag: fn(&Flags) -> Option<&str>) -> Self {
        Self { variable, flag: Some(flag) }
    }

    /// A secret, or what is not meant for every day: it has no flag.
    pub(super) const fn without_flag(variable: &'static str) -> Self {
        Self { variable, flag: None }
    }

    /// `IDENTITY_LISTEN (--listen)`, or the variable alone.
    fn shown(&self) -> String {
        match self.flag {
            Some(_) => format!("{} ({})", self.variable, flag_name(self.variable)),
            None => self.variable.to_owned(),
        }
    }
}

/// The flag that stands for `variable`: `--listen` for `IDENTITY_LISTEN`.
pub(super) fn flag_name(variable: &str) -> String {
    let name = variable.strip_prefix("IDENTITY_").unwrap_or(variable);
    format!("--{}", name.to_ascii_lowercase().replace('_', "-"))
}

/// Reads settings one after the other and keeps every fault and warning.
pub(super) struct Reader<'a> {
    flags: &'a Flags,
    environment: &'a dyn Environment,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a Flags, environment: &'a dyn Environment) -> Self {
        Self { flags, environment, faults: Vec::new(), warnings: Vec::new() }
    }

    /// The text that was given: the flag's, else the variable's. Empty counts as not given.
    pub(super) fn text(&mut self, name: Name) -> Option<String> {
        let flag = name.flag.and_then(|flag| flag(self.flags)).filter(|text| !text.is_empty());
        if let Some(text) = flag {
            return Some(text.to_owned());
        }
        self.variable(name).filter(|text| !text.is_empty())
    }

    /// The text that was given, as [`Reader::text`] has it, but empty when that is what was given.
    pub(super) fn text_or_empty(&mut self, name: Name) -> Option<String> {
        match name.flag.and_then(|flag| flag(self.flags)) {
            Some(flag) => Some(flag.to_owned()),
            None => self.variable(name),
        }
    }

    /// A secret, which has no flag. An empty one counts as not given; that, and a line end that a file or a
    /// command left behind it, is warned of. `line_end` says what becomes of that.
    pub(super) fn secret(&mut self, name: Name, line_end: &str) -> Option<SecretString> {
        let secret = self.variable(name)?;
        if secret.is_empty() {
            self.warn(name, "is set but empty, which counts as not set");
            return None;
        }
        if secret.ends_with('\n') {
            self.warn(name, format_args!("ends with a line end, which {line_end}"));
        }
        Some(secret.into())
    }

    fn variable(&mut self, name: Name) -> Option<String> {
        let value = self.environment.get(name.variable)?;
        value.into_string().map_err(|_| self.fault(name, "must be UTF-8")).ok()
    }

    /// What `parse` makes of the text that was given; `None` when there is none or it is wrong.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        name: Name,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        parse(&text).map_err(|problem| self.fault(name, problem)).ok()
    }

    /// An address and a port, or `off`; a fault tells `example`.
    pub(super) fn address_or_off(&mut self, name: Name, example: SocketAddr) -> Option<Option<SocketAddr>> {
        self.parsed(name, |text| match text {
            "off" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let port = example.port();
                format!("must be an address and a port, such as {example} or [::]:{port}, or off")
            }),
        })
    }

    /// A whole number within `range`.
    pub(super) fn number(&mut self, name: Name, range: RangeInclusive<u32>) -> Option<u32> {
        self.parsed(name, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
        })
    }

    /// A duration within `range`, as humantime writes it: `15m`, `1h 30m`, `14d`.
    pub(super) fn duration(&mut self, name: Name, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(name, |text| {
            let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
            duration.ok_or_else(|| {
                let [least, most] = [range.start(), range.end()].map(|end| humantime::format_duration(*end));
                format!("must be a duration from {least} to {most}, such as 90s, 15m, 1h 30m or 14d")
            })
        })
    }

    /// The value that stands beside the given word.
    pub(super) fn choice<T: Copy>(&mut self, name: Name, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(name, |text| {
            let choice = choices.iter().find(|(word, _)| *word == text);
            choice.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                format!("must be {}", words.join(" or "))
            })
        })
    }

    pub(super) fn fault(&mut self, name: Name, problem: impl Display) {
        self.faults.push(Fault { name: name.shown(), problem: problem.to_string() });
    }

    pub(super) fn warn(&mut self, name: Name, warning: impl Display) {
        self.warnings.push(format!("{}: {warning}", name.shown()));
    }

    /// `settings` when nothing was wrong.
    ///
    /// # Errors
    /// Every fault, in the order of reading.
    pub(super) fn finish<T>(self, settings: T) -> Result<Resolved<T>, Vec<Fault>> {
        if self.faults.is_empty() {
            Ok(Resolved { settings, warnings: self.warnings })
        } else {
            Err(self.faults)
        }
    }
}
