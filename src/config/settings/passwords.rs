//! What a command is told that gives somebody a password and then ends.

use super::{
    DEFAULT_PASSWORD_MIN_LENGTH, DatabaseSettings, HashSettings, LogSettings, PASSWORD_MIN_LENGTH, database,
    hash, log,
};
use crate::config::read::Reader;
use crate::config::{Environment, Fault, Flags, Resolved};

/// What a command needs that gives somebody a password and then ends.
#[derive(Clone, Debug)]
pub struct PasswordSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// How passwords are hashed.
    pub hash: HashSettings,
    /// Fewest characters in a new password: 8 to 64.
    pub min_length: usize,
    /// Logging.
    pub log: LogSettings,
}

impl PasswordSettings {
    /// Reads the settings of the database, of passwords and of logging, as [`super::Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let database = database(&mut reader);
        let hash = hash(&mut reader);
        let min_length = min_length(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.map(|database| Self { database, hash, min_length, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

/// Fewest characters in a new password.
pub(super) fn min_length(reader: &mut Reader<'_>) -> usize {
    reader.number(PASSWORD_MIN_LENGTH, 8..=64).unwrap_or(DEFAULT_PASSWORD_MIN_LENGTH) as usize
}
