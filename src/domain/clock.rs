//! Points in time, and where they come from.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since the Unix epoch, UTC.
///
/// Microseconds are what both databases keep, so a value that was stored reads back equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point `micros` microseconds after the Unix epoch (before it, when negative).
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down, as JWT's `NumericDate` wants them.
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Nanoseconds within the second of [`Timestamp::as_unix_seconds`], 0 to 999,999,000.
    pub const fn subsecond_nanos(self) -> u32 {
        (self.0.rem_euclid(1_000_000) * 1_000) as u32
    }

    /// This point moved later by `by`; stays at the end of time when that would overflow.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This point moved earlier by `by`; stays at the beginning of time when that would overflow.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How much later this point is than `earlier`; nothing when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// To the second, as RFC 3339 writes it; what lies before the epoch, as the epoch.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = Duration::from_secs(u64::try_from(self.as_unix_seconds()).unwrap_or(0));
        // Nothing that this program writes lies beyond the year 9999.
        let at = UNIX_EPOCH + after.min(LAST_SHOWN);
        humantime::format_rfc3339_seconds(at).fmt(f)
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SHOWN: Duration = Duration::from_secs(253_402_300_799);

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Where the current time comes from, so that tests can say what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's real-time clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // The one place that reads the system clock; everything else is handed a `Clock`.
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(micros(after)),
            Err(before) => Timestamp(0).minus(before.duration()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_nanos_of_a_time_before_the_epoch_count_upwards() {
        let t = Timestamp::from_unix_micros(-1);
        assert_eq!((t.as_unix_seconds(), t.subsecond_nanos()), (-1, 999_999_000));
    }

    #[test]
    fn moving_past_the_end_of_time_stays_there() {
        let end = Timestamp::from_unix_micros(i64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
    }

    #[test]
    fn it_is_shown_to_the_second() {
        assert_eq!(Timestamp::from_unix_micros(1_700_000_000_999_999).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::from_unix_micros(i64::MIN).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_unix_micros(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }
}
