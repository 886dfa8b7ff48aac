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
    /// Calls between their reservation and their end.
    pub slots: usize,
    /// How many those may be; twice as many when parties come that have less than others.
    pub slots_limit: usize,
    /// Calls refused since the start.
    pub refused: Refusals,
    /// Jobs given up since the start, waiting or in flight, since their callers had left.
    pub abandoned: u64,
    /// How long the jobs that somebody waited for were in the queue.
    pub waits: Durations<WAIT_BUCKETS>,
}

/// Why a call gets no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room, and no party that has more.
    Full,
    /// The party has had its share, while others wait.
    Share,
    /// The answer would come after the deadline.
    Deadline,
}

/// Calls that got no hash, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// There was no room, and no party that had more.
    pub full: u64,
    /// The party had had its share while others waited, or made room for one that had less.
    pub share: u64,
    /// The answer would have come after the deadline.
    pub deadline: u64,
}

impl Refusals {
    /// For whatever reason.
    pub const fn total(&self) -> u64 {
        self.full + self.share + self.deadline
    }

    /// Every reason by its name, with its number.
    pub const fn by_reason(&self) -> [(&'static str, u64); 3] {
        [("full", self.full), ("share", self.share), ("deadline", self.deadline)]
    }
}

/// What is counted while it happens.
pub(super) struct Counters {
    hashes: AtomicU64,
    full: AtomicU64,
    share: AtomicU64,
    deadline: AtomicU64,
    abandoned: AtomicU64,
    waits: DurationCounts<WAIT_BUCKETS>,
}

impl Counters {
    pub(super) fn new() -> Self {
        let none = || AtomicU64::new(0);
        let waits = DurationCounts::new(&WAIT_BOUNDS);
        Self { hashes: none(), full: none(), share: none(), deadline: none(), abandoned: none(), waits }
    }

    pub(super) fn finished(&self, jobs: usize) {
        self.hashes.fetch_add(jobs as u64, Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Full => &self.full,
            Refusal::Share => &self.share,
            Refusal::Deadline => &self.deadline,
        };
        counter.fetch_add(1, Relaxed);
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
            slots: 0,
            slots_limit: 0,
            refused: Refusals {
                full: self.full.load(Relaxed),
                share: self.share.load(Relaxed),
                deadline: self.deadline.load(Relaxed),
            },
            abandoned: self.abandoned.load(Relaxed),
            waits: self.waits.read(),
        }
    }
}
