//! What a call asks of the hasher, and how it is answered.

use std::time::{Duration, Instant};

use crate::domain::Party;

/// For whom a hash is computed, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When the caller stops waiting, if that is known.
    pub deadline: Option<Instant>,
    /// Whose share of the queue the job takes.
    pub party: Party,
}

impl Terms {
    /// A hash for the service itself, whenever it comes.
    pub const SYSTEM: Self = Self { deadline: None, party: Party::System };
}

/// What a check of a password found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is the right one.
    Match {
        /// The stored hash is not of the cost, or not of the form, of what [`Slot::hash`](super::Slot::hash) writes
        /// today: replace it while the password is at hand.
        outdated: bool,
    },
    /// The password is wrong, or there is nothing to compare it with.
    Mismatch,
}

/// Why no hash was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The queue is full, or so long that the answer would come after the caller's deadline.
    #[error("too many passwords are waiting to be hashed")]
    Overloaded {
        /// When the queue is expected to have emptied; 100 ms to 30 s.
        retry_after: Duration,
    },
    /// The hasher was [stopped](super::Hasher::stop) before it came to this job, or gave it up after a fault of its own,
    /// which it has logged.
    #[error("the password hasher was stopped")]
    Stopped,
    /// The stored hash is not in the notation of its scheme, or its cost exceeds
    /// [`Cost::MAX`](super::Cost::MAX).
    #[error("the stored password hash is unreadable")]
    Unreadable,
}
