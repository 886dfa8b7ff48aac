//! Decisions with a lane and a clock of their own.

use std::collections::HashMap;
use std::net::IpAddr;

use super::*;
use crate::crypto::hasher::line::Entry;
use crate::crypto::hasher::pace::Ideal;
use crate::domain::Source;

const SECOND: Duration = Duration::from_secs(1);

/// One lane, which takes a second for every job, with a clock of its own.
struct World {
    line: Line<Job>,
    pace: Pace,
    limits: Limits,
    now: Instant,
    in_flight: Option<Job>,
    outcomes: HashMap<u8, Outcomes>,
}

struct Job {
    host: u8,
    since: Instant,
    due: Instant,
}

/// What became of the calls of a party.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    offered: u32,
    refused: Vec<Refusal>,
    displaced: u32,
    late: u32,
    /// From the offer to the end of the job.
    took: Vec<Duration>,
}

impl World {
    fn new(capacity: usize, max_wait: u32) -> Self {
        Self {
            line: Line::new(),
            pace: Pace::new(Ideal::new(vec![SECOND])),
            limits: Limits { capacity, max_wait: max_wait * SECOND },
            now: Instant::now(),
            in_flight: None,
            outcomes: HashMap::new(),
        }
    }

    fn party(host: u8) -> Party {
        Party::Address(Source::of(Some(IpAddr::from([192, 0, 2, host]))))
    }

    fn decide(&self, host: u8, deadline: Option<Instant>) -> Result<Admitted, Refusal> {
        let busy = self.in_flight.is_some();
        let workers = Workers { count: 1, lanes: 1, lanes_in_use: busy.into(), work_left: busy.into() };
        let admission =
            Admission { line: &self.line, workers, pace: &self.pace, limits: self.limits, now: self.now };
        admission.decide(Self::party(host), 1, deadline)
    }

    fn of(&mut self, host: u8) -> &mut Outcomes {
        self.outcomes.entry(host).or_default()
    }

    /// Offers a job for a party, which is put in line at once if it is let in.
    fn offer(&mut self, host: u8) -> bool {
        self.of(host).offered += 1;
        let Admitted { due, displaces } = match self.decide(host, None) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.of(host).refused.push(refusal);
                return false;
            }
        };
        if let Some(displaced) = displaces.and_then(|party| self.line.remove_last(party)) {
            self.of(displaced.host).displaced += 1;
            self.line.leave(Self::party(displaced.host));
        }
        let item = Job { host, since: self.now, due };
        let id = self.line.reserve(Self::party(host), 1);
        self.line.enter(Self::party(host), id, 1, Entry { item, work: 1, due });
        true
    }

    /// Takes the next job, if the lane is free. What is due already is not begun.
    fn begin(&mut self) {
        while self.in_flight.is_none() {
            match self.line.pop() {
                Some(job) if job.due <= self.now => {
                    self.of(job.host).late += 1;
                    self.line.leave(Self::party(job.host));
                }
                Some(job) => self.in_flight = Some(job),
                None => return,
            }
        }
    }

    /// A second passes, in which the job in flight is done.
    fn pass(&mut self) {
        self.now += SECOND;
        let Some(Job { host, since, due }) = self.in_flight.take() else { return };
        let (now, of) = (self.now, self.of(host));
        of.late += u32::from(now > due);
        of.took.push(now - since);
        self.line.leave(Self::party(host));
    }

    /// All jobs that were done.
    fn done(&self) -> usize {
        self.outcomes.values().map(|outcomes| outcomes.took.len()).sum()
    }
}

/// A generator of numbers that are the same each time (G. Marsaglia's xorshift).
struct Dice(u32);

impl Dice {
    /// Whether something happens that does once in `many` times.
    fn one_in(&mut self, many: u32) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0.is_multiple_of(many)
    }
}

/// Limits under which room is short, and such under which time is.
const SHORT: [(usize, u32); 2] = [(10, 1_000), (1_000, 30)];

#[test]
fn a_flood_takes_from_others_neither_their_places_nor_their_time() {
    for (capacity, max_wait) in SHORT {
        let (mut world, mut dice, steps) = (World::new(capacity, max_wait), Dice(7), 6_000);
        for _ in 0..steps {
            world.begin();
            for _ in 0..4 {
                world.offer(b'a');
            }
            for host in *b"bcd" {
                if dice.one_in(20) {
                    world.offer(host);
                }
            }
            world.pass();
        }
        let mut others = 0;
        for host in *b"bcd" {
            let outcomes = world.of(host).clone();
            assert!(outcomes.offered > 200, "{outcomes:?}");
            let served = outcomes.took.len() as u32 - outcomes.late;
            assert!(served * 100 >= outcomes.offered * 95, "{outcomes:?}");
            let soon = outcomes.took.iter().filter(|took| **took <= 3 * SECOND).count();
            assert!(soon * 100 >= outcomes.took.len() * 95, "{outcomes:?}");
            assert!(outcomes.took.iter().max() <= Some(&(5 * SECOND)), "{outcomes:?}");
            others += outcomes.took.len();
        }
        let flood = world.of(b'a').clone();
        // But the first second, the lane is always in use.
        assert_eq!(flood.took.len() + others, steps - 1);
        // By chance, more come within somebody's time than the margin allows for.
        assert!(flood.late as usize * 1_000 <= flood.took.len(), "{} late", flood.late);
        assert!(flood.displaced as usize <= others, "{} of {others}", flood.displaced);
    }
}

#[test]
fn who_is_let_in_is_served_in_time_however_many_come_after_them() {
    for (capacity, max_wait) in SHORT {
        let mut world = World::new(capacity, max_wait);
        for second in 0..2_000 {
            world.begin();
            // Others that want as much come and go, some hundred seconds each time.
            let parties = 1 + second / 100 % 4;
            for host in (b'a'..).take(parties) {
                world.offer(host);
                world.offer(host);
            }
            world.pass();
        }
        let late: u32 = world.outcomes.values().map(|outcomes| outcomes.late).sum();
        assert!(late as usize * 100 <= world.done(), "{late} of {}", world.done());
        assert!(world.done() >= 1_999 - late as usize);
    }
}

#[test]
fn a_party_that_is_alone_may_use_all_there_is() {
    let mut world = World::new(10, 1_000);
    world.offer(b'a');
    world.begin();
    for _ in 0..10 {
        assert!(world.offer(b'a'));
    }
    assert_eq!(world.decide(b'a', None), Err(Refusal::Full));

    let mut world = World::new(1_000, 30);
    world.offer(b'a');
    world.begin();
    while world.offer(b'a') {}
    assert_eq!(world.of(b'a').refused, [Refusal::Deadline]);
    // Twenty seconds, and half as much again to spare.
    assert_eq!(world.line.totals().calls, 20);
}

#[test]
fn who_has_more_than_others_is_told_that_it_is_their_share() {
    for (capacity, max_wait) in SHORT {
        let mut world = World::new(capacity, max_wait);
        world.offer(b'a');
        world.begin();
        while world.offer(b'a') {}
        assert!(world.offer(b'b'));
        assert_eq!(world.of(b'a').displaced, 1);
        assert_eq!(world.decide(b'a', None), Err(Refusal::Share));
    }
}

#[test]
fn parties_with_one_call_each_do_not_displace_one_another() {
    let mut world = World::new(10, 1_000);
    world.offer(0);
    world.begin();
    for host in 1..=10 {
        assert!(world.offer(host));
    }
    assert_eq!(world.decide(11, None), Err(Refusal::Full));
    assert_eq!(world.decide(1, None), Err(Refusal::Share));
}

#[test]
fn a_newcomer_gets_in_beside_reservations_that_nobody_may_take() {
    let mut world = World::new(10, 1_000);
    for _ in 0..11 {
        assert_eq!(world.decide(b'a', None).unwrap().displaces, None);
        world.line.reserve(World::party(b'a'), 1);
    }
    assert_eq!(world.decide(b'a', None), Err(Refusal::Full));
    assert_eq!(world.decide(b'b', None).unwrap().displaces, None);
    // There is an end to that as well.
    for host in 0..31 {
        assert!(world.decide(host, None).is_ok());
        world.line.reserve(World::party(host), 1);
    }
    assert_eq!(world.decide(b'b', None), Err(Refusal::Full));
}

#[test]
fn calls_that_have_their_hash_and_do_not_end_leave_room_for_those_of_others() {
    let mut world = World::new(10, 1_000);
    for _ in 0..21 {
        assert_eq!(world.decide(b'a', None).unwrap().displaces, None);
        world.line.reserve(World::party(b'a'), 1);
        world.line.cancel(World::party(b'a'), 1);
    }
    assert_eq!(world.decide(b'a', None), Err(Refusal::Full));
    assert_eq!(world.decide(b'b', None).unwrap().displaces, None);
    world.line.leave(World::party(b'a'));
    assert!(world.decide(b'a', None).is_ok());
}

#[test]
fn a_deadline_is_nobody_s_fault_when_alone_it_could_not_be_met_either() {
    let mut world = World::new(10, 1_000);
    for host in [b'a', b'a', b'a', b'b'] {
        world.offer(host);
        world.begin();
    }
    assert_eq!(world.decide(b'a', Some(world.now + SECOND)), Err(Refusal::Deadline));
    assert_eq!(world.decide(b'a', Some(world.now + 7 * SECOND)), Err(Refusal::Share));
    assert!(world.decide(b'a', Some(world.now + 11 * SECOND)).is_ok());
}
