//! The settings of the server and of commands, as the parts that use them take them.

mod connections;
mod database;
mod hashing;
mod log;
mod server;
mod tls;
mod tokens;

use std::time::Duration;

use secrecy::SecretString;

use super::declared::{
    IDENTITY_AUDIT_RETENTION, IDENTITY_CHANGE_BURST, IDENTITY_CHANGE_RATE, IDENTITY_REGISTRATION,
    IDENTITY_REGISTRATION_LIMIT,
};
use super::read::Reader;
use super::{Environment, Fault, Flags, MasterKeySettings, Resolved, secrets};
use crate::budget::Rate;
use crate::crypto::access_token::TokenSettings;
use crate::domain::PasswordPolicy;
use crate::service::{ChangeRules, RegistrationRules, SessionRules};
use crate::telemetry::logs::LogSettings;

pub use connections::ConnectionSettings;
pub use database::{DatabaseSettings, MigrateMode};
pub use hashing::HashSettings;
pub use log::log_filter_in;
pub use server::ServerSettings;
pub(super) use tls::Plaintext;
pub use tokens::SigningSettings;

/// Everything that the server is told. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub database: DatabaseSettings,
    /// Where it listens and how it stops.
    pub server: ServerSettings,
    /// How passwords are hashed.
    pub hash: HashSettings,
    /// Access tokens.
    pub tokens: TokenSettings,
    /// Sessions.
    pub session: SessionRules,
    /// Who may register, and how often.
    pub registration: RegistrationRules,
    /// How much a user may change.
    pub changes: ChangeRules,
    /// New passwords.
    pub password_policy: PasswordPolicy,
    /// Signs tokens with HS256 when set: 32 bytes or more.
    pub jwt_secret: Option<SecretString>,
    /// The master key.
    pub master_key: MasterKeySettings,
    /// The keys that sign tokens when there is no secret.
    pub signing: SigningSettings,
    /// How long audit events are kept; for ever when none is given.
    pub audit_retention: Option<Duration>,
    /// Logging.
    pub log: LogSettings,
}

/// The settings of a command that changes the signing keys and then ends.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The database.
    pub database: DatabaseSettings,
    /// From which the master key may come.
    pub jwt_secret: Option<SecretString>,
    /// The master key.
    pub master_key: MasterKeySettings,
    /// The keys that sign tokens.
    pub signing: SigningSettings,
    /// Logging.
    pub log: LogSettings,
}

/// The settings of a command that gives somebody a password and then ends.
#[derive(Clone, Debug)]
pub struct PasswordSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// How passwords are hashed.
    pub hash: HashSettings,
    /// New passwords.
    pub policy: PasswordPolicy,
    /// Logging.
    pub log: LogSettings,
}

/// The settings of a command that works on the database and then ends.
#[derive(Clone, Debug)]
pub struct MaintenanceSettings {
    /// The database.
    pub database: DatabaseSettings,
    /// Logging.
    pub log: LogSettings,
}

impl Settings {
    /// Reads every setting: the flag, else the variable unless it is empty, else the default. An empty
    /// `DATABASE_URL` is a fault.
    /// Variables of other names are ignored.
    ///
    /// # Errors
    /// Every setting that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let jwt_secret = secrets::jwt_secret(&mut reader);
        let database = database::read(&mut reader);
        let url = database.as_ref().map(|database| &database.url);
        let master_key = secrets::master_key(&mut reader, url, jwt_secret.is_some());
        let server = server::read(&mut reader);
        let hash = hashing::read(&mut reader);
        let password_policy = hashing::policy(&mut reader);
        let tokens = tokens::read(&mut reader);
        let session = tokens::sessions(&mut reader);
        let signing = tokens::signing(&mut reader);
        let registration = RegistrationRules {
            open_to: reader.get(&IDENTITY_REGISTRATION),
            hourly: reader.given(&IDENTITY_REGISTRATION_LIMIT),
        };
        let user =
            Rate { burst: reader.get(&IDENTITY_CHANGE_BURST), per_second: reader.get(&IDENTITY_CHANGE_RATE) };
        let changes = ChangeRules { user };
        let audit_retention = reader.given(&IDENTITY_AUDIT_RETENTION);
        let log = log::read(&mut reader);
        // The two are missing only after a fault was noted.
        let settings = database.zip(master_key).map(|(database, master_key)| Self {
            database,
            server,
            hash,
            tokens,
            session,
            registration,
            changes,
            password_policy,
            jwt_secret,
            master_key,
            signing,
            audit_retention,
            log,
        });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl KeySettings {
    /// Reads the settings of the database, of keys and of logging, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let jwt_secret = secrets::jwt_secret(&mut reader);
        let database = database::read(&mut reader);
        let url = database.as_ref().map(|database| &database.url);
        let master_key = secrets::master_key(&mut reader, url, jwt_secret.is_some());
        let signing = tokens::signing(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.zip(master_key);
        let settings =
            settings.map(|(database, master_key)| Self { database, jwt_secret, master_key, signing, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl PasswordSettings {
    /// Reads the settings of the database, of passwords and of logging, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let database = database::read(&mut reader);
        let hash = hashing::read(&mut reader);
        let policy = hashing::policy(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.map(|database| Self { database, hash, policy, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl MaintenanceSettings {
    /// Reads the settings of the database and of logging, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let database = database::read(&mut reader);
        let log = log::read(&mut reader);
        let settings = database.map(|database| Self { database, log });
        reader.finish(settings).map(Resolved::unwrap_settings)
    }
}

impl HashSettings {
    /// Reads the settings of password hashing, as [`Settings::resolve`] does.
    ///
    /// # Errors
    /// Every one of these settings that is wrong, at once.
    pub fn resolve(flags: &Flags, environment: &dyn Environment) -> Result<Resolved<Self>, Vec<Fault>> {
        let mut reader = Reader::new(flags, environment);
        let settings = hashing::read(&mut reader);
        reader.finish(settings)
    }
}

impl<T> Resolved<Option<T>> {
    fn unwrap_settings(self) -> Resolved<T> {
        let settings = self.settings.expect("a setting is missing only after its fault was noted");
        Resolved { settings, warnings: self.warnings }
    }
}

#[cfg(test)]
mod tests;
