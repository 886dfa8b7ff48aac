//! What the operator decides: typed settings, from flags over environment variables over defaults.
//!
//! Everything is checked before anything starts, the files that settings name included, and every fault
//! is reported at once. No message quotes a value, since it may be a secret; only the certificates' path
//! is shown. Acting on the settings is left to their readers.
//!
//! `declared` has the settings, each declared once; `setting` has the kinds of their values; `settings` puts them
//! together for those who use them.

mod declared;
mod environment;
mod flags;
mod read;
mod secrets;
mod setting;
mod settings;

use std::fmt;

pub use crate::telemetry::logs::{LogFilter, LogFormat, LogSettings};
pub use environment::{Environment, MapEnvironment, ProcessEnvironment};
pub use flags::{Flags, secrets_help};
pub use secrets::{MasterKeySettings, MasterKeySource, master_key_file};
pub use settings::{
    ConnectionSettings, DatabaseSettings, HashSettings, KeySettings, MaintenanceSettings, MigrateMode,
    PasswordSettings, ServerSettings, Settings, SigningSettings, log_filter_in,
};

/// One setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable, with its flag where it has one: `IDENTITY_LISTEN (--listen)`.
    pub name: String,
    /// What the value must be, as a predicate that follows the name. Never quotes the value.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

/// Settings that passed every check.
#[derive(Debug)]
pub struct Resolved<T> {
    /// The settings.
    pub settings: T,
    /// What the operator should know though nothing is wrong, a sentence each, without secrets.
    pub warnings: Vec<String>,
}
