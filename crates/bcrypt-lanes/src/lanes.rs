//! Lanes in flight: who is in, how far each has come, and who is through.

use zeroize::Zeroize as _;

use crate::job::{Cost, Digest, Goal, Job, Outcome, same};
use crate::kernel::{self, Bank, Banks, MAX_LANES, Schedule, State};

/// How many lanes may be in flight: 1 to [`Width::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width(usize);

impl Width {
    /// One lane: no interleaving.
    pub const MIN: Self = Self(1);
    /// The most that there are kernels for. More states do not fit the L1 data cache.
    pub const MAX: Self = Self(MAX_LANES);

    /// The width `lanes`, or `None` outside of [`Width::MIN`] to [`Width::MAX`].
    pub const fn new(lanes: usize) -> Option<Self> {
        if lanes >= Self::MIN.0 && lanes <= Self::MAX.0 { Some(Self(lanes)) } else { None }
    }

    /// The number of lanes.
    pub const fn get(self) -> usize {
        self.0
    }

    /// Every width, from the least to the most.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (Self::MIN.0..=Self::MAX.0).map(Self)
    }
}

/// bcrypt computations in flight on the thread that calls [`Lanes::advance`], each with a tag by
/// which its owner knows it.
///
/// A job joins and leaves whenever there is a lane, whatever the others are doing; none waits for a
/// batch to fill or to finish. What a lane held of a password is erased when it leaves, however it
/// leaves, and when the whole is dropped. Memory: 33 KiB and a little, whatever the width.
pub struct Lanes<T> {
    width: Width,
    even: Box<Bank>,
    odd: Box<Bank>,
    /// Those of the lanes in flight come first, in their order.
    schedules: [Schedule; MAX_LANES],
    flights: Vec<Flight<T>>,
}

/// A lane in flight, but for its state and its schedule.
struct Flight<T> {
    tag: T,
    /// Expansions until something is to be decided.
    left: u64,
    stage: Stage,
}

/// What is decided then.
enum Stage {
    /// To go on: this was the first expansion, the salted one.
    Beginning { rest: u64, goal: Goal, cost: Cost },
    /// What the digest is good for.
    Computing { goal: Goal, cost: Cost },
    /// Nothing. The check had failed before and went on for its time alone.
    Lingering,
}

/// What one call of [`Lanes::advance`] did.
#[derive(Debug)]
pub struct Advance<T> {
    /// Expansions that each lane in flight was advanced by.
    pub expansions: u32,
    /// Lanes that were in flight.
    pub lanes: usize,
    /// The jobs that are done, with their tags.
    pub finished: Vec<(T, Outcome)>,
}

impl<T> Lanes<T> {
    /// No lane in flight yet.
    pub fn new(width: Width) -> Self {
        Self {
            width,
            even: erased_bank(),
            odd: erased_bank(),
            schedules: std::array::from_fn(|_| Schedule::idle()),
            flights: Vec::with_capacity(width.get()),
        }
    }

    /// Lanes that may be in flight.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Lanes in flight.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether no lane is in flight.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether another job may join.
    pub fn has_room(&self) -> bool {
        self.flights.len() < self.width.get()
    }

    /// Puts `job` into a lane.
    ///
    /// # Errors
    /// Both arguments, when no lane is free.
    pub fn join(&mut self, tag: T, job: Job) -> Result<(), (T, Job)> {
        if !self.has_room() {
            return Err((tag, job));
        }
        let n = self.flights.len();
        *self.banks().lane_mut(n) = State::INITIAL;
        let salt =
            std::array::from_fn(|i| u32::from_be_bytes(std::array::from_fn(|byte| job.salt[4 * i + byte])));
        self.schedules[n] = Schedule::new(job.key.words(), salt);
        let stage = Stage::Beginning { rest: job.cost.expansions() - 1, goal: job.goal, cost: job.cost };
        self.flights.push(Flight { tag, left: 1, stage });
        Ok(())
    }

    /// Advances every lane in flight by `most` expansions, or by fewer when a lane is through before.
    ///
    /// One expansion of all lanes takes 30 to 80 µs on the processors of today; call this again and
    /// again with a handful, and look for new jobs and abandoned ones in between.
    pub fn advance(&mut self, most: u32) -> Advance<T> {
        let (lanes, mut done) = (self.flights.len(), 0);
        let mut finished = Vec::new();
        while done < most && !self.flights.is_empty() && finished.is_empty() {
            let count = self.run(most - done);
            done += count;
            for n in (0..self.flights.len()).rev() {
                self.flights[n].left -= u64::from(count);
                if self.flights[n].left == 0
                    && let Some(outcome) = self.decide(n)
                {
                    finished.push((self.remove(n).tag, outcome));
                }
            }
        }
        Advance { expansions: done, lanes, finished }
    }

    /// Takes out the lanes whose tag satisfies `is_gone`, and returns how many those were.
    pub fn abandon_if(&mut self, mut is_gone: impl FnMut(&T) -> bool) -> usize {
        let before = self.flights.len();
        for n in (0..before).rev() {
            if is_gone(&self.flights[n].tag) {
                self.remove(n);
            }
        }
        before - self.flights.len()
    }

    /// The tags of the lanes in flight, in no particular order.
    pub fn tags(&self) -> impl Iterator<Item = &T> {
        self.flights.iter().map(|flight| &flight.tag)
    }

    /// The most expansions that are still to be done, of all lanes together.
    pub fn expansions_left(&self) -> u64 {
        self.flights.iter().map(Flight::most_left).sum()
    }

    /// Advances every lane by up to `most` expansions, and says by how many.
    fn run(&mut self, most: u32) -> u32 {
        let lanes = self.flights.len();
        let next = self.flights.iter().map(|flight| flight.left).min().unwrap_or(0);
        let count = u32::try_from(next).unwrap_or(u32::MAX).min(most);
        let begins = self.flights.iter().any(|flight| matches!(flight.stage, Stage::Beginning { .. }));
        let mut banks = Banks { even: &mut self.even, odd: &mut self.odd };
        if begins {
            kernel::run::<true>(&mut banks, &mut self.schedules[..lanes], count);
        } else {
            kernel::run::<false>(&mut banks, &mut self.schedules[..lanes], count);
        }
        count
    }

    /// What comes of lane `n`, which has nothing left to do; `None` when there is more to do after all.
    fn decide(&mut self, n: usize) -> Option<Outcome> {
        match std::mem::replace(&mut self.flights[n].stage, Stage::Lingering) {
            Stage::Beginning { rest, goal, cost } => {
                self.schedules[n].begin_rounds();
                self.flights[n].left = rest;
                self.flights[n].stage = Stage::Computing { goal, cost };
                None
            }
            Stage::Computing { goal, cost } => self.judge(n, goal, cost),
            Stage::Lingering => Some(Outcome::Mismatch),
        }
    }

    fn judge(&mut self, n: usize, goal: Goal, cost: Cost) -> Option<Outcome> {
        let output = kernel::finish(self.banks().lane(n));
        let digest: &Digest = output.first_chunk().expect("24 bytes begin with 23");
        match goal {
            Goal::Digest => Some(Outcome::Digest(*digest)),
            Goal::Check { expected, .. } if same(&expected, digest) => Some(Outcome::Match),
            Goal::Check { floor, .. } if floor > cost => {
                self.flights[n].left = floor.expansions() - cost.expansions();
                None
            }
            Goal::Check { .. } => Some(Outcome::Mismatch),
        }
    }

    /// Takes lane `n` out. The last lane moves into the gap, and its old place is erased.
    fn remove(&mut self, n: usize) -> Flight<T> {
        let last = self.flights.len() - 1;
        self.banks().swap(n, last);
        self.banks().lane_mut(last).zeroize();
        self.schedules.swap(n, last);
        self.schedules[last].zeroize();
        self.flights.swap_remove(n)
    }

    fn banks(&mut self) -> Banks<'_> {
        Banks { even: &mut self.even, odd: &mut self.odd }
    }
}

impl<T> Flight<T> {
    fn most_left(&self) -> u64 {
        self.left
            + match &self.stage {
                Stage::Beginning { rest, goal, cost } => rest + goal.extra(*cost),
                Stage::Computing { goal, cost } => goal.extra(*cost),
                Stage::Lingering => 0,
            }
    }
}

fn erased_bank() -> Box<Bank> {
    Box::new(std::array::from_fn(|_| State::ERASED))
}

impl<T> Drop for Lanes<T> {
    fn drop(&mut self) {
        self.abandon_if(|_| true);
    }
}

/// Shows how many lanes are in flight, and nothing of what is in them.
impl<T> std::fmt::Debug for Lanes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes")
            .field("width", &self.width.get())
            .field("in_flight", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Key;

    fn assert_erased_beyond<T>(lanes: &mut Lanes<T>, first: usize) {
        for n in first..MAX_LANES {
            assert!(lanes.banks().lane(n).is_erased(), "state {n}");
            assert!(lanes.schedules[n].is_erased(), "schedule {n}");
        }
        for n in 0..first {
            assert!(!lanes.banks().lane(n).is_erased(), "state {n}");
            assert!(!lanes.schedules[n].is_erased(), "schedule {n}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_lane_that_is_done_or_abandoned() {
        let mut lanes = Lanes::new(Width::MAX);
        for (tag, cost) in [5, 4, 6, 4, 5, 4, 4, 6].into_iter().enumerate() {
            let job = Job::hash(Key::of_password(b"secret"), [3; 16], Cost::new(cost).expect("in bounds"));
            lanes.join(tag, job).expect("there is room");
        }
        assert_erased_beyond(&mut lanes, 8);
        assert_eq!(lanes.advance(u32::MAX).finished.len(), 4);
        assert_erased_beyond(&mut lanes, 4);
        assert_eq!(lanes.abandon_if(|tag| *tag == 0), 1);
        assert_erased_beyond(&mut lanes, 3);
        assert_eq!(lanes.advance(u32::MAX).finished.len(), 1);
        assert_erased_beyond(&mut lanes, 2);
        assert_eq!(lanes.abandon_if(|_| true), 2);
        assert_erased_beyond(&mut lanes, 0);
    }
}
