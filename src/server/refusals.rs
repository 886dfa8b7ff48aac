//! How fast a source is refused.
//!
//! A refusal costs little. But a client that calls again at once makes ten thousand of them a second, which take
//! the processors from all others; password hashes, which get what others leave, come to a standstill, so that
//! every login is refused. Refusals beyond a rate are therefore held back for a moment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Rate;

/// The longest that a refusal is held back: longer than the delay that refusals ask for, shorter than the drain
/// at the end of the process.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// The refusals of one source.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// When the next one is due at the long-term rate; `None` before the first.
    next: Mutex<Option<Instant>>,
}

impl Refusals {
    /// Counts a refusal, and returns how long it is to be held back.
    pub(super) fn delay(&self, rate: Rate, now: Instant) -> Duration {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.map_or(now, |next| next.max(now));
        let delay = (due - now).saturating_sub(interval * rate.burst);
        if delay >= MAX_DELAY {
            return MAX_DELAY;
        }
        *next = Some(due + interval);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10, per_second: 100 };
    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn a_burst_is_refused_at_once_and_what_follows_at_the_rate() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let delays: Vec<_> = (0..14).map(|_| refusals.delay(RATE, now)).collect();
        assert_eq!(delays[..11], [Duration::ZERO; 11]);
        assert_eq!(delays[11..], [INTERVAL, 2 * INTERVAL, 3 * INTERVAL]);
    }

    #[test]
    fn a_source_that_keeps_to_the_rate_never_waits() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        for n in 0..1_000 {
            assert_eq!(refusals.delay(RATE, start + n * INTERVAL), Duration::ZERO);
        }
    }

    #[test]
    fn no_refusal_waits_for_longer_than_the_limit_and_a_pause_is_forgiven() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let longest = (0..10_000).map(|_| refusals.delay(RATE, now)).max();
        assert_eq!(longest, Some(MAX_DELAY));
        let later = now + MAX_DELAY + (RATE.burst + 1) * INTERVAL;
        assert_eq!(refusals.delay(RATE, later), Duration::ZERO);
    }
}
