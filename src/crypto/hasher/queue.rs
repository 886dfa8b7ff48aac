//! The queue between callers and workers: bounded, fair, and honest about how long it is.
//!
//! It is a plain mutex and condition variable: what is done under the lock takes a microsecond or two,
//! and a job takes ten thousand and more.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Line, Place};
use super::origin::Origin;
use super::pace::{Ideal, Pace};
use super::statistics::{Counters, HasherStatistics};
use super::task::Task;
use super::{HashError, Terms};

/// Bounds of what a refused caller is told to wait: not so short that all of them return at once,
/// not so long that a person gives up.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How much longer than forecast a job may take and still be in time: by so much the machine's load may
/// change while it waits. Who is admitted with nothing to spare is often late, and his hash computed in
/// vain.
const MARGIN: f64 = 1.5;

/// How long the queue may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Jobs that wait at most. Rehashes have a queue of the same size.
    pub(super) capacity: usize,
    /// How long a caller without a deadline waits at most, his own hash included.
    pub(super) max_wait: Duration,
}

/// Jobs that wait for a worker, and what the workers are at.
pub(super) struct Queue {
    /// Jobs that one worker has in flight at most.
    width: usize,
    limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
    /// A caller has left since abandoned jobs were last looked for: refusing has to stay cheap just
    /// when there is much to refuse.
    has_abandoned: AtomicBool,
    counters: Counters,
}

struct State {
    line: Line<Task>,
    /// What nobody waits for.
    rehashes: VecDeque<Task>,
    workers: Vec<Worker>,
    /// Workers that wait for a job.
    sleeping: usize,
    pace: Pace,
    promised: Promised,
    closed: bool,
}

/// What will be asked for soon, for which there is room.
#[derive(Clone, Copy, Default)]
struct Promised {
    jobs: usize,
    /// In expansions.
    work: u64,
}

/// Room for a job that is asked for soon. Others are not told of it while this exists.
pub struct Promise {
    queue: Arc<Queue>,
    work: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.promised.jobs -= 1;
        state.promised.work -= self.work;
    }
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
                promised: Promised::default(),
                closed: false,
            }),
            changed: Condvar::new(),
            has_abandoned: AtomicBool::new(false),
            counters: Counters::new(),
        }
    }

    /// Adds a job that somebody waits for, or answers at once why not. Jobs whose caller has left make
    /// room.
    pub(super) fn push(&self, task: Task, terms: &Terms) -> Result<(), HashError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        self.drop_abandoned(&mut state);
        let admitted = state.admit(task, terms, self.limits, self.width);
        let wakes = admitted.is_ok() && state.sleeping > 0;
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
        if admitted.is_err() {
            self.counters.refused();
        }
        admitted
    }

    /// Keeps room for a job of `work` expansions, beside that which others were promised, or answers as
    /// [`Queue::push`] would.
    pub(super) fn promise(self: &Arc<Self>, work: u64, terms: &Terms) -> Result<Promise, HashError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        self.drop_abandoned(&mut state);
        let promised = state.promised;
        let room = state.room(work, terms.deadline, terms.origin, self.limits, self.width, promised);
        if let Err(refusal) = room {
            drop(state);
            self.counters.refused();
            return Err(refusal);
        }
        state.promised = Promised { jobs: promised.jobs + 1, work: promised.work + work };
        Ok(Promise { queue: Arc::clone(self), work })
    }

    /// Adds a job that nobody waits for.
    pub(super) fn push_rehash(&self, task: Task) -> Result<(), HashError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashError::Stopped);
        }
        self.drop_abandoned(&mut state);
        if state.rehashes.len() >= self.limits.capacity {
            return Err(overloaded(state.wait(Instant::now())));
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
            if (in_flight == 0 || state.line.len() > state.sleeping)
                && let Some(task) = self.pop(&mut state)
            {
                self.counters.waited(task.since.elapsed());
                return state.assign(task, worker);
            }
            // A rehash takes the last lane only when there is but one: somebody may come who waits.
            if (in_flight == 0 || in_flight + 1 < self.width)
                && state.line.len() == 0
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
        while let Some(entry) = state.line.pop() {
            if entry.item.caller.has_left() {
                self.counters.abandoned(1);
                continue;
            }
            let now = Instant::now();
            if entry.item.deadline.is_some_and(|deadline| deadline <= now) {
                self.counters.refused();
                entry.item.caller.refuse(overloaded(state.wait(now)));
                continue;
            }
            return Some(entry.item);
        }
        None
    }

    /// Notes what a worker did and has left to do.
    pub(super) fn report(&self, worker: usize, report: &Report) {
        self.counters.finished(report.finished);
        self.counters.abandoned(report.abandoned);
        let mut state = self.lock();
        state.workers[worker] = Worker { lanes: report.lanes_left, left: report.work_left };
        if report.lanes > 0 {
            state.pace.record(report.lanes, report.expansions, report.elapsed, Instant::now());
        }
    }

    /// Notes that a caller no longer waits; his end of the channel must be gone already.
    pub(super) fn caller_left(&self) {
        self.has_abandoned.store(true, Ordering::Release);
    }

    /// Refuses what waits and whatever comes, and sends the workers home.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = state.line.take_all();
        let rehashes = std::mem::take(&mut state.rehashes);
        drop(state);
        self.changed.notify_all();
        for task in waiting.chain(rehashes) {
            task.caller.refuse(HashError::Stopped);
        }
    }

    /// What is going on, and what has been done since the start.
    pub(super) fn statistics(&self) -> HasherStatistics {
        let state = self.lock();
        HasherStatistics {
            waiting: state.line.len(),
            rehashes_waiting: state.rehashes.len(),
            lanes_in_use: state.workers.iter().map(|worker| worker.lanes).sum(),
            lanes: self.width * state.workers.len(),
            ..self.counters.statistics()
        }
    }

    fn drop_abandoned(&self, state: &mut State) {
        if self.has_abandoned.swap(false, Ordering::Acquire) {
            let before = state.rehashes.len();
            state.rehashes.retain(|task| !task.caller.has_left());
            let gone = state.line.remove_if(|task| task.caller.has_left());
            self.counters.abandoned(gone + before - state.rehashes.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change, so a poisoned state is a sound one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts a task in line, unless the line is too long for it.
    fn admit(&mut self, task: Task, terms: &Terms, limits: Limits, width: usize) -> Result<(), HashError> {
        let work = task.expansions();
        // What was promised was weighed when that was done.
        let (place, due) =
            self.room(work, task.deadline, terms.origin, limits, width, Promised::default())?;
        self.line.insert(place, terms.origin, work, due, task);
        Ok(())
    }

    /// The place in line for a job of `work`, and until when it is of use, unless the line is too long for it.
    fn room(
        &self,
        work: u64,
        deadline: Option<Instant>,
        origin: Origin,
        limits: Limits,
        width: usize,
        promised: Promised,
    ) -> Result<(Place, Instant), HashError> {
        let now = Instant::now();
        let left = deadline.map_or(limits.max_wait, |due| due.saturating_duration_since(now));
        let spared = left.div_f64(MARGIN);
        let lanes: usize = self.workers.iter().map(|worker| worker.lanes).sum();
        let running = lanes + promised.jobs;
        let is_idle = running + self.line.len() == 0;
        let is_served_at_once = running + self.line.len() < self.workers.len() * width;
        let (pace, in_flight) = (self.pace.at(now), self.in_flight().saturating_add(promised.work));
        let wait = |ahead| pace.work(in_flight.saturating_add(ahead), self.workers.len());
        let forecast = |ahead, work| wait(ahead).saturating_add(pace.job(work));
        let place = self.line.place(origin, work, now, forecast);
        let (fits, needed, left) = if is_idle {
            (true, self.pace.job_alone(work), left)
        } else if is_served_at_once {
            (true, pace.job(work), spared)
        } else {
            // What waits for a party counts twice, in number and in time: so one that comes often
            // leaves half of what there is to those who come seldom.
            let free = limits.capacity.saturating_sub(self.line.len() + promised.jobs);
            let needed = forecast(place.ahead.saturating_add(place.own_work), work);
            (place.own_jobs < free, needed, spared)
        };
        if !fits || left < needed {
            return Err(overloaded(wait(self.line.work())));
        }
        Ok((place, now + spared))
    }

    /// The most work that the workers have in flight, in expansions.
    fn in_flight(&self) -> u64 {
        self.workers.iter().map(|worker| worker.left).sum()
    }

    /// How long one who comes at `now` would wait for a lane behind all that waits, at most.
    fn wait(&self, now: Instant) -> Duration {
        self.pace.at(now).work(self.in_flight().saturating_add(self.line.work()), self.workers.len())
    }

    fn assign(&mut self, task: Task, worker: usize) -> Next {
        let worker = &mut self.workers[worker];
        worker.lanes += 1;
        worker.left += task.expansions();
        Next::Job(task)
    }
}

fn overloaded(wait: Duration) -> HashError {
    HashError::Overloaded { retry_after: wait.clamp(RETRY_AFTER.0, RETRY_AFTER.1) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::crypto::hasher::Cost;
    use crate::crypto::hasher::task::Answer;
    use crate::domain::Password;

    const SECOND: Duration = Duration::from_secs(1);

    /// Of one worker with one lane, which takes a second for an expansion, and so 33 for a hash.
    fn queue() -> Queue {
        let limits = Limits { capacity: 10, max_wait: 1_000 * SECOND };
        Queue::new(NonZeroUsize::MIN, Ideal::new(vec![SECOND]), limits)
    }

    /// Asks for a hash within `allowed`.
    fn push(queue: &Queue, allowed: Duration) -> Result<(), HashError> {
        let password = Password::new("correct horse".to_owned()).unwrap();
        let terms = Terms { deadline: Some(Instant::now() + allowed), ..Terms::default() };
        let answer = Answer::new(oneshot::channel().0);
        queue.push(Task::hash(&password, Cost::MIN, terms.deadline, answer), &terms)
    }

    fn assign(queue: &Queue) {
        let mut state = queue.lock();
        let task = state.line.pop().unwrap().item;
        assert!(matches!(state.assign(task, 0), Next::Job(_)));
    }

    #[test]
    fn who_would_have_nothing_to_spare_is_refused() {
        let queue = queue();
        push(&queue, 40 * SECOND).unwrap();
        assign(&queue);
        // 66 seconds are forecast, and half as much again is to spare.
        assert!(matches!(push(&queue, 90 * SECOND), Err(HashError::Overloaded { .. })));
        push(&queue, 110 * SECOND).unwrap();
    }

    #[test]
    fn what_is_promised_to_one_is_not_promised_to_another() {
        let queue = Arc::new(queue());
        push(&queue, 40 * SECOND).unwrap();
        assign(&queue);
        let promise = |allowed| {
            let terms = Terms { deadline: Some(Instant::now() + allowed), ..Terms::default() };
            queue.promise(33, &terms)
        };
        let first = promise(110 * SECOND).unwrap();
        assert!(matches!(promise(110 * SECOND), Err(HashError::Overloaded { .. })));
        drop(first);
        let again = promise(110 * SECOND).unwrap();
        // Whoever was promised room finds it.
        drop(again);
        push(&queue, 110 * SECOND).unwrap();
        assert!(matches!(promise(110 * SECOND), Err(HashError::Overloaded { .. })));
    }

    #[test]
    fn a_slow_spell_keeps_nobody_from_a_hasher_that_is_idle_since() {
        let queue = queue();
        let idle = Report {
            lanes: 1,
            expansions: 1,
            elapsed: 3_600 * SECOND,
            lanes_left: 0,
            work_left: 0,
            finished: 1,
            abandoned: 0,
        };
        queue.report(0, &idle);
        push(&queue, 40 * SECOND).unwrap();
        // Beside a job that runs, what was measured counts.
        assert!(matches!(push(&queue, 400 * SECOND), Err(HashError::Overloaded { .. })));
    }
}
