//! Reads single settings and collects what is wrong with them.

use std::fmt::Display;

use secrecy::SecretString;

use super::setting::{Declared, Secrets, Setting, Values};
use super::{Environment, Fault, Flags, Resolved};

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

    /// The value that was given; the default when none was or it is wrong.
    pub(super) fn get<V: Values>(&mut self, setting: &Setting<V>) -> V::Value {
        self.given(setting).unwrap_or_else(|| setting.default_value())
    }

    /// The value that was given; `None` when none was or it is wrong.
    pub(super) fn given<V: Values>(&mut self, setting: &Setting<V>) -> Option<V::Value> {
        let text = self.text(setting)?;
        setting.values.parse(&text).map_err(|problem| self.fault(setting, problem)).ok()
    }

    /// The text that was given: the flag's, else the variable's. Empty counts as not given.
    pub(super) fn text(&mut self, setting: &dyn Declared) -> Option<String> {
        let flag = self.flags.get(setting).filter(|text| !text.is_empty());
        if let Some(text) = flag {
            return Some(text.to_owned());
        }
        self.variable(setting).filter(|text| !text.is_empty())
    }

    /// The text that was given, as [`Reader::text`] has it, but empty when that is what was given.
    pub(super) fn text_or_empty(&mut self, setting: &dyn Declared) -> Option<String> {
        match self.flags.get(setting) {
            Some(flag) => Some(flag.to_owned()),
            None => self.variable(setting),
        }
    }

    /// A secret. An empty one counts as not given; that, and a line end that a file or a command left behind it,
    /// is warned of. `line_end` says what becomes of that.
    pub(super) fn secret(&mut self, setting: &Setting<Secrets>, line_end: &str) -> Option<SecretString> {
        let secret = self.variable(setting)?;
        if secret.is_empty() {
            self.warn(setting, "is set but empty, which counts as not set");
            return None;
        }
        if secret.ends_with('\n') {
            self.warn(setting, format_args!("ends with a line end, which {line_end}"));
        }
        Some(secret.into())
    }

    fn variable(&mut self, setting: &dyn Declared) -> Option<String> {
        let value = self.environment.get(setting.variable())?;
        value.into_string().map_err(|_| self.fault(setting, "must be UTF-8")).ok()
    }

    pub(super) fn fault(&mut self, setting: &dyn Declared, problem: impl Display) {
        self.faults.push(Fault { name: setting.shown(), problem: problem.to_string() });
    }

    pub(super) fn warn(&mut self, setting: &dyn Declared, warning: impl Display) {
        self.warnings.push(format!("{}: {warning}", setting.shown()));
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
