//! Which bcrypt cost this machine can afford, by measuring it.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use bcrypt_lanes::{Measurement, Width};

use super::hasher::{Cost, Staffing};

/// Below this, a stolen hash is guessed too fast, however slow the machine (OWASP Password Storage
/// Cheat Sheet, "bcrypt").
const LEAST_ADVISED: Cost = Cost::new(10).expect("10 is a cost");

/// How fast one core of this machine computes bcrypt, all hash threads at work.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Threads that were measured, all at once.
    pub threads: NonZeroUsize,
    /// The number of lanes that the service would use.
    pub best_lanes: usize,
    /// What an expansion of 1, 2, 3, … lanes takes a thread, in seconds; the mean of the threads.
    expansions: Vec<f64>,
}

/// A cost for a target time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// The highest cost whose hashes take at most the target while all lanes are in use, but not
    /// less than 10.
    pub cost: Cost,
    /// Whether they do; false when cost 10 takes longer already.
    pub meets_target: bool,
}

impl Calibration {
    /// Measures for about `time` on `threads` threads, or on as many as the service would use, all
    /// at once: cores may share what they compute with. Blocks.
    ///
    /// `lanes` takes the place of the number of lanes that is found best.
    ///
    /// # Errors
    /// The system refuses to start a thread.
    pub fn take(
        threads: Option<NonZeroUsize>,
        lanes: Option<NonZeroUsize>,
        time: Duration,
    ) -> std::io::Result<Self> {
        let threads = threads.unwrap_or_else(|| Staffing::of_this_machine().threads);
        let started: Vec<_> = (0..threads.get())
            .map(|index| {
                let name = format!("calibrate-{index}");
                thread::Builder::new().name(name).spawn(move || Measurement::take(time))
            })
            .collect::<Result<_, _>>()?;
        let measured: Vec<_> =
            started.into_iter().map(|thread| thread.join().expect("measuring does not panic")).collect();
        let mean = |width| {
            let sum: Duration = measured.iter().map(|measured| measured.expansion(width)).sum();
            sum.as_secs_f64() / measured.len() as f64
        };
        Ok(Self::new(threads, lanes, Width::all().map(mean).collect()))
    }

    fn new(threads: NonZeroUsize, lanes: Option<NonZeroUsize>, expansions: Vec<f64>) -> Self {
        let best = || Measurement::of_expansions(&expansions).best_width().get();
        let best_lanes = lanes.map_or_else(best, NonZeroUsize::get);
        Self { threads, best_lanes, expansions }
    }

    /// The numbers of lanes that were measured.
    pub fn lanes(&self) -> impl Iterator<Item = usize> {
        1..=self.expansions.len()
    }

    /// How long a hash takes with `lanes` in use on its core, itself included.
    ///
    /// # Panics
    /// `lanes` is not among [`Calibration::lanes`].
    pub fn seconds(&self, cost: Cost, lanes: usize) -> f64 {
        self.expansions[lanes - 1] * bcrypt_lanes::Cost::from(cost).expansions() as f64
    }

    /// How many hashes a core computes in a second with `lanes` in use.
    ///
    /// # Panics
    /// `lanes` is not among [`Calibration::lanes`].
    pub fn hashes_per_second(&self, cost: Cost, lanes: usize) -> f64 {
        lanes as f64 / self.seconds(cost, lanes)
    }

    /// The cost for hashes that take at most `target`.
    pub fn recommend(&self, target: Duration) -> Recommendation {
        let is_met = |cost: &Cost| self.seconds(*cost, self.best_lanes) <= target.as_secs_f64();
        let cost = Cost::all().rev().find(is_met).unwrap_or(Cost::MIN).max(LEAST_ADVISED);
        Recommendation { cost, meets_target: is_met(&cost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cost 10 takes 20.5 ms alone and 41 ms among four, five or more lanes are of no use.
    fn calibration(lanes: Option<usize>) -> Calibration {
        let micros = [10, 13, 16, 20, 26, 32, 40, 60];
        let lanes = lanes.map(|lanes| NonZeroUsize::new(lanes).unwrap());
        Calibration::new(NonZeroUsize::MIN, lanes, micros.map(|micros| f64::from(micros) / 1e6).to_vec())
    }

    fn recommended(target_ms: u64) -> (u32, bool) {
        let Recommendation { cost, meets_target } =
            calibration(None).recommend(Duration::from_millis(target_ms));
        (cost.get(), meets_target)
    }

    #[test]
    fn the_recommended_cost_is_the_highest_that_meets_the_target_under_load() {
        assert_eq!(calibration(None).best_lanes, 4);
        assert_eq!([41, 81, 82, 250].map(recommended), [(10, true), (10, true), (11, true), (12, true)]);
        assert_eq!(recommended(60_000), (16, true));
    }

    #[test]
    fn no_target_makes_it_recommend_what_is_guessed_too_fast() {
        assert_eq!([1, 40].map(recommended), [(10, false), (10, false)]);
    }

    #[test]
    fn the_lanes_that_are_configured_count_and_not_the_best() {
        let target = Duration::from_millis(250);
        assert_eq!(calibration(Some(1)).recommend(target).cost.get(), 13);
        assert_eq!(calibration(Some(8)).recommend(target).cost.get(), 11);
    }

    #[test]
    fn time_and_rate_are_of_one_core() {
        let (calibration, cost) = (calibration(None), Cost::new(10).unwrap());
        assert!((calibration.seconds(cost, 1) - 0.020_49).abs() < 1e-9);
        assert!((calibration.hashes_per_second(cost, 2) - 2.0 / 0.026_637).abs() < 1e-9);
    }

    #[test]
    fn this_machine_can_be_calibrated() {
        let two = NonZeroUsize::new(2);
        let calibration = Calibration::take(two, None, Duration::from_millis(1)).unwrap();
        assert_eq!((Some(calibration.threads), calibration.lanes().count()), (two, Width::MAX.get()));
        assert!(calibration.lanes().all(|lanes| calibration.seconds(Cost::MIN, lanes) > 0.0));
    }
}
