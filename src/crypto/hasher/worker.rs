//! The threads that hash.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::contention::{Contention, HashTime, SLICE};
use super::engine::Engine;
use super::queue::{Next, Queue, Report};
use super::task::Caller;

/// Whether a thread may use its core without a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Whenever there is work and no other thread of the process wants the core.
    #[default]
    Full,
    /// As full, and other processes come first as well: the calls need them.
    GivingWay,
    /// For half of the time: the other half of the only core there is belongs to the calls.
    Half,
}

/// Starts a thread that takes jobs from `queue` until that is closed. Its time is added to `hash_time`.
pub(super) fn spawn(
    index: usize,
    queue: Arc<Queue>,
    engine: impl Engine<Caller>,
    duty: Duty,
    hash_time: HashTime,
) -> std::io::Result<()> {
    let worker = Worker { index, queue, engine, duty, resumes: None };
    std::thread::Builder::new().name(format!("hash-{index}")).spawn(move || {
        lower_priority();
        worker.work(Contention::of_this_thread(hash_time));
    })?;
    Ok(())
}

/// Hashes get what the rest of the process, and of the machine, leaves over: a thread of the class
/// SCHED_IDLE, which needs no privilege, gives its core up in the moment in which another wakes. One that
/// is nice alone keeps it for some milliseconds more (docs/performance.md has what was measured).
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let thread = thread_priority::thread_native_id();
        if let Err(error) = thread_priority::set_thread_priority_and_policy(thread, ThreadPriority::Min, idle)
        {
            tracing::warn!(?error, "password hashing runs at normal priority");
        }
    }
}

struct Worker<E> {
    index: usize,
    queue: Arc<Queue>,
    engine: E,
    duty: Duty,
    /// The end of the last slice, while what it left is still in flight.
    resumes: Option<Instant>,
}

impl<E: Engine<Caller>> Worker<E> {
    fn work(mut self, mut contention: Contention) {
        while self.fill() {
            match self.duty {
                Duty::Full => self.advance(SLICE),
                Duty::GivingWay => {
                    self.advance(contention.slice());
                    contention.give_way();
                }
                Duty::Half => {
                    let began = Instant::now();
                    self.advance(SLICE);
                    std::thread::sleep(began.elapsed());
                }
            }
        }
    }

    /// Takes jobs in while there are some and lanes for them; false once all is done.
    fn fill(&mut self) -> bool {
        while self.engine.in_flight() < self.engine.width() {
            match self.queue.next(self.index, self.engine.in_flight()) {
                Next::Job(task) => self.engine.join(task.caller, task.job),
                Next::Nothing => return true,
                // What is in flight is finished.
                Next::Closed => return self.engine.in_flight() > 0,
            }
        }
        true
    }

    /// Goes on with what is in flight, by `expansions` each, and answers those whose jobs are done.
    fn advance(&mut self, expansions: u32) {
        // Pauses between slices are a part of how long hashes take.
        let began = self.resumes.take().unwrap_or_else(Instant::now);
        let (slice, abandoned) = match catch_unwind(AssertUnwindSafe(|| self.engine.advance(expansions))) {
            Ok(slice) => (Some(slice), self.engine.abandon_if(Caller::has_left)),
            Err(_) => {
                // Nobody knows what state they are in. Their callers learn it by the closed channel; it
                // costs neither the thread nor any job that waits.
                tracing::error!("password hashes were given up after a panic");
                self.engine.abandon_if(|_| true);
                (None, 0)
            }
        };
        let ended = Instant::now();
        self.resumes = (self.engine.in_flight() > 0).then_some(ended);
        // Before the answers: who has one and asks again must find the lane free.
        self.queue.report(
            self.index,
            &Report {
                lanes: slice.as_ref().map_or(0, |slice| slice.lanes),
                expansions: slice.as_ref().map_or(0, |slice| slice.expansions),
                elapsed: ended.duration_since(began),
                lanes_left: self.engine.in_flight(),
                work_left: self.engine.expansions_left(),
                finished: slice.as_ref().map_or(0, |slice| slice.finished.len()),
                abandoned,
            },
        );
        for (caller, outcome) in slice.into_iter().flat_map(|slice| slice.finished) {
            caller.tell(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use bcrypt_lanes::Job;

    use super::super::admission::Limits;
    use super::super::engine::Slice;
    use super::super::pace::Ideal;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Takes no time for anything, and has a job in flight or none.
    struct Instantly {
        in_flight: usize,
    }

    impl Engine<Caller> for Instantly {
        fn width(&self) -> usize {
            1
        }

        fn in_flight(&self) -> usize {
            self.in_flight
        }

        fn join(&mut self, _: Caller, _: Job) {}

        fn advance(&mut self, _: u32) -> Slice<Caller> {
            Slice { lanes: 1, expansions: 1, finished: Vec::new() }
        }

        fn abandon_if(&mut self, _: impl FnMut(&Caller) -> bool) -> usize {
            0
        }

        fn expansions_left(&self) -> u64 {
            1
        }
    }

    /// How long two expansions take by what was measured: one before a pause of 50 ms, one behind it.
    fn measured(in_flight: usize) -> Duration {
        let limits = Limits { capacity: 1, max_wait: MS };
        let queue = Arc::new(Queue::new(NonZeroUsize::MIN, Ideal::new(vec![MS]), limits));
        let engine = Instantly { in_flight };
        let mut worker =
            Worker { index: 0, queue: Arc::clone(&queue), engine, duty: Duty::Half, resumes: None };
        worker.advance(1);
        std::thread::sleep(50 * MS);
        worker.advance(1);
        queue.pace().job(2)
    }

    #[test]
    fn a_pause_is_a_part_of_how_long_a_hash_takes() {
        assert!(measured(1) >= 45 * MS);
    }

    #[test]
    fn a_pause_in_which_nothing_was_to_be_done_is_not() {
        assert!(measured(0) < 45 * MS);
    }
}
