//! The keys that sign access tokens: in the database, sealed under the master key.
//!
//! `custody` makes, exchanges and retires them, `follow` gives a running process those that the
//! database holds, `schedule` says which of them does what at which time.

mod custody;
mod events;
mod follow;
mod schedule;

use std::time::Duration;

use crate::crypto::UnreadableKey;
use crate::domain::Timestamp;
use crate::storage::{self, Storage, StorageError};

pub use custody::{Custody, Takeover};
pub use follow::KeyFollower;
pub use schedule::{KeyState, ScheduledKey};

/// Why there are no keys to sign with, or why they cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The key is there, but was sealed under another master key.
    #[error(
        "the signing key {kid} in the database was encrypted with another master key: start with the \
         master key that it was made under (IDENTITY_MASTER_KEY or IDENTITY_MASTER_KEY_FILE), or name \
         that one in IDENTITY_MASTER_KEY_PREVIOUS; a key that was made under a wrong one by mistake goes with \
         `identity keys retire {kid}`"
    )]
    WrongMasterKey {
        /// The key's id.
        kid: String,
    },
    /// A stored key is not one.
    #[error("the signing key {kid} cannot be used: {reason}")]
    Unusable {
        /// The key's id.
        kid: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The keys are being exchanged already.
    #[error("the key {kid} is published already and signs from {from} on; --now lets it sign at once")]
    RotationUnderWay {
        /// The id of the key that signs next.
        kid: String,
        /// From when on.
        from: Timestamp,
    },
    /// All keys have gone while they were being read.
    #[error("there is no key to sign with; start again to have one made")]
    None,
    /// There is no such key, or it is not in use any more.
    #[error("there is no key {0:?} in use; `identity keys list` names them")]
    NotFound(String),
}

/// How long it takes until everybody who verifies tokens knows a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation(Duration);

impl Propagation {
    /// No process is longer without a look at the database, however long propagation may take.
    const LONGEST_RELOAD: Duration = Duration::from_secs(10);
    /// Nor may anybody keep the published keys for longer.
    const LONGEST_MAX_AGE: Duration = Duration::from_secs(5 * 60);

    /// A new key signs after `delay`.
    pub const fn new(delay: Duration) -> Self {
        Self(delay)
    }

    /// From a key's publication until it signs.
    pub const fn delay(self) -> Duration {
        self.0
    }

    /// How often a process looks for new keys. Together with [`Propagation::max_age`] three quarters of
    /// the delay at most.
    pub fn reload_interval(self) -> Duration {
        (self.0 / 4).min(Self::LONGEST_RELOAD)
    }

    /// How long others may keep what a process publishes.
    pub fn max_age(self) -> Duration {
        (self.0 / 2).min(Self::LONGEST_MAX_AGE)
    }
}

/// Whether the database holds what was made under a master key: signing keys that are sealed under it,
/// or sessions, which have refresh tokens. Users alone are of use under any: an operator may create them before
/// the first server starts.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn are_bound(storage: &Storage) -> Result<bool, StorageError> {
    let mut conn = storage.read().await?;
    Ok(storage::signing_keys::find_any(&mut conn).await? || storage::sessions::find_any(&mut conn).await?)
}

fn unreadable(kid: &str, error: UnreadableKey) -> KeysError {
    KeysError::Unusable { kid: kid.to_owned(), reason: error.to_string() }
}
