//! The same as the `bcrypt` crate, whatever joins and leaves meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bcrypt_lanes::{Cost, Job, Key, Lanes, Outcome, Salt, Width};
use proptest::prelude::*;

/// A password of 0 to 72 bytes of any value, a salt and a cost.
#[derive(Clone, Debug)]
struct Hashed {
    password: Vec<u8>,
    salt: Salt,
    cost: u32,
}

impl Hashed {
    fn any() -> impl Strategy<Value = Self> {
        (prop::collection::vec(any::<u8>(), 0..=72), any::<Salt>(), 4..=7_u32)
            .prop_map(|(password, salt, cost)| Self { password, salt, cost })
    }

    /// What the `bcrypt` crate makes of it.
    fn reference(&self) -> [u8; 23] {
        let mut key = self.password.clone();
        key.push(0);
        key.truncate(72);
        *bcrypt::bcrypt(self.cost, self.salt, &key).first_chunk().unwrap()
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A job joins, when there is room: its digest is wanted.
    Hash(Hashed),
    /// A job joins, when there is room: the right digest, or one with a bit changed, is expected.
    Check { hashed: Hashed, flipped: Option<usize>, floor: u32 },
    /// The lanes advance.
    Advance(u32),
    /// One of the lanes is abandoned.
    Abandon(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let check = (Hashed::any(), prop::option::of(0..23 * 8_usize), 4..=8_u32)
        .prop_map(|(hashed, flipped, floor)| Event::Check { hashed, flipped, floor });
    let event = prop_oneof![
        3 => Hashed::any().prop_map(Event::Hash),
        3 => check,
        4 => (1..200_u32).prop_map(Event::Advance),
        1 => any::<prop::sample::Index>().prop_map(Event::Abandon),
    ];
    prop::collection::vec(event, 1..40)
}

/// Runs the events and then all lanes to their end, and compares what comes out.
fn run(width: Width, events: Vec<Event>) {
    let mut lanes = Lanes::new(width);
    // What is in flight, and what shall come of it after which number of expansions.
    let mut expected = BTreeMap::new();
    let cost = |exponent: u32| Cost::new(exponent).unwrap();
    let drain = events.iter().map(|_| Event::Advance(u32::MAX)).collect::<Vec<_>>();
    for (tag, event) in events.into_iter().chain(drain).enumerate() {
        match event {
            Event::Hash(_) | Event::Check { .. } if !lanes.has_room() => {
                assert_eq!(lanes.len(), width.get());
            }
            Event::Hash(hashed) => {
                let job = Job::hash(Key::of_password(&hashed.password), hashed.salt, cost(hashed.cost));
                expected.insert(tag, (Outcome::Digest(hashed.reference()), job.max_expansions()));
                lanes.join(tag, job).unwrap();
            }
            Event::Check { hashed, flipped, floor } => {
                let mut digest = hashed.reference();
                flipped.iter().for_each(|bit| digest[bit / 8] ^= 1 << (bit % 8));
                let key = Key::of_password(&hashed.password);
                let job = Job::check(key, hashed.salt, cost(hashed.cost), digest).with_floor(cost(floor));
                let outcome = match flipped {
                    Some(_) => (Outcome::Mismatch, cost(hashed.cost.max(floor)).expansions()),
                    None => (Outcome::Match, cost(hashed.cost).expansions()),
                };
                expected.insert(tag, outcome);
                lanes.join(tag, job).unwrap();
            }
            Event::Advance(most) => {
                let advance = lanes.advance(most);
                assert_eq!(advance.lanes, expected.len());
                assert!(advance.expansions <= most);
                for (_, left) in expected.values_mut() {
                    *left -= u64::from(advance.expansions);
                }
                for (tag, outcome) in advance.finished {
                    assert_eq!(expected.remove(&tag), Some((outcome, 0)));
                }
            }
            Event::Abandon(index) => {
                let tags: Vec<_> = lanes.tags().copied().collect();
                let gone = (!tags.is_empty()).then(|| *index.get(&tags));
                assert_eq!(lanes.abandon_if(|tag| Some(*tag) == gone), usize::from(gone.is_some()));
                gone.map(|tag| expected.remove(&tag).unwrap());
            }
        }
        assert_eq!(lanes.len(), expected.len());
        assert!(expected.values().map(|(_, left)| left).sum::<u64>() <= lanes.expansions_left());
    }
    assert!(expected.is_empty() && lanes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lanes_agree_with_the_bcrypt_crate_whatever_joins_leaves_and_is_abandoned(
        width in 1..=Width::MAX.get(),
        events in events(),
    ) {
        run(Width::new(width).unwrap(), events);
    }

    #[test]
    fn one_at_a_time_agrees_with_the_bcrypt_crate(hashed in Hashed::any()) {
        let key = Key::of_password(&hashed.password);
        let digest = bcrypt_lanes::bcrypt(&key, &hashed.salt, Cost::new(hashed.cost).unwrap());
        prop_assert_eq!(digest, hashed.reference());
    }
}

#[test]
fn a_full_house_gives_the_job_back() {
    let job = || Job::hash(Key::of_password(b"a"), [0; 16], Cost::MIN);
    let mut lanes = Lanes::new(Width::MIN);
    lanes.join(1, job()).unwrap();
    let (tag, _) = lanes.join(2, job()).unwrap_err();
    assert_eq!(tag, 2);
    assert_eq!(lanes.tags().collect::<Vec<_>>(), [&1]);
}

#[test]
fn a_job_joins_and_leaves_while_a_dearer_one_goes_on() {
    let job = |cost| Job::hash(Key::of_password(b"a"), [0; 16], Cost::new(cost).unwrap());
    let mut lanes = Lanes::new(Width::new(2).unwrap());
    lanes.join("dear", job(12)).unwrap();
    lanes.advance(1000);
    lanes.join("cheap", job(4)).unwrap();
    let advance = lanes.advance(u32::MAX);
    let finished: Vec<_> = advance.finished.iter().map(|(tag, _)| *tag).collect();
    assert_eq!((advance.expansions, finished), (33, vec!["cheap"]));
    assert_eq!(lanes.expansions_left(), Cost::new(12).unwrap().expansions() - 1033);
}
