//! Computes and checks password hashes, on threads that nothing else waits for.
//!
//! A [`Hasher`] is the front: it turns a password into a task, puts that in a bounded queue
//! and awaits the answer. The queue refuses early rather than late; the workers run at the lowest
//! scheduling priority, so that a flood of logins leaves look-ups their time. Which passwords are
//! good enough, and who may try how often, is decided elsewhere.

mod engine;
mod pace;
mod queue;
mod task;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::engine::{BcryptCrate, Engine};
use self::queue::{Job, Priority, Queue};
use self::task::{Answer, Task};
use super::scheme::StoredHash;
use crate::domain::{Password, PasswordHash};

/// How often bcrypt stretches a password: 2 to the power of this, from 4 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u32);

impl Cost {
    /// The least that bcrypt defines.
    pub const MIN: Self = Self(4);
    /// Three to five seconds a hash, and the most that a stored one may ask for; more serves nobody but an attacker who wants the cores busy.
    pub const MAX: Self = Self(16);

    /// The cost `exponent`, or `None` outside of [`Cost::MIN`] to [`Cost::MAX`].
    pub fn new(exponent: u32) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&exponent).then_some(Self(exponent))
    }

    /// The exponent.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The work of one computation, in rounds of the key schedule.
    const fn rounds(self) -> u64 {
        1 << self.0
    }

    /// The costs from this one up to, but without, `end`. Computing each of them once and this one
    /// once more is as much work as `end` once: `2^c + 2^c + … + 2^(end-1) = 2^end`.
    fn up_to(self, end: Self) -> impl Iterator<Item = Self> + use<> {
        (self.0..end.0).map(Self)
    }
}

/// How a [`Hasher`] is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasherSettings {
    /// Threads that do nothing but hash.
    pub threads: NonZeroUsize,
    /// Jobs that wait at most, beyond those that run. Rehashes have a queue of the same size.
    pub queue_capacity: usize,
    /// The cost of new hashes, and the time that every failed check takes at least.
    pub cost: Cost,
}

/// What a check of a password found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is the right one.
    Match {
        /// The stored hash is not of the cost, or not of the form, of what [`Hasher::hash`] writes
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
    /// The hasher was [stopped](Hasher::stop) before it came to this job, or gave it up after a fault of its own,
    /// which it has logged.
    #[error("the password hasher was stopped")]
    Stopped,
    /// The stored hash is not in the notation of its scheme, or its cost exceeds
    /// [`Cost::MAX`].
    #[error("the stored password hash is unreadable")]
    Unreadable,
}

/// Computes and checks password hashes. A clone is another handle on the same threads, which stop
/// when the last handle is dropped.
#[derive(Clone)]
pub struct Hasher {
    front: Arc<Front>,
}

struct Front {
    queue: Arc<Queue>,
    cost: Cost,
}

impl Hasher {
    /// Starts the threads, named `hash-0` and so on, at the lowest priority the system has for
    /// ordinary threads (on Linux nice 19; elsewhere the usual one).
    ///
    /// # Errors
    /// The system refuses to start a thread; those that were started have been told to stop.
    pub fn start(settings: HasherSettings) -> std::io::Result<Self> {
        Self::start_with(settings, || BcryptCrate)
    }

    fn start_with<E: Engine>(settings: HasherSettings, engine: impl Fn() -> E) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(settings.threads, settings.queue_capacity));
        let hasher = Self { front: Arc::new(Front { queue, cost: settings.cost }) };
        for index in 0..settings.threads.get() {
            worker::spawn(index, Arc::clone(&hasher.front.queue), engine())?;
        }
        Ok(hasher)
    }

    /// Stops the threads as soon as each is through with the job it has. Jobs that wait, and all that
    /// come later, get [`HashError::Stopped`]. Returns at once.
    pub fn stop(&self) {
        self.front.queue.close();
    }

    /// Computes a new hash of `password`: bcrypt, or bcrypt over a digest when bcrypt would not see
    /// all of the password.
    ///
    /// Dropping the future withdraws the job unless it is being computed already.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] at once when the queue is full or the hash is not expected by
    /// `deadline`; [`HashError::Stopped`].
    pub async fn hash(
        &self,
        password: &Password,
        deadline: Option<Instant>,
    ) -> Result<PasswordHash, HashError> {
        self.hash_at(Priority::Urgent, password, deadline).await
    }

    /// Computes a new hash as [`Hasher::hash`] does, for nobody who waits: it is started only while
    /// no other job is queued, however long that takes.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] when too many rehashes wait already; [`HashError::Stopped`].
    pub async fn rehash(&self, password: &Password) -> Result<PasswordHash, HashError> {
        self.hash_at(Priority::Idle, password, None).await
    }

    /// Checks `password` against `stored`, or against nothing (`None`: there is no such user), which
    /// costs one hash at the configured cost and never matches.
    ///
    /// A mismatch takes at least the time of one hash at the configured cost, whatever `stored` is
    /// and however the password is shaped; a match takes the time of the stored hash's own cost.
    /// Dropping the future withdraws the job unless it is being computed already.
    ///
    /// # Errors
    /// [`HashError::Unreadable`] for a stored hash that makes no sense; [`HashError::Overloaded`] at
    /// once when the queue is full or the verdict is not expected by `deadline`;
    /// [`HashError::Stopped`].
    pub async fn verify(
        &self,
        password: &Password,
        stored: Option<&PasswordHash>,
        deadline: Option<Instant>,
    ) -> Result<Verdict, HashError> {
        let stored = stored.map(StoredHash::read).transpose().map_err(|_| HashError::Unreadable)?;
        let task = |answer| Task::verify(password.clone(), stored, self.front.cost, answer);
        self.ask(Priority::Urgent, deadline, task).await
    }

    async fn hash_at(
        &self,
        priority: Priority,
        password: &Password,
        deadline: Option<Instant>,
    ) -> Result<PasswordHash, HashError> {
        self.ask(priority, deadline, |answer| Task::hash(password.clone(), self.front.cost, answer)).await
    }

    async fn ask<T>(
        &self,
        priority: Priority,
        deadline: Option<Instant>,
        task: impl FnOnce(Answer<T>) -> Task,
    ) -> Result<T, HashError> {
        let queue = &self.front.queue;
        let (reply, answer) = oneshot::channel();
        queue.push(priority, Job { task: task(Answer::new(reply)), deadline })?;
        let presence = Presence { queue };
        let outcome = answer.await.unwrap_or(Err(HashError::Stopped));
        presence.end();
        outcome
    }
}

/// A caller who waits. Dropped early, it lets the queue know that a place can be had.
struct Presence<'a> {
    queue: &'a Queue,
}

impl Presence<'_> {
    /// The caller has the answer, so nothing of the job is left in the queue.
    fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.queue.caller_left();
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("cost", &self.front.cost).finish_non_exhaustive()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
