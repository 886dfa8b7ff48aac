//! Whether the database answers, by what all of its connections see.
//!
//! One statement that gets no answer says little: a back end may hang, a row may be locked, while others answer
//! by the thousand. So the database counts as away only when an attempt has failed and nothing has succeeded
//! lately, whoever tried it. The health probe tries every second, so that there is always something to go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// After a failure, this long without any answer means that the database is away: longer than the health
/// probe's period, shorter than the longest wait for one statement.
const SILENCE: Duration = Duration::from_millis(1_400);

/// What is known of a database. All clones know the same.
#[derive(Clone)]
pub(super) struct Reachability(Arc<Seen>);

struct Seen {
    since: Instant,
    /// Milliseconds after `since`.
    last_answer: AtomicU64,
    is_away: watch::Sender<bool>,
}

impl Reachability {
    /// Nothing was tried yet.
    pub(super) fn new() -> Self {
        // An answer is as good as long ago: the first failure counts.
        let since = Instant::now().checked_sub(SILENCE).unwrap_or_else(Instant::now);
        Self(Arc::new(Seen { since, last_answer: AtomicU64::new(0), is_away: watch::Sender::new(false) }))
    }

    /// Notes that the database has just answered.
    pub(super) fn answered(&self) {
        self.0.last_answer.store(self.now(), Relaxed);
        if self.is_away() {
            self.0.is_away.send_replace(false);
        }
    }

    /// Notes that a statement or a connection has just failed for want of an answer.
    pub(super) fn failed(&self) {
        let silence = self.now().saturating_sub(self.0.last_answer.load(Relaxed));
        if Duration::from_millis(silence) >= SILENCE {
            self.0.is_away.send_if_modified(|is_away| !std::mem::replace(is_away, true));
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

    fn now(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX)
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
    async fn a_database_that_never_answered_is_away_at_the_first_failure() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let database = Reachability::new();
        assert!(!database.is_away());
        database.failed();
        database.away().await;
    }
}
