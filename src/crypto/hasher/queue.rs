//! The queue between callers and workers: bounded, first in first out, and honest about its length.
//!
//! It is a plain mutex and condition variable: what is done under the lock takes a microsecond, and
//! a job takes a hundred thousand.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::HashError;
use super::pace::Pace;
use super::task::Task;

/// Bounds of what a refused caller is told to wait: not so short that all of them return at once,
/// not so long that a person gives up.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Which of the two queues a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Somebody waits for the answer.
    Urgent,
    /// It can wait until nothing urgent is queued.
    Idle,
}

/// A task and the time by which its caller wants the answer.
pub(super) struct Job {
    /// What to do.
    pub(super) task: Task,
    /// After this the answer is worth nothing.
    pub(super) deadline: Option<Instant>,
}

/// Jobs that wait for a worker.
pub(super) struct Queue {
    threads: NonZeroUsize,
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// A caller has left since abandoned jobs were last looked for: refusing has to stay cheap just
    /// when there is much to refuse.
    has_abandoned: AtomicBool,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Job>,
    idle: VecDeque<Job>,
    /// Work of the urgent jobs that wait, in rounds.
    waiting_rounds: u64,
    /// Work of the jobs that run, in rounds, as if they had just begun.
    running_rounds: u64,
    running: usize,
    pace: Pace,
    closed: bool,
}

impl Queue {
    /// An empty queue for `threads` workers that lets `capacity` jobs of either priority wait.
    pub(super) fn new(threads: NonZeroUsize, capacity: usize) -> Self {
        Self {
            threads,
            capacity,
            state: Mutex::default(),
            changed: Condvar::new(),
            has_abandoned: AtomicBool::new(false),
        }
    }

    /// Adds a job, or answers at once why not. Jobs whose caller has left make room.
    pub(super) fn push(&self, priority: Priority, job: Job) -> Result<(), HashError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        if let Err(first) = self.admit(&state, priority, &job) {
            if !self.has_abandoned.swap(false, Ordering::Acquire) {
                return Err(first);
            }
            state.drop_abandoned();
            self.admit(&state, priority, &job)?;
        }
        match priority {
            Priority::Urgent => {
                state.waiting_rounds += job.task.rounds();
                state.urgent.push_back(job);
            }
            Priority::Idle => state.idle.push_back(job),
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn admit(&self, state: &State, priority: Priority, job: &Job) -> Result<(), HashError> {
        let waiting = match priority {
            Priority::Urgent => state.urgent.len(),
            Priority::Idle => state.idle.len(),
        };
        let wait = self.expected_wait(state);
        let too_late = job.deadline.is_some_and(|deadline| {
            let needed = wait.saturating_add(state.duration_of(job.task.rounds()));
            deadline.saturating_duration_since(Instant::now()) < needed
        });
        if too_late || !self.has_room(state, waiting) {
            return Err(overloaded(wait));
        }
        Ok(())
    }

    /// A free thread is room as well, so that a capacity of 0 means that nothing waits.
    fn has_room(&self, state: &State, waiting: usize) -> bool {
        let free = self.threads.get().saturating_sub(state.running);
        waiting < self.capacity.saturating_add(free)
    }

    /// How long a job that is added now waits for a thread, at most.
    fn expected_wait(&self, state: &State) -> Duration {
        if state.urgent.is_empty() && state.running < self.threads.get() {
            return Duration::ZERO;
        }
        let threads = u64::try_from(self.threads.get()).unwrap_or(u64::MAX);
        state.duration_of((state.waiting_rounds + state.running_rounds) / threads)
    }

    /// The next task worth running, after as long as it takes, with its place among those that run;
    /// `None` when the queue is closed.
    pub(super) fn pop(&self) -> Option<(Task, Place<'_>)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            while let Some(job) = state.next() {
                if job.task.is_abandoned() {
                    continue;
                }
                if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    job.task.refuse(overloaded(self.expected_wait(&state)));
                    continue;
                }
                state.running += 1;
                let rounds = job.task.rounds();
                state.running_rounds += rounds;
                return Some((job.task, Place { queue: self, rounds }));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that `rounds` took a worker `elapsed`.
    pub(super) fn measured(&self, rounds: u64, elapsed: Duration) {
        self.lock().pace.record(rounds, elapsed, Instant::now());
    }

    /// Notes that a caller no longer waits; his end of the channel must be gone already.
    pub(super) fn caller_left(&self) {
        self.has_abandoned.store(true, Ordering::Release);
    }

    /// Refuses what waits and whatever comes, and sends the workers home.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting_rounds = 0;
        let jobs = (std::mem::take(&mut state.urgent), std::mem::take(&mut state.idle));
        drop(state);
        self.changed.notify_all();
        for job in jobs.0.into_iter().chain(jobs.1) {
            job.task.refuse(HashError::Stopped);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change, so a poisoned state is a sound one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place among those that run, until it is dropped.
pub(super) struct Place<'a> {
    queue: &'a Queue,
    rounds: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running -= 1;
        state.running_rounds -= self.rounds;
    }
}

impl State {
    fn next(&mut self) -> Option<Job> {
        match self.urgent.pop_front() {
            Some(job) => {
                self.waiting_rounds -= job.task.rounds();
                Some(job)
            }
            None => self.idle.pop_front(),
        }
    }

    /// Forgets the jobs whose caller has left.
    fn drop_abandoned(&mut self) {
        for jobs in [&mut self.urgent, &mut self.idle] {
            jobs.retain(|job| !job.task.is_abandoned());
        }
        self.waiting_rounds = self.urgent.iter().map(|job| job.task.rounds()).sum();
    }

    fn duration_of(&self, rounds: u64) -> Duration {
        self.pace.duration_of(rounds, Instant::now())
    }
}

fn overloaded(wait: Duration) -> HashError {
    HashError::Overloaded { retry_after: wait.clamp(RETRY_AFTER.0, RETRY_AFTER.1) }
}
