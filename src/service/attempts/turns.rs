//! Who may ask the database for a place, in this process: a few at a time for each account and source, and
//! nobody while it is known that there is none.
//!
//! Without this, fifty checks at once would ask for ten places again and again, and a guesser who has used
//! his up would cost a transaction each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::QUARTER;
use crate::domain::Timestamp;
use crate::storage::attempts::AttemptKey;

/// How many wait for their turn at one gate. Beyond that they are told to come back.
const CROWD: usize = 100;
/// How many closed gates are remembered: some hundred bytes each.
const REMEMBERED: usize = 10_000;

/// The gates of all accounts and sources. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those at which somebody is.
    gates: HashMap<AttemptKey, Gate>,
    closed: HashMap<AttemptKey, Timestamp>,
}

#[derive(Debug)]
struct Gate {
    places: Arc<Semaphore>,
    /// Those who are in or wait.
    callers: usize,
}

/// Somebody is in, or waits. Leaves when dropped.
#[derive(Debug)]
struct Presence {
    turns: Turns,
    key: AttemptKey,
}

/// A place inside, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _presence: Presence,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// The gate is closed.
    Closed { until: Timestamp },
    /// Too many wait already.
    Crowded,
}

impl Turns {
    /// Waits until fewer than `places` are in, first come, first served.
    pub(super) async fn turn(
        &self,
        key: AttemptKey,
        places: usize,
        now: impl Fn() -> Timestamp,
    ) -> Result<Turn, NoTurn> {
        let (presence, gate) = self.join(key, places, now())?;
        let place = gate.acquire_owned().await.map_err(|_| NoTurn::Crowded)?;
        // Who was in before may have found out that there is no use.
        match self.closed_until(key, now()) {
            Some(until) => Err(NoTurn::Closed { until }),
            None => Ok(Turn { _place: place, _presence: presence }),
        }
    }

    fn join(
        &self,
        key: AttemptKey,
        places: usize,
        now: Timestamp,
    ) -> Result<(Presence, Arc<Semaphore>), NoTurn> {
        if let Some(until) = self.closed_until(key, now) {
            return Err(NoTurn::Closed { until });
        }
        let mut state = self.lock();
        let gate = state
            .gates
            .entry(key)
            .or_insert_with(|| Gate { places: Arc::new(Semaphore::new(places)), callers: 0 });
        if gate.callers >= places + CROWD {
            return Err(NoTurn::Crowded);
        }
        gate.callers += 1;
        Ok((Presence { turns: self.clone(), key }, Arc::clone(&gate.places)))
    }

    /// Turns everybody away until then. Right only because what counts is never forgotten earlier.
    pub(super) fn close(&self, key: AttemptKey, until: Timestamp) {
        let mut state = self.lock();
        if state.closed.len() >= REMEMBERED {
            // The database knows them all.
            state.closed.clear();
        }
        state.closed.insert(key, until);
    }

    /// Until when the gate is closed, if it is.
    pub(super) fn closed_until(&self, key: AttemptKey, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.lock();
        let until = *state.closed.get(&key)?;
        // No limit keeps anybody out for longer than that. A later end is of a clock that was ahead.
        if until <= now || until > now.plus(QUARTER) {
            state.closed.remove(&key);
            return None;
        }
        Some(until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let Some(gate) = state.gates.get_mut(&self.key) else { return };
        gate.callers -= 1;
        if gate.callers == 0 {
            state.gates.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: AttemptKey = AttemptKey { subject: [1; 32], source: [2; 32] };
    const OTHER: AttemptKey = AttemptKey { subject: [1; 32], source: [3; 32] };

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros)
    }

    async fn turn(turns: &Turns, key: AttemptKey, now: i64) -> Result<Turn, NoTurn> {
        turns.turn(key, 1, || at(now)).await
    }

    #[tokio::test]
    async fn who_comes_second_waits_for_the_first_to_leave() {
        let turns = Turns::default();
        let first = turn(&turns, KEY, 0).await.unwrap();
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turn(&turns, KEY, 0).await }
        });
        // At another gate nobody waits.
        turn(&turns, OTHER, 0).await.unwrap();
        while turns.lock().gates.get(&KEY).unwrap().callers < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.unwrap().unwrap());
        assert!(turns.lock().gates.is_empty());
    }

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_those_who_wait_go() {
        let turns = Turns::default();
        let first = turn(&turns, KEY, 0).await.unwrap();
        let waits = tokio::spawn({
            let turns = turns.clone();
            async move { turn(&turns, KEY, 5).await }
        });
        while turns.lock().gates.get(&KEY).unwrap().callers < 2 {
            tokio::task::yield_now().await;
        }
        turns.close(KEY, at(9));
        drop(first);
        assert_eq!(waits.await.unwrap().unwrap_err(), NoTurn::Closed { until: at(9) });
        assert_eq!(turn(&turns, KEY, 8).await.unwrap_err(), NoTurn::Closed { until: at(9) });
        drop(turn(&turns, KEY, 9).await.unwrap());
        assert!(turns.lock().gates.is_empty());
    }

    #[test]
    fn a_gate_that_was_closed_while_the_clock_was_ahead_opens_when_it_is_right_again() {
        let turns = Turns::default();
        let ahead = at(0).plus(Duration::from_secs(24 * 60 * 60));
        turns.close(KEY, ahead.plus(QUARTER));
        assert_eq!(turns.closed_until(KEY, ahead), Some(ahead.plus(QUARTER)));
        assert_eq!(turns.closed_until(KEY, at(0)), None);
    }

    #[tokio::test]
    async fn a_crowd_is_turned_away_at_once() {
        let turns = Turns::default();
        let _first = turn(&turns, KEY, 0).await.unwrap();
        let crowd: Vec<_> = (0..CROWD).map(|_| turns.join(KEY, 1, at(0)).unwrap()).collect();
        assert_eq!(turn(&turns, KEY, 0).await.unwrap_err(), NoTurn::Crowded);
        drop(crowd);
        assert_eq!(turns.lock().gates.get(&KEY).unwrap().callers, 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let turns = Turns::default();
        for n in 0..=REMEMBERED {
            let subject = *filled(n).first_chunk().unwrap();
            turns.close(AttemptKey { subject, source: [0; 32] }, at(1));
        }
        assert!(turns.lock().closed.len() <= REMEMBERED);
    }

    fn filled(n: usize) -> Vec<u8> {
        n.to_be_bytes().repeat(4)
    }
}
