//! How fast this machine is, by trying.

use std::time::{Duration, Instant};

use crate::job::Cost;
use crate::kernel::{self, Banks, MAX_LANES, Schedule, State};
use crate::lanes::Width;

/// How long finding the best width may take when a service starts.
const QUICK: Duration = Duration::from_millis(3);

/// The least number of tries for each width: of two, both may have been disturbed.
const LEAST_TRIES: u32 = 3;

/// A width is as good as the best when it does at least this part of its work: what the last few per
/// cent would gain in work, they would lose in the time that each hash takes.
const AS_GOOD_AS_BEST: f64 = 0.97;

/// How long one expansion of all lanes takes, for each number of lanes. The fastest of many tries: what
/// else ran on the core meanwhile does not count.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    seconds: [f64; MAX_LANES],
}

impl Measurement {
    /// Measures within a few milliseconds, on the calling thread.
    pub fn quick() -> Self {
        Self::take(QUICK)
    }

    /// Measures for about `time`, on the calling thread.
    pub fn take(time: Duration) -> Self {
        let mut even = Box::new(std::array::from_fn(|_| State::INITIAL));
        let mut odd = Box::new(std::array::from_fn(|_| State::INITIAL));
        let mut schedules: [Schedule; MAX_LANES] = std::array::from_fn(|_| Schedule::idle());
        let mut seconds = [f64::INFINITY; MAX_LANES];
        let (began, mut tries) = (Instant::now(), 0);
        while tries < LEAST_TRIES || began.elapsed() < time {
            for (n, best) in seconds.iter_mut().enumerate() {
                let mut banks = Banks { even: &mut even, odd: &mut odd };
                let started = Instant::now();
                kernel::run::<false>(&mut banks, &mut schedules[..=n], 1);
                *best = best.min(started.elapsed().as_secs_f64());
            }
            tries += 1;
        }
        Self { seconds }
    }

    /// What is known already: the seconds that one expansion takes with 1, 2, 3, … lanes in flight.
    ///
    /// # Panics
    /// When there are not as many as [`Width::all`].
    pub fn of_expansions(seconds: &[f64]) -> Self {
        Self { seconds: seconds.try_into().expect("a figure for each width") }
    }

    /// How long one expansion of `lanes` lanes takes.
    pub fn expansion(&self, lanes: Width) -> Duration {
        Duration::from_secs_f64(self.seconds[lanes.get() - 1])
    }

    /// How long a hash takes while `lanes` lanes are in flight.
    pub fn hash_time(&self, lanes: Width, cost: Cost) -> Duration {
        let seconds = self.seconds[lanes.get() - 1] * cost.expansions() as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// How many hashes a second the core computes with `lanes` lanes in flight.
    pub fn hashes_per_second(&self, lanes: Width, cost: Cost) -> f64 {
        lanes.get() as f64 / (self.seconds[lanes.get() - 1] * cost.expansions() as f64)
    }

    /// The fewest lanes that get as much done as any number of them, or nearly.
    pub fn best_width(&self) -> Width {
        let rate = |width: &Width| self.hashes_per_second(*width, Cost::MIN);
        let best = Width::all().map(|width| rate(&width)).fold(0.0, f64::max);
        Width::all().find(|width| rate(width) >= AS_GOOD_AS_BEST * best).unwrap_or(Width::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(micros: [u32; MAX_LANES]) -> Measurement {
        Measurement::of_expansions(&micros.map(|micros| f64::from(micros) / 1e6))
    }

    #[test]
    fn the_best_width_is_the_least_that_gets_nearly_the_most_done() {
        assert_eq!(measured([30, 30, 30, 30, 36, 43, 60, 80]).best_width(), Width::new(5).unwrap());
        assert_eq!(measured([30, 60, 90, 120, 150, 180, 210, 240]).best_width(), Width::MIN);
        assert_eq!(measured([30; MAX_LANES]).best_width(), Width::MAX);
    }

    #[test]
    fn a_hash_takes_its_expansions() {
        let measured = measured([10; MAX_LANES]);
        let cost = Cost::new(5).unwrap();
        assert_eq!(measured.hash_time(Width::MIN, cost), Duration::from_micros(650));
        assert!((measured.hashes_per_second(Width::MAX, cost) - 8e6 / 650.0).abs() < 1e-6);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let measured = Measurement::quick();
        for width in Width::all() {
            assert!(measured.expansion(width) > Duration::ZERO);
        }
    }
}
