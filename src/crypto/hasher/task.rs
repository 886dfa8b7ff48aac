//! What one caller wants: the computation, and what its outcome is to him.

use std::time::Instant;

use bcrypt_lanes::{Job, Outcome};
use tokio::sync::oneshot;

use super::cost::{Cost, Costs};
use super::terms::{HashError, Verdict};
use crate::crypto::random;
use crate::crypto::scheme::{self, NewHash, StoredHash};
use crate::domain::{Password, PasswordHash};

/// Where the outcome goes, once.
pub(super) struct Answer<T>(oneshot::Sender<Result<T, HashError>>);

impl<T> Answer<T> {
    /// Answers through `reply`.
    pub(super) fn new(reply: oneshot::Sender<Result<T, HashError>>) -> Self {
        Self(reply)
    }

    fn send(self, outcome: Result<T, HashError>) {
        // Nobody there to hear it: the caller left in the meantime, which is no fault.
        let _ = self.0.send(outcome);
    }
}

/// A computation with the one who waits for it. Holds the key that a password became, which is erased
/// when dropped, and not the password.
pub(super) struct Task {
    /// What to compute.
    pub(super) job: Job,
    /// Who waits.
    pub(super) caller: Caller,
    /// Since when.
    pub(super) since: Instant,
    /// When he stops waiting.
    pub(super) deadline: Option<Instant>,
}

/// Who waits for what.
pub(super) enum Caller {
    /// For a new hash.
    Hash { new: NewHash, answer: Answer<PasswordHash> },
    /// For a verdict. `outdated` is told with a match.
    Verify { outdated: bool, answer: Answer<Verdict> },
}

impl Task {
    /// The task of hashing `password` at `cost`.
    pub(super) fn hash(
        password: &Password,
        cost: Cost,
        deadline: Option<Instant>,
        answer: Answer<PasswordHash>,
    ) -> Self {
        let (new, key) = scheme::new_hash(password, cost, random::bytes());
        let job = Job::hash(key, new.salt, cost.into());
        Self { job, caller: Caller::Hash { new, answer }, since: Instant::now(), deadline }
    }

    /// The task of checking `password` against `stored`, or against nothing. A failure takes as much
    /// work as a hash at the floor of `costs`, at least.
    pub(super) fn verify(
        password: &Password,
        stored: Option<&StoredHash>,
        costs: Costs,
        deadline: Option<Instant>,
        answer: Answer<Verdict>,
    ) -> Self {
        let (job, outdated) = match stored {
            Some(stored) => {
                // Where the right digest proves nothing, it is compared with one that nothing has.
                let expected = if stored.key_proves(password) { stored.digest } else { random::bytes() };
                let job = Job::check(stored.key(password), stored.salt, stored.cost.into(), expected);
                (job, stored.is_outdated(password, costs.new))
            }
            None => {
                let key = scheme::dummy_key();
                (Job::check(key, random::bytes(), costs.floor.into(), random::bytes()), false)
            }
        };
        let job = job.with_floor(costs.floor.into());
        Self { job, caller: Caller::Verify { outdated, answer }, since: Instant::now(), deadline }
    }

    /// The most work that it can be, in expansions.
    pub(super) fn expansions(&self) -> u64 {
        self.job.max_expansions()
    }
}

impl Caller {
    /// Whether nobody waits any more.
    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Hash { answer, .. } => answer.0.is_closed(),
            Self::Verify { answer, .. } => answer.0.is_closed(),
        }
    }

    /// Tells the caller what came out.
    pub(super) fn tell(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Hash { new, answer }, Outcome::Digest(digest)) => answer.send(Ok(new.write(&digest))),
            (Self::Verify { outdated, answer }, Outcome::Match) => {
                answer.send(Ok(Verdict::Match { outdated }));
            }
            (Self::Verify { answer, .. }, Outcome::Mismatch) => answer.send(Ok(Verdict::Mismatch)),
            (Self::Hash { .. }, Outcome::Match | Outcome::Mismatch)
            | (Self::Verify { .. }, Outcome::Digest(_)) => {
                unreachable!("a job ends in what it was for")
            }
        }
    }

    /// Tells the caller that nothing will come out.
    pub(super) fn refuse(self, error: HashError) {
        match self {
            Self::Hash { answer, .. } => answer.send(Err(error)),
            Self::Verify { answer, .. } => answer.send(Err(error)),
        }
    }
}
