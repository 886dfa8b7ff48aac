//! Durations counted in buckets, for those who watch. Counting takes no lock and no memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Counts durations in `N` buckets and one beyond. All clones count the same.
#[derive(Clone, Debug)]
pub struct DurationCounts<const N: usize>(Arc<Counts<N>>);

#[derive(Debug)]
struct Counts<const N: usize> {
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
        Self(Arc::new(Counts { bounds, within, beyond: AtomicU64::new(0), nanos: AtomicU64::new(0) }))
    }

    /// Counts one.
    pub fn record(&self, duration: Duration) {
        let Counts { bounds, within, beyond, nanos } = &*self.0;
        let seconds = duration.as_secs_f64();
        let bucket = bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(beyond, |bucket| &within[bucket]).fetch_add(1, Relaxed);
        nanos.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was counted up to now.
    pub fn read(&self) -> Durations<N> {
        let Counts { bounds, within, beyond, nanos } = &*self.0;
        Durations {
            bounds,
            within: std::array::from_fn(|bucket| within[bucket].load(Relaxed)),
            beyond: beyond.load(Relaxed),
            sum: Duration::from_nanos(nanos.load(Relaxed)),
        }
    }
}

impl<const N: usize> EncodeMetric for DurationCounts<N> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.read().encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl<const N: usize> EncodeMetric for Durations<N> {
    /// The count is what the buckets add up to, so that it always agrees with them.
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self { bounds, within, beyond, sum } = *self;
        let finite = bounds.iter().copied().zip(within);
        let buckets: Vec<_> = finite.chain([(f64::INFINITY, beyond)]).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        // Adds the buckets up itself.
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
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
