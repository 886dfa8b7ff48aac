//! Which sources may have a service token looked up that nothing proves: it may be a real one, and it may be made
//! up.
//!
//! A source gets ten of them wrong within a minute, by this process. Those under way hold a place each, so that no
//! more are looked up however many come at once; further ones wait for these to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::{Attempts, Limit, Party, Room, Timestamp};

/// Enough for an operator who mistypes, and no load for the database.
const WRONG: Limit = Limit { most: 10, within: Duration::from_secs(60) };
/// How many sources are remembered: some hundred bytes each.
const REMEMBERED: usize = 10_000;

/// The guesses of all sources. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Guesses(Arc<Mutex<HashMap<Party, Tried>>>);

#[derive(Debug, Default)]
struct Tried {
    attempts: Attempts,
    /// Told when one that was under way has ended.
    ended: Arc<Notify>,
}

/// The right to have one token looked up. Given back when dropped, unless it was wrong.
#[derive(Debug)]
pub(super) struct Guess {
    guesses: Guesses,
    source: Party,
    at: Timestamp,
    is_wrong: bool,
}

impl Guess {
    /// There is no such token.
    pub(super) fn was_wrong(mut self) {
        self.is_wrong = true;
    }
}

impl Guesses {
    /// Takes the right to one look-up; where those under way may use up the rest, waits for them.
    ///
    /// # Errors
    /// When the source has none left: until when.
    pub(super) async fn begin(&self, source: Party, now: impl Fn() -> Timestamp) -> Result<Guess, Timestamp> {
        loop {
            let ended = {
                let mut sources = self.lock();
                let now = now();
                make_room(&mut sources, source, now);
                let tried = sources.entry(source).or_default();
                tried.attempts.forget(WRONG, now);
                match tried.attempts.room(WRONG, now) {
                    Room::Full { until } => return Err(until),
                    Room::Free => {
                        tried.attempts.pending.push(now);
                        return Ok(Guess { guesses: self.clone(), source, at: now, is_wrong: false });
                    }
                    // Registered under the lock, so that no end is missed.
                    Room::Awaited => Arc::clone(&tried.ended).notified_owned(),
                }
            };
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Party, Tried>> {
        // Nothing under the lock panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets sources that have nothing under way, when another one needs the room: first those with nothing to
/// remember.
fn make_room(sources: &mut HashMap<Party, Tried>, source: Party, now: Timestamp) {
    if sources.len() < REMEMBERED || sources.contains_key(&source) {
        return;
    }
    sources.retain(|_, tried| {
        tried.attempts.forget(WRONG, now);
        tried.attempts.forgotten_at(WRONG).is_some()
    });
    if sources.len() >= REMEMBERED {
        sources.retain(|_, tried| !tried.attempts.pending.is_empty());
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let mut sources = self.guesses.lock();
        let Some(tried) = sources.get_mut(&self.source) else { return };
        tried.attempts.end(self.at, self.is_wrong);
        tried.ended.notify_waiters();
        if tried.attempts == Attempts::default() {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::Source;

    fn source(number: u32) -> Party {
        Party::Address(Source::of(Some(IpAddr::V4(number.into()))))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    async fn begin(guesses: &Guesses, number: u32, now: i64) -> Result<Guess, Timestamp> {
        guesses.begin(source(number), || at(now)).await
    }

    #[tokio::test]
    async fn a_source_gets_ten_wrong_within_a_minute() {
        let guesses = Guesses::default();
        for second in 0..10 {
            begin(&guesses, 1, second).await.unwrap().was_wrong();
        }
        assert_eq!(begin(&guesses, 1, 10).await.unwrap_err(), at(60));
        drop(begin(&guesses, 2, 10).await.unwrap());
        begin(&guesses, 1, 60).await.unwrap().was_wrong();
        assert_eq!(begin(&guesses, 1, 60).await.unwrap_err(), at(61));
    }

    #[tokio::test]
    async fn right_ones_are_given_back_and_nothing_of_them_is_remembered() {
        let guesses = Guesses::default();
        for _ in 0..30 {
            drop(begin(&guesses, 1, 0).await.unwrap());
        }
        assert!(guesses.lock().is_empty());
    }

    #[tokio::test]
    async fn the_eleventh_at_once_waits_for_one_to_end() {
        let guesses = Guesses::default();
        let mut under_way = Vec::new();
        for _ in 0..10 {
            under_way.push(begin(&guesses, 1, 0).await.unwrap());
        }
        let waiting = tokio::spawn({
            let guesses = guesses.clone();
            async move { begin(&guesses, 1, 0).await.map(drop) }
        });
        tokio::task::yield_now().await;
        under_way.pop().unwrap().was_wrong();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nine under way may all be wrong");
        drop(under_way.pop());
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let guesses = Guesses::default();
        let under_way = begin(&guesses, 0, 0).await.unwrap();
        for number in 1..=u32::try_from(REMEMBERED).unwrap() {
            begin(&guesses, number, 0).await.unwrap().was_wrong();
        }
        assert!(guesses.lock().len() <= REMEMBERED);
        assert!(guesses.lock().contains_key(&source(0)));
        drop(under_way);
    }
}
