//! What the hasher has done and is doing, for those who watch it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::telemetry::durations::{DurationCounts, Durations};

/// How many buckets waits are counted in.
pub const WAIT_BUCKETS: usize = 12;

/// From what nobody notices to what most have given up after, in seconds.
const WAIT_BOUNDS: [f64; WAIT_BUCKETS] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    pub waits: Durations<WAIT_BUCKETS>,
}

/// What is counted while it happens.
pub(super) struct Counters {
    hashes: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    waits: DurationCounts<WAIT_BUCKETS>,
}

impl Counters {
    pub(super) fn new() -> Self {
        let none = || AtomicU64::new(0);
        let waits = DurationCounts::new(&WAIT_BOUNDS);
        Self { hashes: none(), refused: none(), abandoned: none(), waits }
    }

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
        self.waits.record(wait);
    }

    /// The counters' part of a snapshot.
    pub(super) fn statistics(&self) -> HasherStatistics {
        HasherStatistics {
            waiting: 0,
            rehashes_waiting: 0,
            lanes_in_use: 0,
            lanes: 0,
            hashes: self.hashes.load(Relaxed),
            refused: self.refused.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            waits: self.waits.read(),
        }
    }
}
