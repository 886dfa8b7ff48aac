//! Which key does what at which time. Knows the keys of the database, and changes none of them there.

use std::time::Duration;

use crate::crypto::access_token::MAX_ACCESS_TTL;
use crate::domain::Timestamp;
use crate::storage::signing_keys::StoredSigningKey;

/// How long a key is published after the next one has begun to sign: until its last token has expired in
/// any process, whatever that one's settings say, and some minutes more for clocks that differ.
const PUBLISHED_AFTER: Duration = MAX_ACCESS_TTL.saturating_add(Duration::from_secs(5 * 60));

/// What a key is in use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and signs later.
    Next,
    /// Signs.
    Signing,
    /// Has signed, and is published until its tokens have expired.
    Published,
}

impl KeyState {
    /// Its name in what operators read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Published => "published",
        }
    }
}

/// A key in use, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledKey {
    /// The key's id.
    pub kid: String,
    /// Its algorithm's name in JOSE.
    pub algorithm: String,
    /// What it is in use for.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// Until when it is published, if there is a key after it.
    pub published_until: Option<Timestamp>,
}

/// The keys of the database, the one that signs last first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule(pub(super) Vec<StoredSigningKey>);

impl Schedule {
    /// Those whose tokens count at `now`.
    pub(super) fn in_use(mut self, now: Timestamp) -> Self {
        self.0.retain(|key| key.published_until.is_none_or(|until| until > now));
        self
    }

    /// The one that signs at `now`. Before its time when there is no other: the clock of this machine may
    /// be behind that of the one which made it.
    pub(super) fn signing(&self, now: Timestamp) -> Option<&StoredSigningKey> {
        self.0.iter().find(|key| key.signs_from <= now).or(self.0.last())
    }

    /// The one that signs after that.
    pub(super) fn next(&self, now: Timestamp) -> Option<&StoredSigningKey> {
        let signing = self.signing(now).map(|key| &key.kid);
        self.0.iter().rev().find(|key| key.signs_from > now && Some(&key.kid) != signing)
    }

    /// The one that signs at `now`, and those that sign later.
    pub(super) fn that_sign(&self, now: Timestamp) -> impl Iterator<Item = &StoredSigningKey> {
        let signing = self.signing(now).map(|key| &key.kid);
        self.0.iter().filter(move |key| key.signs_from > now || Some(&key.kid) == signing)
    }

    pub(super) fn insert(&mut self, key: StoredSigningKey) {
        self.0.push(key);
        self.arrange();
    }

    pub(super) fn remove(&mut self, kid: &str) {
        self.0.retain(|key| key.kid != kid);
        self.arrange();
    }

    /// Lets the key sign from `at` on.
    pub(super) fn advance(&mut self, kid: &str, at: Timestamp) {
        self.0.iter_mut().filter(|key| key.kid == kid).for_each(|key| key.signs_from = at);
        self.arrange();
    }

    /// Puts the keys in order, and an end to all but the last.
    fn arrange(&mut self) {
        self.0.sort_by(|a, b| (b.signs_from, &a.kid).cmp(&(a.signs_from, &b.kid)));
        let mut after: Option<Timestamp> = None;
        for key in &mut self.0 {
            key.published_until =
                after.map(|after| key.published_until.unwrap_or_else(|| after.plus(PUBLISHED_AFTER)));
            after = Some(key.signs_from);
        }
    }

    /// The keys in use, as an operator sees them.
    pub(super) fn describe(self, now: Timestamp) -> Vec<ScheduledKey> {
        let schedule = self.in_use(now);
        let signing = schedule.signing(now).map(|key| key.kid.clone());
        let describe = |key: StoredSigningKey| ScheduledKey {
            state: if Some(&key.kid) == signing.as_ref() {
                KeyState::Signing
            } else if key.signs_from > now {
                KeyState::Next
            } else {
                KeyState::Published
            },
            kid: key.kid,
            algorithm: key.algorithm,
            created_at: key.created_at,
            signs_from: key.signs_from,
            published_until: key.published_until,
        };
        schedule.0.into_iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    /// [`PUBLISHED_AFTER`], in seconds.
    const KEPT: i64 = 24 * HOUR + 300;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn key(kid: &str, signs_from: i64) -> StoredSigningKey {
        StoredSigningKey {
            kid: kid.to_owned(),
            algorithm: "EdDSA".to_owned(),
            public_key: Vec::new(),
            sealed_private_key: Vec::new(),
            created_at: at(0),
            signs_from: at(signs_from),
            published_until: None,
        }
    }

    fn schedule(keys: &[(&str, i64)]) -> Schedule {
        let mut schedule = Schedule::default();
        keys.iter().for_each(|(kid, from)| schedule.insert(key(kid, *from)));
        schedule
    }

    fn states(schedule: &Schedule, now: i64) -> Vec<(String, &'static str)> {
        let keys = schedule.clone().describe(at(now));
        keys.into_iter().map(|key| (key.kid, key.state.as_str())).collect()
    }

    fn ends(schedule: &Schedule) -> Vec<(&str, Option<i64>)> {
        let end = |key: &StoredSigningKey| key.published_until.map(Timestamp::as_unix_seconds);
        schedule.0.iter().map(|key| (key.kid.as_str(), end(key))).collect()
    }

    #[test]
    fn a_key_is_next_then_signs_then_is_published_until_its_last_token_has_expired() {
        let keys = schedule(&[("a", 0), ("b", HOUR)]);
        let state = |now| states(&keys, now);
        assert_eq!(state(HOUR - 1), [("b".to_owned(), "next"), ("a".to_owned(), "signing")]);
        assert_eq!(state(HOUR), [("b".to_owned(), "signing"), ("a".to_owned(), "published")]);
        assert_eq!(state(HOUR + KEPT - 1).len(), 2);
        assert_eq!(state(HOUR + KEPT), [("b".to_owned(), "signing")]);
        assert_eq!(ends(&keys), [("b", None), ("a", Some(HOUR + KEPT))]);
    }

    #[test]
    fn without_the_key_after_it_a_key_has_no_end() {
        let mut keys = schedule(&[("a", 0), ("b", HOUR)]);
        keys.remove("b");
        assert_eq!(ends(&keys), [("a", None)]);
        assert_eq!(keys.next(at(0)), None);
    }

    #[test]
    fn an_end_that_is_set_stays_when_a_later_key_goes() {
        let mut keys = schedule(&[("a", 0), ("b", HOUR)]);
        keys.remove("b");
        keys.insert(key("c", 2 * HOUR));
        keys.insert(key("d", 3 * HOUR));
        assert_eq!(ends(&keys)[2], ("a", Some(2 * HOUR + KEPT)));
        keys.remove("c");
        assert_eq!(ends(&keys), [("d", None), ("a", Some(2 * HOUR + KEPT))]);
    }

    #[test]
    fn a_key_that_signs_earlier_than_planned_takes_over() {
        let mut keys = schedule(&[("a", 0), ("b", HOUR)]);
        keys.advance("b", at(10));
        assert_eq!(states(&keys, 10)[0], ("b".to_owned(), "signing"));
    }

    #[test]
    fn a_clock_that_is_behind_finds_a_key_all_the_same() {
        let keys = schedule(&[("a", 100), ("b", 200)]);
        assert_eq!(keys.signing(at(0)).unwrap().kid, "a");
        assert_eq!(keys.next(at(0)).unwrap().kid, "b");
        assert_eq!(keys.that_sign(at(0)).count(), 2);
        assert_eq!(states(&keys, 0), [("b".to_owned(), "next"), ("a".to_owned(), "signing")]);
    }
}
