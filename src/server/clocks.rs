//! Compares this machine's clock with the database's, since servers that share a database have to agree on the
//! time: tokens, sessions and limits carry it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::{Clock, Timestamp};
use crate::storage::{self, Storage, StorageError};

/// Between two comparisons.
const ROUND: Duration = Duration::from_secs(60);
/// Clocks that NTP keeps are some milliseconds apart; those that are further apart are kept by nobody.
const TOLERATED: Duration = Duration::from_secs(2);

/// How far the database's clock and this machine's are apart, in microseconds, once it was measured. All clones
/// tell the same.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockDifference(Arc<Mutex<Option<u64>>>);

impl ClockDifference {
    /// In seconds.
    pub(super) fn as_seconds(&self) -> Option<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|micros| micros as f64 / 1e6)
    }

    fn set(&self, micros: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(micros);
    }
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    /// How far the database's clock is ahead, in microseconds.
    ahead: i64,
    /// By how much that may be wrong at most.
    uncertainty: i64,
}

impl Measured {
    /// What it means that the database said `theirs` between `before` and `after`. `None` when this machine's
    /// clock was set back meanwhile.
    fn of(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Option<Self> {
        let [before, theirs, after] = [before, theirs, after].map(Timestamp::as_unix_micros);
        let uncertainty = after.checked_sub(before).filter(|took| *took >= 0)? / 2;
        Some(Self { ahead: theirs.saturating_sub(before + uncertainty), uncertainty })
    }

    /// Whether the clocks are too far apart, for sure.
    fn is_too_much(self) -> bool {
        let sure = self.ahead.saturating_abs().saturating_sub(self.uncertainty);
        sure > i64::try_from(TOLERATED.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Compares the clocks again and again, and warns when they come to be too far apart.
pub(super) struct ClockWatch {
    storage: Storage,
    clock: Arc<dyn Clock>,
    difference: ClockDifference,
    is_warned_of: bool,
}

impl ClockWatch {
    pub(super) fn new(storage: Storage, clock: Arc<dyn Clock>, difference: ClockDifference) -> Self {
        Self { storage, clock, difference, is_warned_of: false }
    }

    /// Compares the clocks once. A database that does not answer leaves what was known before.
    pub(super) async fn compare(&mut self) {
        match self.measure().await {
            Ok(Some(measured)) => self.note(measured),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "this machine's clock was not compared with the database's")
            }
        }
    }

    async fn measure(&self) -> Result<Option<Measured>, StorageError> {
        let mut conn = self.storage.read().await?;
        let before = self.clock.now();
        let theirs = storage::clock::find_time(&mut conn).await?;
        Ok(match theirs {
            Some(theirs) => Measured::of(before, theirs, self.clock.now()),
            // SQLite's clock is this machine's.
            None => Some(Measured { ahead: 0, uncertainty: 0 }),
        })
    }

    fn note(&mut self, measured: Measured) {
        self.difference.set(measured.ahead.unsigned_abs());
        let is_too_much = measured.is_too_much();
        if is_too_much == std::mem::replace(&mut self.is_warned_of, is_too_much) {
            return;
        }
        let ahead_ms = measured.ahead / 1_000;
        if is_too_much {
            tracing::warn!(
                database.clock_ahead_ms = ahead_ms,
                "this machine's clock and the database's are more than 2 s apart: set them by NTP, or tokens and \
                 limits end too early or too late"
            );
        } else {
            tracing::info!(
                database.clock_ahead_ms = ahead_ms,
                "this machine's clock and the database's agree again"
            );
        }
    }

    /// Compares them for ever, after a first pause.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            sleep(ROUND).await;
            self.compare().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(before: i64, theirs: i64, after: i64) -> Option<Measured> {
        let [before, theirs, after] =
            [before, theirs, after].map(|ms| Timestamp::from_unix_micros(ms * 1_000));
        Measured::of(before, theirs, after)
    }

    #[test]
    fn clocks_are_too_far_apart_when_that_is_sure() {
        for (theirs, is_too_much) in [(2_000, false), (-2_000, false), (2_001, true), (-2_001, true)] {
            assert_eq!(measured(0, theirs, 0).unwrap().is_too_much(), is_too_much, "{theirs}");
        }
        // The answer took a second, and may be as old as that.
        assert_eq!(measured(0, 3_000, 1_000).unwrap(), Measured { ahead: 2_500_000, uncertainty: 500_000 });
        assert!(!measured(0, 3_000, 1_000).unwrap().is_too_much());
        assert!(measured(0, 3_001, 1_000).unwrap().is_too_much());
    }

    #[test]
    fn a_clock_that_is_set_back_meanwhile_says_nothing() {
        assert_eq!(measured(1_000, 0, 999), None);
    }
}
