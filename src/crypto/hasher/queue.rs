//! The queue between callers and workers: bounded, fair, and honest about how long it is.
//!
//! It is a plain mutex and condition variable: what is done under the lock takes a microsecond or two,
//! and a job takes ten thousand and more.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::admission::{Admission, Admitted, Limits, Workers};
use super::line::{Entry, Line};
use super::pace::{Ideal, Pace};
use super::statistics::{HashCounters, HasherStatistics, Refusal};
use super::task::Task;
use super::terms::{HashError, Terms};
use crate::domain::Party;

/// The least that a refused caller is told to wait: not so short that all of them return at once.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The most: not so long that a person gives up.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Jobs that wait for a worker, and what the workers are at.
pub(super) struct Queue {
    /// Jobs that one worker has in flight at most.
    width: usize,
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
    pub(super) counters: HashCounters,
}

struct State {
    line: Line<Task>,
    /// What nobody waits for.
    rehashes: VecDeque<Task>,
    workers: Vec<Worker>,
    /// Workers that wait for a job.
    sleeping: usize,
    pace: Pace,
    closed: bool,
}

/// A place that was reserved, until its job takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The reservation's.
    pub(super) id: u64,
    /// What was reserved, in expansions.
    pub(super) work: u64,
    /// When the caller stops waiting, if that is known.
    pub(super) deadline: Option<Instant>,
    /// When the job is of no use any more.
    due: Instant,
}

/// What a worker has in flight.
#[derive(Clone, Copy, Default)]
struct Worker {
    lanes: usize,
    /// The most work that is left, in expansions.
    left: u64,
}

/// What there is to do.
pub(super) enum Next {
    /// This.
    Job(Task),
    /// Nothing more than what is in flight.
    Nothing,
    /// Nothing, ever again.
    Closed,
}

/// What a worker did in one slice, and what it has in flight after that.
pub(super) struct Report {
    /// Lanes that were in flight.
    pub(super) lanes: usize,
    /// Expansions that each was advanced by.
    pub(super) expansions: u64,
    /// How long that took.
    pub(super) elapsed: Duration,
    /// Lanes that are in flight still.
    pub(super) lanes_left: usize,
    /// Their work that is left, in expansions.
    pub(super) work_left: u64,
    /// Jobs that are done.
    pub(super) finished: usize,
    /// Jobs whose callers have left.
    pub(super) abandoned: usize,
}

impl Queue {
    /// An empty queue for `workers` workers, each with as many lanes as `ideal` has paces for.
    pub(super) fn new(workers: NonZeroUsize, ideal: Ideal, limits: Limits) -> Self {
        Self {
            width: ideal.width(),
            limits,
            state: Mutex::new(State {
                line: Line::new(),
                rehashes: VecDeque::new(),
                workers: vec![Worker::default(); workers.get()],
                sleeping: 0,
                pace: Pace::new(ideal),
                closed: false,
            }),
            changed: Condvar::new(),
            counters: HashCounters::new(),
        }
    }

    /// Reserves a place for a job of `work` expansions, or answers why not. Where the place is another
    /// party's, the job that had it is refused.
    pub(super) fn reserve(&self, work: u64, terms: &Terms) -> Result<Place, HashError> {
        let Terms { deadline, party } = *terms;
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        let admission = self.admission(&state);
        let Admitted { due, displaces } = match admission.decide(party, work, deadline) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let wait = admission.wait();
                drop(state);
                return Err(self.refused(refusal, wait));
            }
        };
        let displaced = displaces.and_then(|party| state.line.remove_last(party));
        let id = state.line.reserve(party, work);
        if let Some(task) = displaced {
            let wait = self.admission(&state).wait();
            drop(state);
            task.caller.refuse(self.refused(Refusal::Share, wait));
        }
        Ok(Place { id, work, deadline, due })
    }

    /// Puts the job in line that a place was reserved for.
    pub(super) fn enter(&self, party: Party, place: Place, task: Task) -> Result<(), HashError> {
        let mut state = self.lock();
        if state.closed {
            state.line.cancel(party, place.work);
            return Err(HashError::Stopped);
        }
        if place.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            state.line.cancel(party, place.work);
            let wait = self.admission(&state).wait();
            drop(state);
            return Err(self.refused(Refusal::Deadline, wait));
        }
        let entry = Entry { work: task.expansions(), due: place.due, item: task };
        state.line.enter(party, place.id, place.work, entry);
        let wakes = state.sleeping > 0;
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Notes that nobody waits for the job of a reservation any more; the caller's end of the channel must be
    /// closed already.
    pub(super) fn abandon(&self, party: Party, id: u64) {
        // What is in flight is abandoned by its worker, which looks at the channel.
        let task = self.lock().line.remove(party, id);
        self.counters.abandoned.inc_by(u64::from(task.is_some()));
    }

    /// Notes the end of a call, with the place that it has not used.
    pub(super) fn leave(&self, party: Party, unused: Option<Place>) {
        let mut state = self.lock();
        if let Some(place) = unused {
            state.line.cancel(party, place.work);
        }
        state.line.leave(party);
    }

    /// Adds a job that nobody waits for.
    pub(super) fn push_rehash(&self, task: Task) -> Result<(), HashError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        if state.rehashes.len() >= self.limits.capacity {
            return Err(overloaded(self.admission(&state).wait()));
        }
        state.rehashes.push_back(task);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job worth running for a worker that has `in_flight` jobs already, and room for one
    /// more. Waits for one only when it has none.
    pub(super) fn next(&self, worker: usize, in_flight: usize) -> Next {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            // What workers without any work were woken for is left to them: two cores do more than one.
            let waiting = state.line.totals().waiting;
            if (in_flight == 0 || waiting > state.sleeping)
                && let Some(task) = self.pop(&mut state)
            {
                self.counters.waits.record(task.since.elapsed());
                return state.assign(task, worker);
            }
            // A rehash takes the last lane only when there is but one: somebody may come who waits.
            if (in_flight == 0 || in_flight + 1 < self.width)
                && state.line.totals().waiting == 0
                && let Some(task) = state.rehashes.pop_front()
            {
                return state.assign(task, worker);
            }
            if in_flight > 0 {
                return Next::Nothing;
            }
            state.sleeping += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }

    /// The first job whose caller is still there and can still be served in time.
    fn pop(&self, state: &mut State) -> Option<Task> {
        while let Some(task) = state.line.pop() {
            if task.caller.has_left() {
                self.counters.abandoned.inc();
                continue;
            }
            if task.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let wait = self.admission(state).wait();
                task.caller.refuse(self.refused(Refusal::Deadline, wait));
                continue;
            }
            return Some(task);
        }
        None
    }

    /// Notes what a worker did and has left to do.
    pub(super) fn report(&self, worker: usize, report: &Report) {
        self.counters.hashes.inc_by(report.finished as u64);
        self.counters.abandoned.inc_by(report.abandoned as u64);
        let mut state = self.lock();
        state.workers[worker] = Worker { lanes: report.lanes_left, left: report.work_left };
        if report.lanes > 0 {
            state.pace.record(report.lanes, report.expansions, report.elapsed, Instant::now());
        }
    }

    /// Drops the rehashes whose caller's end of the channel is closed.
    pub(super) fn abandon_rehashes(&self) {
        let mut state = self.lock();
        let before = state.rehashes.len();
        state.rehashes.retain(|task| !task.caller.has_left());
        self.counters.abandoned.inc_by((before - state.rehashes.len()) as u64);
    }

    /// Refuses what waits and whatever comes, and sends the workers home.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = state.line.take_all();
        let rehashes = std::mem::take(&mut state.rehashes);
        drop(state);
        self.changed.notify_all();
        for task in waiting.into_iter().chain(rehashes) {
            task.caller.refuse(HashError::Stopped);
        }
    }

    /// What is going on.
    pub(super) fn statistics(&self) -> HasherStatistics {
        let state = self.lock();
        let workers = self.workers(&state);
        HasherStatistics {
            waiting: state.line.totals().waiting,
            rehashes_waiting: state.rehashes.len(),
            lanes_in_use: workers.lanes_in_use,
            lanes: workers.lanes,
            slots: state.line.totals().calls,
            slots_limit: self.limits.calls(workers.lanes),
        }
    }

    /// What is reserved and waits, in expansions.
    #[cfg(test)]
    pub(super) fn queued_work(&self) -> u64 {
        self.lock().line.totals().work
    }

    /// The pace as it was measured.
    #[cfg(test)]
    pub(super) fn pace(&self) -> super::pace::Current {
        self.lock().pace.at(Instant::now())
    }

    fn workers(&self, state: &State) -> Workers {
        let count = state.workers.len();
        Workers {
            count,
            lanes: self.width * count,
            lanes_in_use: state.workers.iter().map(|worker| worker.lanes).sum(),
            work_left: state.workers.iter().map(|worker| worker.left).sum(),
        }
    }

    fn admission<'a>(&self, state: &'a State) -> Admission<'a, Task> {
        Admission {
            line: &state.line,
            workers: self.workers(state),
            pace: &state.pace,
            limits: self.limits,
            now: Instant::now(),
        }
    }

    /// Counts a refusal, and words it for a caller who would `wait` for a lane.
    fn refused(&self, refusal: Refusal, wait: Duration) -> HashError {
        self.counters.refused.of(refusal).inc();
        overloaded(wait)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change, so a poisoned state is a sound one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn assign(&mut self, task: Task, worker: usize) -> Next {
        let worker = &mut self.workers[worker];
        worker.lanes += 1;
        worker.left += task.expansions();
        Next::Job(task)
    }
}

fn overloaded(wait: Duration) -> HashError {
    HashError::Overloaded { retry_after: wait.clamp(MIN_RETRY_DELAY, MAX_RETRY_DELAY) }
}

#[cfg(test)]
mod tests;
