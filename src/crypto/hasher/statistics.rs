//! What the hasher has done and is doing, for those who watch it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets that waits are counted in, in seconds. What waited longer than the
/// last is in none but the sum.
pub const WAIT_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HasherStatistics {
    /// Jobs that somebody waits for and that wait for a lane.
    pub waiting: usize,
    /// Rehashes that wait.
    pub rehashes_waiting: usize,
    /// Lanes in flight, of all threads.
    pub lanes_in_use: usize,
    /// Lanes that there are.
    pub lanes: usize,
    /// Jobs done since the start, rehashes included.
    pub hashes: u64,
    /// Jobs refused since the start, for want of time or of room.
    pub refused: u64,
    /// Jobs given up since the start, waiting or in flight, since their callers had left.
    pub abandoned: u64,
    /// How long the jobs that somebody waited for were in the queue.
    pub waits: Waits,
}

/// A histogram of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// Waits that ended within a bucket's bound and in none before it.
    pub buckets: [u64; WAIT_BUCKETS.len()],
    /// All waits.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

/// What is counted while it happens.
#[derive(Default)]
pub(super) struct Counters {
    hashes: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    wait_buckets: [AtomicU64; WAIT_BUCKETS.len()],
    waits: AtomicU64,
    wait_micros: AtomicU64,
}

impl Counters {
    pub(super) fn finished(&self, jobs: usize) {
        self.hashes.fetch_add(jobs as u64, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn abandoned(&self, jobs: usize) {
        self.abandoned.fetch_add(jobs as u64, Relaxed);
    }

    pub(super) fn waited(&self, wait: Duration) {
        let bucket = WAIT_BUCKETS.iter().position(|bound| wait.as_secs_f64() <= *bound);
        if let Some(bucket) = bucket {
            self.wait_buckets[bucket].fetch_add(1, Relaxed);
        }
        self.waits.fetch_add(1, Relaxed);
        self.wait_micros.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The counters' part of a snapshot.
    pub(super) fn statistics(&self) -> HasherStatistics {
        HasherStatistics {
            hashes: self.hashes.load(Relaxed),
            refused: self.refused.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            waits: Waits {
                buckets: std::array::from_fn(|bucket| self.wait_buckets[bucket].load(Relaxed)),
                count: self.waits.load(Relaxed),
                sum: Duration::from_micros(self.wait_micros.load(Relaxed)),
            },
            ..HasherStatistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_in_the_first_bucket_that_holds_it() {
        let counters = Counters::default();
        for millis in [0, 1, 2, 5_000, 60_000] {
            counters.waited(Duration::from_millis(millis));
        }
        let waits = counters.statistics().waits;
        assert_eq!((waits.count, waits.sum), (5, Duration::from_millis(65_003)));
        assert_eq!((waits.buckets[0], waits.buckets[1], waits.buckets[11]), (2, 1, 1));
        assert_eq!(waits.buckets.iter().sum::<u64>(), 4);
    }
}
