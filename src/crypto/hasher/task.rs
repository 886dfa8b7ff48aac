//! What a job wants computed, one bcrypt computation after the other.
//!
//! A task is a state machine without a thread: [`Task::step`] names the next computation, and takes
//! the digest of the one before. So an engine may run the steps of many tasks side by side.

use tokio::sync::oneshot;

use super::engine::Computation;
use super::{Cost, HashError, Verdict};
use crate::crypto::random;
use crate::crypto::scheme::{self, Digest, Salt, StoredHash};
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

/// What remains to be done for one caller. Holds a copy of the password, erased when dropped.
pub(super) enum Task {
    /// Make a new hash.
    Hash(Box<HashTask>),
    /// Check a password.
    Verify(Box<VerifyTask>),
}

/// A hash to be made.
pub(super) struct HashTask {
    password: Password,
    cost: Cost,
    salt: Salt,
    answer: Answer<PasswordHash>,
}

/// A check to be made.
pub(super) struct VerifyTask {
    password: Password,
    stored: Option<StoredHash>,
    target: Cost,
    /// What is still to be computed for nothing but its time, cheapest last.
    dummies: Vec<Cost>,
    answer: Answer<Verdict>,
}

/// What comes next.
pub(super) enum Step {
    /// This computation, whose digest the next call of [`Task::step`] takes.
    Compute(Task, Computation),
    /// Nothing but to tell the caller.
    Done(Outcome),
}

/// What the caller is still to be told.
pub(super) enum Outcome {
    /// The new hash.
    Hash(Answer<PasswordHash>, PasswordHash),
    /// The verdict.
    Verify(Answer<Verdict>, Verdict),
    /// Nothing: the caller has left.
    Abandoned,
}

impl Outcome {
    /// Tells the caller.
    pub(super) fn send(self) {
        match self {
            Self::Hash(answer, hash) => answer.send(Ok(hash)),
            Self::Verify(answer, verdict) => answer.send(Ok(verdict)),
            Self::Abandoned => {}
        }
    }
}

impl Task {
    /// The task of hashing `password` at `cost`.
    pub(super) fn hash(password: Password, cost: Cost, answer: Answer<PasswordHash>) -> Self {
        Self::Hash(Box::new(HashTask { password, cost, salt: random::bytes(), answer }))
    }

    /// The task of checking `password`, which takes at least `target` when it fails.
    pub(super) fn verify(
        password: Password,
        stored: Option<StoredHash>,
        target: Cost,
        answer: Answer<Verdict>,
    ) -> Self {
        let dummies = match &stored {
            Some(stored) => stored.cost.up_to(target).collect(),
            None => Vec::new(),
        };
        Self::Verify(Box::new(VerifyTask { password, stored, target, dummies, answer }))
    }

    /// The most work it can be, in rounds.
    pub(super) fn rounds(&self) -> u64 {
        match self {
            Self::Hash(task) => task.cost.rounds(),
            Self::Verify(task) => {
                task.stored.as_ref().map_or(task.target, |stored| stored.cost.max(task.target)).rounds()
            }
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Hash(task) => task.answer.0.is_closed(),
            Self::Verify(task) => task.answer.0.is_closed(),
        }
    }

    /// Ends the task without its having been done.
    pub(super) fn refuse(self, error: HashError) {
        match self {
            Self::Hash(task) => task.answer.send(Err(error)),
            Self::Verify(task) => task.answer.send(Err(error)),
        }
    }

    /// The first computation.
    pub(super) fn start(self) -> Step {
        let computation = match &self {
            Self::Hash(task) => Computation {
                cost: task.cost,
                salt: task.salt,
                key: scheme::key_of_new(&task.password, &task.salt),
            },
            Self::Verify(task) => match &task.stored {
                Some(stored) => {
                    Computation { cost: stored.cost, salt: stored.salt, key: stored.key(&task.password) }
                }
                None => dummy(task.target),
            },
        };
        Step::Compute(self, computation)
    }

    /// Takes the digest of the computation before.
    pub(super) fn step(self, digest: &Digest) -> Step {
        if self.is_abandoned() {
            return Step::Done(Outcome::Abandoned);
        }
        match self {
            Self::Hash(task) => {
                let hash = scheme::write_new(&task.password, task.cost, &task.salt, digest);
                Step::Done(Outcome::Hash(task.answer, hash))
            }
            Self::Verify(task) => task.step(digest),
        }
    }
}

impl VerifyTask {
    fn step(mut self: Box<Self>, digest: &Digest) -> Step {
        // The stored hash counts once; a dummy's digest proves nothing.
        if let Some(stored) = self.stored.take()
            && stored.key_proves(&self.password)
            && stored.has_digest(digest)
        {
            let outdated = stored.is_outdated(&self.password, self.target);
            return Step::Done(Outcome::Verify(self.answer, Verdict::Match { outdated }));
        }
        match self.dummies.pop() {
            Some(cost) => Step::Compute(Task::Verify(self), dummy(cost)),
            None => Step::Done(Outcome::Verify(self.answer, Verdict::Mismatch)),
        }
    }
}

/// A computation at `cost` whose digest nobody reads.
pub(super) fn dummy(cost: Cost) -> Computation {
    Computation { cost, salt: Salt::default(), key: scheme::dummy_key() }
}
