//! Durations counted in buckets, for those who watch. Counting takes no lock and no memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts durations in `N` buckets and one beyond.
#[derive(Debug)]
pub struct DurationCounts<const N: usize> {
    bounds: &'static [f64; N],
    within: [AtomicU64; N],
    beyond: AtomicU64,
    nanos: AtomicU64,
}

/// A snapshot of what was counted. Its parts are read one after the other, so that the sum may be of
/// one more or less than the buckets are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Durations<const N: usize> {
    /// The upper bounds of the buckets, in seconds, the least first.
    pub bounds: &'static [f64; N],
    /// Durations no longer than a bucket's bound, and longer than that of the one before it.
    pub within: [u64; N],
    /// Durations longer than the last bound.
    pub beyond: u64,
    /// All durations together.
    pub sum: Duration,
}

impl<const N: usize> DurationCounts<N> {
    /// None yet. `bounds` are in seconds, the least first.
    pub fn new(bounds: &'static [f64; N]) -> Self {
        let within = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, within, beyond: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(&self.beyond, |bucket| &self.within[bucket]).fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was counted up to now.
    pub fn read(&self) -> Durations<N> {
        Durations {
            bounds: self.bounds,
            within: std::array::from_fn(|bucket| self.within[bucket].load(Relaxed)),
            beyond: self.beyond.load(Relaxed),
            sum: Duration::from_nanos(self.nanos.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let counts = DurationCounts::new(&[0.001, 0.01, 5.0]);
        for millis in [0, 1, 2, 5_000, 60_000] {
            counts.record(Duration::from_millis(millis));
        }
        let Durations { within, beyond, sum, .. } = counts.read();
        assert_eq!((within, beyond, sum), ([2, 1, 1], 1, Duration::from_millis(65_003)));
    }
}
