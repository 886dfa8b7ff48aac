//! Passwords that a command gives somebody: read, held against the policy, and hashed.

use std::time::Duration;

use super::operator::{Failure, checked};
use super::prompt;
use crate::config::HashSettings;
use crate::crypto::hasher::{Hasher, HasherSettings, Terms, Width};
use crate::domain::{Email, PasswordHash, PasswordPolicy};

/// Nobody else waits for the one hash of a command, however slow the machine is.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What a new password has to be, and how it is hashed.
pub(super) struct NewPasswords {
    hash: HashSettings,
    policy: PasswordPolicy,
}

impl NewPasswords {
    pub(super) fn new(hash: HashSettings, policy: PasswordPolicy) -> Self {
        Self { hash, policy }
    }

    /// The hash of a password that is asked for, or read from standard input, for the user of `email`.
    ///
    /// # Errors
    /// The rule that the password breaks, by name; it is not quoted.
    pub(super) async fn obtain(&self, email: &Email) -> Result<PasswordHash, Failure> {
        let password = prompt::new_password()?;
        checked("password", self.policy.check(&password, Some(email)))?;
        let hasher = Hasher::start(HasherSettings {
            lanes: Width::new(1),
            max_wait: LONGEST_WAIT,
            engine: self.hash.engine,
            ..HasherSettings::new(self.hash.cost)
        })?;
        Ok(hasher.reserve(&Terms::SYSTEM)?.hash(&password).await?)
    }
}
