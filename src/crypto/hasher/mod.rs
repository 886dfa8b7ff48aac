//! Computes and checks password hashes, on threads that nothing else waits for.
//!
//! A call reserves a [`Slot`] before anything else is done for it, and is refused there or not at all.
//! The slot turns the password into a task, puts that in the queue and awaits the answer. The workers run
//! at the lowest scheduling priority, so that a flood of logins leaves look-ups their time. Which passwords
//! are good enough, and who may try how often, is decided elsewhere.

mod admission;
mod contention;
mod cost;
mod engine;
mod line;
mod pace;
mod queue;
mod slot;
mod staffing;
mod statistics;
mod task;
mod terms;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bcrypt_lanes::Lanes;

use self::admission::Limits;
use self::contention::HashTime;
use self::cost::Costs;
use self::engine::{Engine, Serial};
use self::pace::Ideal;
use self::queue::Queue;
use self::slot::Presence;
use self::statistics::HashCounters;
use self::task::{Caller, Task};
use crate::domain::{Password, PasswordHash};

pub use self::cost::Cost;
pub use self::slot::Slot;
pub use self::staffing::Staffing;
pub use self::statistics::HasherStatistics;
pub use self::terms::{HashError, Terms, Verdict};
pub use self::worker::Duty;
pub use bcrypt_lanes::Width;

/// What computes the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashEngine {
    /// Many side by side on each thread, by `bcrypt-lanes`.
    #[default]
    Lanes,
    /// One after the other, by the `bcrypt` crate: to compare with.
    BcryptCrate,
}

/// How a [`Hasher`] is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasherSettings {
    /// Threads that do nothing but hash.
    pub threads: NonZeroUsize,
    /// Whether they pause.
    pub duty: Duty,
    /// Hashes that each thread computes side by side; `None` finds out what is best.
    pub lanes: Option<Width>,
    /// Jobs that wait at most, beyond those in flight. Rehashes have a queue of the same size.
    pub queue_capacity: usize,
    /// How long a caller without a deadline waits at most, his own hash included.
    pub max_wait: Duration,
    /// The cost of new hashes, and what every failed check takes at least.
    pub cost: Cost,
    /// What computes.
    pub engine: HashEngine,
}

impl HasherSettings {
    /// Settings for one thread that computes at `cost`, with room for 128 jobs that wait ten seconds
    /// at most.
    pub const fn new(cost: Cost) -> Self {
        Self {
            threads: NonZeroUsize::MIN,
            duty: Duty::Full,
            lanes: None,
            queue_capacity: 128,
            max_wait: Duration::from_secs(10),
            cost,
            engine: HashEngine::Lanes,
        }
    }
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
    /// The cost that every failed check takes at least: [`Hasher::floor`].
    floor: AtomicU32,
}

impl Hasher {
    /// Measures the machine for some milliseconds and starts the threads, named `hash-0` and so on, at
    /// a low priority (on Linux; elsewhere the usual one).
    ///
    /// # Errors
    /// The system refuses to start a thread; those that were started have been told to stop.
    pub fn start(settings: HasherSettings) -> std::io::Result<Self> {
        match settings.engine {
            HashEngine::Lanes => {
                let (width, ideal) = engine::measure_lanes(settings.lanes);
                Self::start_with(settings, ideal, || Lanes::new(width))
            }
            HashEngine::BcryptCrate => {
                let ideal = engine::measure_bcrypt_crate();
                Self::start_with(settings, ideal, || Serial::new(engine::bcrypt_crate))
            }
        }
    }

    fn start_with<E: Engine<Caller>>(
        settings: HasherSettings,
        ideal: Ideal,
        engine: impl Fn() -> E,
    ) -> std::io::Result<Self> {
        let limits = Limits { capacity: settings.queue_capacity, max_wait: settings.max_wait };
        let queue = Arc::new(Queue::new(settings.threads, ideal, limits));
        let floor = AtomicU32::new(settings.cost.get());
        let hasher = Self { front: Arc::new(Front { queue, cost: settings.cost, floor }) };
        let hash_time = HashTime::default();
        for index in 0..settings.threads.get() {
            let queue = Arc::clone(&hasher.front.queue);
            worker::spawn(index, queue, engine(), settings.duty, hash_time.clone())?;
        }
        Ok(hasher)
    }

    /// Stops the threads as soon as each is through with what it has in flight. Jobs that wait, and all
    /// that come later, get [`HashError::Stopped`]. Returns at once.
    pub fn stop(&self) {
        self.front.queue.close();
    }

    /// What is going on.
    pub fn statistics(&self) -> HasherStatistics {
        self.front.queue.statistics()
    }

    /// What has been done since the start.
    fn counters(&self) -> &HashCounters {
        &self.front.queue.counters
    }

    /// The cost that every failed check takes at least: that of the dearest stored hash that was told of, and at
    /// least the configured one.
    pub fn floor(&self) -> Cost {
        Cost::new(self.front.floor.load(Relaxed)).expect("what is stored was a cost")
    }

    /// Makes failed checks take as long as one of a stored hash at `dearest` from now on, as far as
    /// [`Cost::dearest_floor`] of the configured cost allows. Checks that were reserved before are not changed.
    pub fn set_floor(&self, dearest: Cost) {
        let cost = self.front.cost;
        self.front.floor.store(dearest.clamp(cost, cost.dearest_floor()).get(), Relaxed);
    }

    /// Reserves a hash at the configured cost, or a check at the [floor](Hasher::floor), with a place among the calls under way. Decides at once, in some
    /// microseconds: by the room that there is, by the party's share of it while others wait, and by whether the
    /// hash is expected by the deadline. A party that has less than the largest one gets a place of that,
    /// whose last waiting job is refused then.
    ///
    /// # Errors
    /// [`HashError::Overloaded`]; [`HashError::Stopped`].
    pub fn reserve(&self, terms: &Terms) -> Result<Slot, HashError> {
        let Front { queue, cost, .. } = &*self.front;
        let floor = self.floor();
        let work = bcrypt_lanes::Cost::from(floor).expansions();
        let place = queue.reserve(work, terms)?;
        Ok(Slot::new(Arc::clone(queue), Costs { new: *cost, floor }, terms.party, place))
    }

    /// Computes a new hash as [`Slot::hash`] does, for nobody who waits: it is started only while
    /// no other job is queued, however long that takes.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] when too many rehashes wait already; [`HashError::Stopped`].
    pub async fn rehash(&self, password: &Password) -> Result<PasswordHash, HashError> {
        let queue = &self.front.queue;
        let (presence, answer) = Presence::new(|| queue.abandon_rehashes());
        queue.push_rehash(Task::hash(password, self.front.cost, None, answer))?;
        presence.wait().await
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
