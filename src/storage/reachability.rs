//! Whether the database answers, by what all of its connections see.
//!
//! One statement that gets no answer says little: a back end may hang, a row may be locked, while others answer
//! by the thousand. So the database counts as away only when an attempt has failed and nothing has succeeded
//! lately, whoever tried it. The health probe tries every second, so that there is always something to go by.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::StorageError;
use crate::budget::{Place, Refused};

/// After a failure, this long without any answer means that the database is away: longer than the health
/// probe's period, shorter than the longest wait for one statement.
const SILENCE: Duration = Duration::from_millis(1_400);

/// For how long a refused write speaks against all others, unless one succeeds. Where writes are tried out, they are
/// when there was neither for so long.
const REFUSAL: Duration = Duration::from_secs(10);

/// A trial that takes longer shows that the disk does not answer: one that waits for a lock is over before.
const LONGEST_TRIAL: Duration = Duration::from_secs(10);

/// What is known of a database. All clones know the same.
#[derive(Clone)]
pub(super) struct Reachability(Arc<Seen>);

/// A moment at which a connection answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

struct Seen {
    since: Instant,
    /// In milliseconds after `since`.
    last_answer: AtomicU64,
    /// When the last statement began that was given up, likewise.
    suspect_since: AtomicU64,
    /// When the database last refused a write that was in order, in milliseconds after `since`; zero when it has
    /// accepted one later.
    refused_write: AtomicU64,
    /// Whether writes are tried out, so that a refusal stands until one succeeds.
    tries_writes: bool,
    /// When a write last succeeded or was refused, in milliseconds after `since`; zero before that.
    last_write: AtomicU64,
    /// When the trial under way began, likewise.
    trial_since: AtomicU64,
    is_trying: AtomicBool,
    is_away: watch::Sender<bool>,
}

impl Reachability {
    /// Of a database on which nobody tries out whether it can be written to. Nothing was tried yet.
    pub(super) fn new() -> Self {
        Self::with_trials(false)
    }

    /// Of a database on which somebody makes the trials that are due by [`Reachability::begin_write_trial`].
    pub(super) fn with_writes_tried() -> Self {
        Self::with_trials(true)
    }

    fn with_trials(tries_writes: bool) -> Self {
        // An answer is as good as long ago: the first failure counts.
        let since = Instant::now().checked_sub(SILENCE).unwrap_or_else(Instant::now);
        let never = || AtomicU64::new(0);
        Self(Arc::new(Seen {
            since,
            last_answer: never(),
            suspect_since: never(),
            refused_write: never(),
            tries_writes,
            last_write: never(),
            trial_since: never(),
            is_trying: AtomicBool::new(false),
            is_away: watch::Sender::new(false),
        }))
    }

    /// Notes that the database has just answered, and returns when that was.
    pub(super) fn answered(&self) -> Moment {
        let now = self.now();
        self.0.last_answer.store(now, Relaxed);
        if self.is_away() {
            self.0.is_away.send_replace(false);
        }
        Moment(now)
    }

    /// Notes that a statement which began at `since` was given up: something on the way may have forgotten
    /// every connection that was open then.
    pub(super) fn suspect(&self, since: Instant) {
        let since = self.millis(since.saturating_duration_since(self.0.since));
        self.0.suspect_since.fetch_max(since, Relaxed);
    }

    /// Whether a connection that answered at `last` has not done so since another one fell silent.
    pub(super) fn is_suspect(&self, last: Moment) -> bool {
        last.0 < self.0.suspect_since.load(Relaxed)
    }

    /// Notes that a statement or a connection has just failed for want of an answer.
    pub(super) fn failed(&self) {
        let silence = self.now().saturating_sub(self.0.last_answer.load(Relaxed));
        if Duration::from_millis(silence) >= SILENCE {
            self.0.is_away.send_if_modified(|is_away| !std::mem::replace(is_away, true));
        }
    }

    /// Whether the database has answered a moment ago.
    pub(super) fn has_answered_lately(&self) -> bool {
        let silence = self.now().saturating_sub(self.0.last_answer.load(Relaxed));
        Duration::from_millis(silence) < SILENCE
    }

    /// Notes that the database has refused a write although it answers: its disk is full, or it is no primary.
    pub(super) fn refused_write(&self) {
        let now = self.now();
        self.0.refused_write.store(now, Relaxed);
        self.0.last_write.store(now, Relaxed);
    }

    /// Notes that something was written.
    pub(super) fn wrote(&self) {
        self.0.refused_write.store(0, Relaxed);
        self.0.last_write.store(self.now(), Relaxed);
    }

    /// Begins to try whether the database can be written to, if that is due: nothing was written or refused lately.
    /// Ends when the value is dropped; of several at once only one gets one.
    pub(super) fn begin_write_trial(&self) -> Option<WriteTrial> {
        let is_due = match self.0.last_write.load(Relaxed) {
            0 => true,
            at => Duration::from_millis(self.now().saturating_sub(at)) >= REFUSAL,
        };
        if !is_due || self.0.is_trying.swap(true, Relaxed) {
            return None;
        }
        self.0.trial_since.store(self.now(), Relaxed);
        Some(WriteTrial(self.clone()))
    }

    /// Fails while the database refuses writes, by what calls and trials saw lately.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub(super) fn require_writes(&self) -> Result<(), StorageError> {
        let since = |at: u64| Duration::from_millis(self.now().saturating_sub(at));
        if self.0.is_trying.load(Relaxed) && since(self.0.trial_since.load(Relaxed)) >= LONGEST_TRIAL {
            return Err(StorageError::Unavailable("the database does not complete a write".into()));
        }
        match self.0.refused_write.load(Relaxed) {
            0 => Ok(()),
            at if !self.0.tries_writes && since(at) >= REFUSAL => Ok(()),
            _ => Err(StorageError::Unavailable("the database refuses writes".into())),
        }
    }

    /// Whether the database is away, as far as anybody knows.
    pub(super) fn is_away(&self) -> bool {
        *self.0.is_away.borrow()
    }

    /// Waits until the database is known to be away.
    pub(super) async fn away(&self) {
        // The sender lives in `self`, so the wait can only end by the value.
        let _ = self.0.is_away.subscribe().wait_for(|is_away| *is_away).await;
    }

    /// Waits for a place at a gate, no longer than the database is there.
    ///
    /// # Errors
    /// [`StorageError::Busy`]; [`StorageError::Unavailable`] when the database is found to be away meanwhile.
    pub(super) async fn while_reachable(
        &self,
        entering: impl Future<Output = Result<Place, Refused>>,
    ) -> Result<Place, StorageError> {
        let mut entering = pin!(entering);
        // Somebody has to try whether the database is back: calls that need not wait do.
        if let Poll::Ready(outcome) = poll!(entering.as_mut()) {
            return Ok(outcome?);
        }
        let does_not_answer = || StorageError::Unavailable("the database does not answer".into());
        tokio::select! {
            // A call that finds the database away gives its place back right after the news: to take it would
            // be to wait as long again.
            place = entering => place.map_err(StorageError::from).and_then(|place| {
                if self.is_away() { Err(does_not_answer()) } else { Ok(place) }
            }),
            () = self.away() => Err(does_not_answer()),
        }
    }

    fn now(&self) -> u64 {
        self.millis(self.0.since.elapsed())
    }

    fn millis(&self, after: Duration) -> u64 {
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A write that is being tried out.
pub(super) struct WriteTrial(Reachability);

impl Drop for WriteTrial {
    fn drop(&mut self) {
        self.0.0.is_trying.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_failure_beside_answers_is_no_outage() {
        let database = Reachability::new();
        database.answered();
        database.failed();
        assert!(!database.is_away());
        tokio::time::advance(SILENCE - Duration::from_millis(1)).await;
        database.failed();
        assert!(!database.is_away());
        database.answered();
        tokio::time::advance(SILENCE).await;
        assert!(!database.is_away(), "nothing failed since");
        database.failed();
        assert!(database.is_away());
        database.answered();
        assert!(!database.is_away());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_suspect_that_has_not_answered_since_another_fell_silent() {
        let database = Reachability::new();
        let idle = database.answered();
        tokio::time::advance(Duration::from_secs(1)).await;
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let busy = database.answered();
        assert!(!database.is_suspect(idle));
        database.suspect(began);
        assert!(database.is_suspect(idle) && !database.is_suspect(busy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_write_speaks_against_the_database_until_one_succeeds_or_for_a_while() {
        let database = Reachability::new();
        database.require_writes().unwrap();
        database.refused_write();
        assert!(database.require_writes().is_err());
        database.wrote();
        database.require_writes().unwrap();
        database.refused_write();
        tokio::time::advance(REFUSAL - Duration::from_millis(1)).await;
        assert!(database.require_writes().is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        database.require_writes().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn where_writes_are_tried_out_a_refusal_stands_until_one_succeeds() {
        let database = Reachability::with_writes_tried();
        let trial = database.begin_write_trial().expect("nothing was written yet");
        assert!(database.begin_write_trial().is_none(), "one is under way");
        database.refused_write();
        drop(trial);
        assert!(database.begin_write_trial().is_none(), "it was just refused");
        tokio::time::advance(REFUSAL).await;
        assert!(database.require_writes().is_err());
        let trial = database.begin_write_trial().unwrap();
        database.wrote();
        drop(trial);
        database.require_writes().unwrap();
        assert!(database.begin_write_trial().is_none(), "something was written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_does_not_end_speaks_against_the_database_while_it_lasts() {
        let database = Reachability::with_writes_tried();
        let trial = database.begin_write_trial().unwrap();
        tokio::time::advance(LONGEST_TRIAL - Duration::from_millis(1)).await;
        database.require_writes().unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(database.require_writes().is_err());
        drop(trial);
        database.require_writes().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_never_answered_is_away_at_the_first_failure() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let database = Reachability::new();
        assert!(!database.is_away());
        database.failed();
        database.away().await;
    }
}
