//! How fast the workers are, by what they were seen to do.

use std::time::{Duration, Instant};

/// How far back the average looks, in time spent computing: long enough that one preempted slice does
/// not shut the door, short enough to follow the machine's load.
const MEMORY: Duration = Duration::from_millis(500);

/// After this long without a measurement, half of what makes the average slower than the ideal is
/// forgotten. Else a starved minute could have everybody refused for ever: who is refused is not
/// measured.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// How long an expansion of all lanes takes on a thread that nothing disturbs, by the number of lanes.
#[derive(Clone, Debug)]
pub(super) struct Ideal(Vec<f64>);

impl Ideal {
    /// The times of 1, 2, 3, … lanes; at least one.
    pub(super) fn new(expansions: Vec<Duration>) -> Self {
        assert!(!expansions.is_empty(), "an engine has a lane");
        Self(expansions.into_iter().map(|time| time.as_secs_f64()).collect())
    }

    fn seconds(&self, lanes: usize) -> f64 {
        self.0[lanes.clamp(1, self.0.len()) - 1]
    }

    /// The most lanes.
    pub(super) fn width(&self) -> usize {
        self.0.len()
    }
}

/// How much slower than ideal the workers are: a moving average over the time that they computed.
pub(super) struct Pace {
    ideal: Ideal,
    /// What the recent slices would have taken ideally, and what they took.
    ideal_seconds: f64,
    seconds: f64,
    at: Option<Instant>,
}

impl Pace {
    /// The ideal pace, until something is measured.
    pub(super) fn new(ideal: Ideal) -> Self {
        Self { ideal, ideal_seconds: 0.0, seconds: 0.0, at: None }
    }

    /// Notes that advancing `lanes` lanes by `expansions` took a worker `elapsed`.
    pub(super) fn record(&mut self, lanes: usize, expansions: u64, elapsed: Duration, now: Instant) {
        let ideal = self.ideal.seconds(lanes) * expansions as f64;
        let slowdown = self.slowdown(now);
        let kept = (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        // What was forgotten of a slow spell stays forgotten.
        self.ideal_seconds = self.ideal_seconds * kept + ideal;
        self.seconds = (self.ideal_seconds - ideal) * slowdown + elapsed.as_secs_f64();
        self.at = Some(now);
    }

    /// How many times longer than ideal things take.
    fn slowdown(&self, now: Instant) -> f64 {
        let Some(at) = self.at.filter(|_| self.ideal_seconds > 0.0) else { return 1.0 };
        let measured = self.seconds / self.ideal_seconds;
        let age = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let floor = measured.min(1.0);
        floor + (measured - floor) * 0.5f64.powf(age)
    }

    /// The pace as it is at `now`.
    pub(super) fn at(&self, now: Instant) -> Current {
        let width = self.ideal.width();
        Current { width, expansion: self.ideal.seconds(width) * self.slowdown(now) }
    }

    /// How long a job of `expansions` takes a worker that has nothing else to do, and that nothing
    /// disturbs. What was measured before says nothing of a worker that is idle now.
    pub(super) fn job_alone(&self, expansions: u64) -> Duration {
        seconds(self.ideal.seconds(1) * expansions as f64)
    }
}

/// How fast workers are at one moment, all of their lanes in use.
#[derive(Clone, Copy)]
pub(super) struct Current {
    /// Lanes of a worker.
    width: usize,
    /// What an expansion of all of them takes, in seconds.
    expansion: f64,
}

impl Current {
    /// How long a job of `expansions` takes.
    pub(super) fn job(&self, expansions: u64) -> Duration {
        seconds(self.expansion * expansions as f64)
    }

    /// How long `workers` need for `expansions` altogether.
    pub(super) fn work(&self, expansions: u64, workers: usize) -> Duration {
        seconds(self.expansion * expansions as f64 / (self.width * workers.max(1)) as f64)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Two lanes: 1 ms for an expansion of one, 1.5 ms for one of both.
    fn pace() -> Pace {
        Pace::new(Ideal::new(vec![MS, 3 * MS / 2]))
    }

    #[test]
    fn before_anything_is_measured_the_pace_is_ideal() {
        let (pace, now) = (pace(), Instant::now());
        assert_eq!(pace.at(now).job(100), 150 * MS);
        assert_eq!(pace.at(now).work(100, 1), 75 * MS);
        assert_eq!(pace.at(now).work(100, 3), 25 * MS);
    }

    #[test]
    fn a_measurement_counts_for_its_time_whatever_the_number_of_lanes() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.record(1, 10, 20 * MS, now);
        assert!(pace.at(now).job(100).abs_diff(300 * MS) < MS);
        pace.record(2, 10, 30 * MS, now);
        assert!(pace.at(now).job(100).abs_diff(300 * MS) < MS);
        // A slice that was preempted for long weighs more than a short one that was not.
        pace.record(2, 10, 15 * MS, now);
        let little = pace.at(now).job(100);
        assert!(little > 200 * MS && little < 300 * MS, "{little:?}");
        pace.record(2, 10, 10_000 * MS, now);
        assert!(pace.at(now).job(100) > 10_000 * MS);
    }

    #[test]
    fn a_slow_spell_is_forgotten_when_nothing_is_measured() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.record(2, 10, 3_600_000 * MS, now);
        assert!(pace.at(now).job(10) > 3_000_000 * MS);
        let later = now + 40 * HALF_LIFE;
        assert!(pace.at(later).job(10) < 16 * MS);
        pace.record(2, 10, 15 * MS, later);
        assert!(pace.at(later).job(10) < 16 * MS);
    }

    #[test]
    fn a_pace_better_than_ideal_stays() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.record(2, 1000, 750 * MS, now);
        assert_eq!(pace.at(now + 40 * HALF_LIFE).job(10), 15 * MS / 2);
    }
}
