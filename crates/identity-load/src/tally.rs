//! Counts of calls by code, and the distribution of their latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use identity::rpc::status::code_name;
use serde::Serialize;
use tonic::Code;

use crate::calls::Outcome;

/// How many calls ended in which way.
pub(crate) type Codes = BTreeMap<&'static str, u64>;

/// A distribution of times, to a microsecond and three digits.
pub(crate) struct Times(Histogram<u64>);

/// Longer than any deadline; what takes longer counts as this.
const MAX_MICROS: u64 = 600_000_000;

/// The figures of a distribution, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(MAX_MICROS, 3).expect("three digits of ten minutes can be kept"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(MAX_MICROS));
    }

    /// `None` when nothing was recorded: no time is not a time of zero.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let millis = |micros: u64| micros as f64 / 1_000.0;
        (!self.0.is_empty()).then(|| Latency {
            p50_ms: millis(self.0.value_at_quantile(0.5)),
            p99_ms: millis(self.0.value_at_quantile(0.99)),
            p999_ms: millis(self.0.value_at_quantile(0.999)),
            max_ms: millis(self.0.max()),
        })
    }
}

/// What became of many calls.
#[derive(Default)]
pub(crate) struct Tally {
    times: BTreeMap<&'static str, Times>,
    /// Calls given up at their deadline, or answered OK after it.
    pub(crate) late: u64,
    /// Calls refused with RESOURCE_EXHAUSTED and no word about when to try again.
    pub(crate) refused_for_good: u64,
}

impl Tally {
    pub(crate) fn record(&mut self, outcome: &Outcome) {
        let times = self.times.entry(code_name(outcome.code)).or_insert_with(Times::new);
        times.record(outcome.ended.saturating_duration_since(outcome.due));
        self.late += u64::from(outcome.late);
        self.refused_for_good +=
            u64::from(outcome.code == Code::ResourceExhausted && outcome.retry_after.is_none());
    }

    /// Counts the calls of `other` as well.
    pub(crate) fn add(&mut self, other: Self) {
        for (code, times) in other.times {
            self.times.entry(code).or_insert_with(Times::new).0 += &times.0;
        }
        self.late += other.late;
        self.refused_for_good += other.refused_for_good;
    }

    pub(crate) fn codes(&self) -> Codes {
        self.times.iter().map(|(code, times)| (*code, times.0.len())).collect()
    }

    pub(crate) fn count(&self, code: Code) -> u64 {
        self.times.get(code_name(code)).map_or(0, |times| times.0.len())
    }

    pub(crate) fn total(&self) -> u64 {
        self.times.values().map(|times| times.0.len()).sum()
    }

    /// How many calls ended with another code than OK.
    pub(crate) fn failed(&self) -> u64 {
        self.total() - self.count(Code::Ok)
    }

    /// The latency of the calls that ended with `code`.
    pub(crate) fn latency_of(&self, code: Code) -> Option<Latency> {
        self.times.get(code_name(code)).and_then(Times::latency)
    }

    /// The latency of all calls, whatever they ended with.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let mut all = Times::new();
        for times in self.times.values() {
            all.0 += &times.0;
        }
        all.latency()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ended(code: Code, millis: u64) -> Outcome {
        let due = Instant::now();
        let ended = due + Duration::from_millis(millis);
        Outcome { code, due, ended, late: false, retry_after: None }
    }

    #[test]
    fn percentiles_are_those_of_the_times_recorded() {
        let mut times = Times::new();
        (1..=10_000).for_each(|micros| times.record(Duration::from_micros(micros)));
        let latency = times.latency().unwrap();
        for (got, wanted) in
            [(latency.p50_ms, 5.0), (latency.p99_ms, 9.9), (latency.p999_ms, 9.99), (latency.max_ms, 10.0)]
        {
            assert!((got / wanted - 1.0).abs() < 0.001, "{got} instead of {wanted}");
        }
    }

    #[test]
    fn a_single_slow_call_is_the_maximum_and_not_the_median() {
        let mut times = Times::new();
        (0..99).for_each(|_| times.record(Duration::from_micros(150)));
        times.record(Duration::from_secs(2));
        let latency = times.latency().unwrap();
        assert_eq!(latency.p50_ms, 0.15);
        assert_eq!(latency.p99_ms, 0.15);
        assert!((latency.max_ms - 2_000.0).abs() < 2.0, "{latency:?}");
    }

    #[test]
    fn what_takes_longer_than_can_be_kept_still_counts() {
        let mut times = Times::new();
        times.record(Duration::MAX);
        assert!(times.latency().unwrap().max_ms >= 600_000.0);
    }

    #[test]
    fn no_times_have_no_percentiles() {
        assert_eq!(Times::new().latency(), None);
        assert_eq!(Tally::default().latency(), None);
        assert_eq!(Tally::default().latency_of(Code::Ok), None);
    }

    #[test]
    fn every_call_is_counted_under_its_code() {
        let mut tally = Tally::default();
        for (code, millis) in [(Code::Ok, 1), (Code::Ok, 3), (Code::Unavailable, 9)] {
            tally.record(&ended(code, millis));
        }
        assert_eq!(tally.codes(), Codes::from([("OK", 2), ("UNAVAILABLE", 1)]));
        assert_eq!((tally.count(Code::Ok), tally.count(Code::Internal), tally.total()), (2, 0, 3));
        assert_eq!(tally.failed(), 1);
        assert!((tally.latency_of(Code::Ok).unwrap().max_ms - 3.0).abs() < 0.01);
        assert!((tally.latency().unwrap().max_ms - 9.0).abs() < 0.01);
    }

    #[test]
    fn counts_add_up() {
        let mut tally = Tally::default();
        tally.record(&ended(Code::Ok, 1));
        let mut other = Tally::default();
        other.record(&Outcome { late: true, ..ended(Code::Ok, 9) });
        other.record(&ended(Code::ResourceExhausted, 1));
        tally.add(other);
        assert_eq!(tally.codes(), Codes::from([("OK", 2), ("RESOURCE_EXHAUSTED", 1)]));
        assert_eq!((tally.late, tally.refused_for_good), (1, 1));
        assert!((tally.latency_of(Code::Ok).unwrap().max_ms - 9.0).abs() < 0.01);
    }

    #[test]
    fn refusals_without_a_word_about_a_retry_are_told_apart() {
        let mut tally = Tally::default();
        tally.record(&ended(Code::ResourceExhausted, 1));
        tally.record(&Outcome {
            retry_after: Some(Duration::from_secs(1)),
            ..ended(Code::ResourceExhausted, 1)
        });
        tally.record(&ended(Code::Internal, 1));
        assert_eq!(tally.refused_for_good, 1);
    }
}
