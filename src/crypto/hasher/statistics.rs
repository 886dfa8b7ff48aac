//! What the hasher has done and is doing, for those who watch it.

use super::Hasher;
use crate::telemetry::durations::DurationCounts;
use crate::telemetry::metrics::{self, Counter, Counters, Registry, label};

/// How many buckets waits are counted in.
const WAIT_BUCKETS: usize = 12;

/// From what nobody notices to what most have given up after, in seconds.
const WAIT_BOUNDS: [f64; WAIT_BUCKETS] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasherStatistics {
    /// Jobs that somebody waits for and that wait for a lane.
    pub waiting: usize,
    /// Rehashes that wait.
    pub rehashes_waiting: usize,
    /// Lanes in flight, of all threads.
    pub lanes_in_use: usize,
    /// Lanes that there are.
    pub lanes: usize,
    /// Calls between their reservation and their end.
    pub slots: usize,
    /// How many those may be; twice as many when parties come that have less than others.
    pub slots_limit: usize,
}

label! {
    /// Why a call gets no hash.
    pub(super) enum Refusal: "reason" {
        /// There is no room, and no party that has more.
        Full = "full",
        /// The party has had its share while others wait, or made room for one that had less.
        Share = "share",
        /// The answer would come after the deadline.
        Deadline = "deadline",
    }
}

/// What is counted while it happens.
pub(super) struct HashCounters {
    /// Jobs done, rehashes included.
    pub(super) hashes: Counter,
    pub(super) refused: Counters<Refusal>,
    /// Jobs given up, waiting or in flight, since their callers had left.
    pub(super) abandoned: Counter,
    /// How long the jobs that somebody waited for were in the queue.
    pub(super) waits: DurationCounts<WAIT_BUCKETS>,
}

impl HashCounters {
    pub(super) fn new() -> Self {
        Self {
            hashes: Counter::default(),
            refused: Counters::default(),
            abandoned: Counter::default(),
            waits: DurationCounts::new(&WAIT_BOUNDS),
        }
    }
}

impl Hasher {
    /// Adds the metrics to those of the process.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name, help, read: fn(&HasherStatistics) -> usize| {
            let hasher = self.clone();
            metrics::register_gauge(registry, name, help, move || read(&hasher.statistics()));
        };
        gauge("password_queue_length", "Password checks that wait for a lane", |now| now.waiting);
        let help = "Outdated hashes that wait to be replaced";
        gauge("password_rehashes_waiting", help, |now| now.rehashes_waiting);
        gauge("password_lanes_in_use", "Hashes being computed", |now| now.lanes_in_use);
        gauge("password_lanes", "Hashes that can be computed at once", |now| now.lanes);
        let help = "Calls that have reserved a hash and are not at their end";
        gauge("password_calls", help, |now| now.slots);
        gauge("password_calls_limit", "How many those may be", |now| now.slots_limit);
        let (hasher, help) = (self.clone(), "The bcrypt cost that refused checks take");
        metrics::register_gauge(registry, "password_refusal_cost", help, move || {
            hasher.floor().get() as usize
        });
        let HashCounters { hashes, refused, abandoned, waits } = self.counters();
        metrics::register(registry, "password_hashes", "Hashes computed", hashes.clone());
        let help = "Hashes given up since their callers had left";
        metrics::register(registry, "password_abandoned", help, abandoned.clone());
        metrics::register_series(registry, "password_refused", "Calls that got no hash", refused.series(&[]));
        let help = "How long password checks waited for a lane";
        metrics::register_durations(registry, "password_wait", help, waits.clone());
    }
}
