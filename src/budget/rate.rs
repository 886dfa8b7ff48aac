//! So many of something a second, for each of those who do it.
//!
//! A generic cell rate algorithm (ITU-T I.371, A.2): for each key one moment is kept, at which all that it has
//! used will have come back. Keys whose moment has passed have nothing to remember and are forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many keys are remembered: some hundred bytes each. Beyond that those with the least to remember go.
const REMEMBERED: usize = 100_000;

/// How much there is for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, after a pause.
    pub burst: u32,
    /// How many a second come back.
    pub per_second: u32,
}

impl Rate {
    /// This rate, `factor` times.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self { burst: self.burst.saturating_mul(factor), per_second: self.per_second.saturating_mul(factor) }
    }

    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    fn tolerance(self) -> Duration {
        self.interval().saturating_mul(self.burst.saturating_sub(1))
    }
}

/// What all keys have used. A clone is another handle on the same.
#[derive(Debug)]
pub struct Rates<K>(Arc<Mutex<HashMap<K, Instant>>>);

/// One that was taken. Given back when dropped before it was spent.
#[derive(Debug)]
#[must_use]
pub struct Charge<K: Eq + Hash>(Option<(Rates<K>, K, Duration)>);

impl<K> Clone for Rates<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Copy> Rates<K> {
    /// Takes one for `key`, which has it at `rate`.
    ///
    /// # Errors
    /// When it has none left: after how long it will have one.
    pub fn take(&self, key: K, rate: Rate, now: Instant) -> Result<Charge<K>, Duration> {
        let mut used = self.lock();
        let back_at = used.get(&key).copied().filter(|at| *at > now).unwrap_or(now);
        let allowed_at = back_at.checked_sub(rate.tolerance());
        if let Some(wait) =
            allowed_at.map(|at| at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
        {
            return Err(wait);
        }
        if used.len() >= REMEMBERED && !used.contains_key(&key) {
            make_room(&mut used, now);
        }
        used.insert(key, back_at + rate.interval());
        Ok(Charge(Some((self.clone(), key, rate.interval()))))
    }

    /// How many keys have something to remember.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no key has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> Rates<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        // Nothing under the lock panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the keys that have nothing to remember, or else the half that has the least.
fn make_room<K: Eq + Hash>(used: &mut HashMap<K, Instant>, now: Instant) {
    used.retain(|_, at| *at > now);
    if used.len() >= REMEMBERED {
        let mut moments: Vec<_> = used.values().copied().collect();
        let (_, &mut median, _) = moments.select_nth_unstable(REMEMBERED / 2);
        used.retain(|_, at| *at > median);
    }
}

impl<K: Eq + Hash> Charge<K> {
    /// Keeps what was taken: it was of use.
    pub fn spend(mut self) {
        self.0 = None;
    }
}

impl<K: Eq + Hash> Drop for Charge<K> {
    fn drop(&mut self) {
        let Some((rates, key, interval)) = self.0.take() else { return };
        let mut used = rates.lock();
        if let Some(at) = used.get_mut(&key)
            && let Some(before) = at.checked_sub(interval)
        {
            *at = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10, per_second: 2 };

    /// How many of `tries` are let through at `now`.
    fn through(rates: &Rates<u8>, key: u8, tries: u32, now: Instant) -> usize {
        (0..tries).filter(|_| rates.take(key, RATE, now).map(Charge::spend).is_ok()).count()
    }

    #[test]
    fn a_burst_goes_through_and_then_so_many_a_second() {
        let (rates, start) = (Rates::default(), Instant::now());
        assert_eq!(through(&rates, 1, 100, start), 10);
        assert_eq!(rates.take(1, RATE, start).unwrap_err(), Duration::from_millis(500));
        assert_eq!(through(&rates, 1, 100, start + Duration::from_secs(1)), 2);
        assert_eq!(through(&rates, 1, 100, start + Duration::from_secs(2)), 2);
        assert_eq!(through(&rates, 1, 100, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn one_key_does_not_use_up_what_another_has() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert_eq!(through(&rates, 1, 100, now), 10);
        assert_eq!(through(&rates, 2, 100, now), 10);
    }

    #[test]
    fn what_was_taken_and_not_spent_comes_back() {
        let (rates, now) = (Rates::default(), Instant::now());
        for _ in 0..1_000 {
            drop(rates.take(1, RATE, now).unwrap());
        }
        assert_eq!(through(&rates, 1, 100, now), 10);
    }

    #[test]
    fn only_so_many_keys_are_remembered_and_the_busiest_are() {
        let (rates, now) = (Rates::default(), Instant::now());
        for key in 0..REMEMBERED {
            rates.take(key, RATE, now).unwrap().spend();
        }
        for _ in 0..RATE.burst - 1 {
            rates.take(7, RATE, now).unwrap().spend();
        }
        rates.take(REMEMBERED, RATE, now).unwrap().spend();
        assert!(rates.len() <= REMEMBERED / 2 + 2, "{}", rates.len());
        assert!(rates.take(7, RATE, now).is_err(), "the busiest is remembered");
    }
}
