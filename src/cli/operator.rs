//! What commands have in common that do to users, tenants and events what callers do over gRPC: where they work,
//! on whose authority, and in units of work.

use std::error::Error;
use std::fmt::Display;

use super::arguments::Consent;
use super::table::Form;
use super::{Outcome, database, passwords, prompt, warned};
use crate::config::{Environment, Fault, Flags, MaintenanceSettings, PasswordSettings};
use crate::domain::{Clock as _, SystemClock, Timestamp};
use crate::service::{Authority, ServiceError};
use crate::storage::{Storage, Tx};

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// The longest name of an account that gets into an audit event; no system has longer ones.
const MAX_NAME_CHARS: usize = 256;

/// What a command is started with.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) flags: &'a Flags,
    pub(super) environment: &'a dyn Environment,
    pub(super) form: Form,
}

/// Whoever runs the command, at the database.
pub(super) struct Operator {
    pub(super) storage: Storage,
    pub(super) by: Authority,
    pub(super) form: Form,
}

impl Start<'_> {
    /// Runs `command` on the database, which is closed in order afterwards.
    ///
    /// # Errors
    /// The faults of the settings that it needs.
    pub(super) fn run(self, command: impl AsyncFnOnce(Operator) -> Outcome) -> Result<Outcome, Vec<Fault>> {
        let MaintenanceSettings { database, log } =
            warned(MaintenanceSettings::resolve(self.flags, self.environment)?);
        Ok(database::run(&log, &database, async |storage| command(self.operator(storage)).await))
    }

    /// As [`Start::run`], for a `command` that deletes: unless consent was neither given nor can be asked for.
    ///
    /// # Errors
    /// The faults of the settings that it needs.
    pub(super) fn run_deleting(
        self,
        consent: Consent,
        command: impl AsyncFnOnce(Operator) -> Outcome,
    ) -> Result<Outcome, Vec<Fault>> {
        match prompt::require_consent(consent) {
            Ok(()) => self.run(command),
            Err(misuse) => Ok(Err(misuse.into())),
        }
    }

    /// As [`Start::run`], for a `command` that gives somebody a password.
    ///
    /// # Errors
    /// The faults of the settings that it needs.
    pub(super) fn run_with_passwords(
        self,
        command: impl AsyncFnOnce(Operator, passwords::NewPasswords) -> Outcome,
    ) -> Result<Outcome, Vec<Fault>> {
        let PasswordSettings { database, hash, policy, log } =
            warned(PasswordSettings::resolve(self.flags, self.environment)?);
        let passwords = passwords::NewPasswords::new(hash, policy);
        Ok(database::run(&log, &database, async |storage| command(self.operator(storage), passwords).await))
    }

    fn operator(self, storage: Storage) -> Operator {
        Operator { storage, by: authority(self.environment), form: self.form }
    }
}

/// On whose authority a command changes something: the machine's name for whoever runs it, if it has one.
pub(super) fn authority(environment: &dyn Environment) -> Authority {
    Authority::operator(name(environment))
}

/// What the machine calls whoever runs the command, if it says so.
pub(super) fn name(environment: &dyn Environment) -> Option<String> {
    let name = |variable| {
        let name = environment.get(variable)?.into_string().ok()?;
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
        (!name.is_empty()).then_some(name)
    };
    name("USER").or_else(|| name("LOGNAME"))
}

impl Operator {
    /// Makes `change` in a unit of work of that name. Nothing is written when it fails.
    pub(super) async fn change<T>(
        &self,
        unit: &'static str,
        change: impl AsyncFnOnce(&mut Tx, &Authority, Timestamp) -> Result<T, ServiceError>,
    ) -> Result<T, Failure> {
        let mut tx = self.storage.begin(unit).await?;
        let changed = change(&mut tx, &self.by, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(changed)
    }
}

/// What was parsed; what is wrong with it begins with `what` it is.
pub(super) fn checked<T>(what: &str, parsed: Result<T, impl Display>) -> Result<T, Failure> {
    parsed.map_err(|problem| format!("the {what} {problem}").into())
}
