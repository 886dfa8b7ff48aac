//! How fast the workers are, by what they were seen to do.

use std::time::{Duration, Instant};

/// How much the latest measurement counts: enough to follow the machine's load within some ten
/// hashes, too little for one preempted hash to shut the door.
const WEIGHT: f64 = 0.125;

/// After this long without a measurement, half of what makes the average slower than the fastest is
/// forgotten. Else a starved minute could have everybody refused for ever: who is refused is not
/// measured.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// A moving average of the time that a round takes on one thread.
#[derive(Default)]
pub(super) struct Pace(Option<Measured>);

#[derive(Clone, Copy)]
struct Measured {
    average_nanos: f64,
    fastest_nanos: f64,
    at: Instant,
}

impl Pace {
    /// Notes that `rounds` took `elapsed`.
    pub(super) fn record(&mut self, rounds: u64, elapsed: Duration, now: Instant) {
        let latest = elapsed.as_secs_f64() * 1e9 / rounds.max(1) as f64;
        self.0 = Some(match self.0 {
            None => Measured { average_nanos: latest, fastest_nanos: latest, at: now },
            Some(before) => {
                let average = before.nanos(now);
                Measured {
                    average_nanos: average + (latest - average) * WEIGHT,
                    fastest_nanos: before.fastest_nanos.min(latest),
                    at: now,
                }
            }
        });
    }

    /// How long `rounds` will take; nothing before the first measurement.
    pub(super) fn duration_of(&self, rounds: u64, now: Instant) -> Duration {
        let nanos = self.0.map_or(0.0, |measured| measured.nanos(now));
        Duration::try_from_secs_f64(nanos * rounds as f64 / 1e9).unwrap_or(Duration::MAX)
    }
}

impl Measured {
    fn nanos(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.fastest_nanos + (self.average_nanos - self.fastest_nanos) * 0.5f64.powf(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_measurement_counts_in_full_and_later_ones_in_part() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.duration_of(16, now), Duration::ZERO);
        pace.record(16, 8 * MS, now);
        assert_eq!(pace.duration_of(32, now), 16 * MS);
        pace.record(16, 16 * MS, now);
        assert_eq!(pace.duration_of(16, now), 9 * MS);
    }

    #[test]
    fn a_slow_spell_is_forgotten_when_nothing_is_measured() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.record(16, 8 * MS, now);
        pace.record(16, 3_600_000 * MS, now);
        assert!(pace.duration_of(16, now) > 400_000 * MS);
        assert!(pace.duration_of(16, now + 30 * HALF_LIFE) < 9 * MS);
    }
}
