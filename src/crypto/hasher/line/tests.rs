//! Order, standing and bookkeeping of the line.

use std::net::IpAddr;

use super::*;
use crate::domain::Source;

fn party(host: u8) -> Party {
    Party::Address(Source::of(Some(IpAddr::from([192, 0, 2, host]))))
}

struct Test {
    line: Line<&'static str>,
    due: Instant,
}

impl Test {
    fn new() -> Self {
        Self { line: Line::new(), due: Instant::now() }
    }

    /// Reserves one unit for a party.
    fn reserve(&mut self, host: u8) -> u64 {
        self.line.reserve(party(host), 1)
    }

    /// Puts the job of a reservation in line, which may be more work than that.
    fn enter(&mut self, host: u8, id: u64, work: u64, item: &'static str) {
        self.line.enter(party(host), id, 1, Entry { item, work, due: self.due });
    }

    /// Adds a job of one unit for a party. Returns its id.
    fn add(&mut self, host: u8, item: &'static str) -> u64 {
        self.add_work(1, host, item)
    }

    fn add_work(&mut self, work: u64, host: u8, item: &'static str) -> u64 {
        let id = self.reserve(host);
        self.enter(host, id, work, item);
        id
    }

    fn order(&mut self) -> Vec<&'static str> {
        self.line.take_all()
    }
}

#[test]
fn one_party_is_served_in_order() {
    let mut test = Test::new();
    for item in ["a", "b", "c"] {
        test.add(1, item);
    }
    assert_eq!(test.order(), ["a", "b", "c"]);
}

#[test]
fn parties_take_turns() {
    let mut test = Test::new();
    for item in ["a1", "a2", "a3", "a4"] {
        test.add(1, item);
    }
    test.add(2, "b1");
    test.add(2, "b2");
    test.add(3, "c1");
    assert_eq!(test.order(), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

#[test]
fn a_newcomer_does_not_make_up_for_the_time_before_they_came() {
    let mut test = Test::new();
    for item in ["a1", "a2", "a3", "a4"] {
        test.add(1, item);
    }
    assert_eq!([test.line.pop(), test.line.pop()], [Some("a1"), Some("a2")]);
    test.add(2, "b1");
    test.add(2, "b2");
    assert_eq!(test.order(), ["b1", "a3", "b2", "a4"]);
}

#[test]
fn reservations_that_were_saved_up_do_not_overtake_others() {
    let mut test = Test::new();
    let saved = [(); 3].map(|()| test.reserve(1));
    for item in ["b1", "b2", "b3", "b4", "b5"] {
        test.add(2, item);
    }
    assert_eq!([test.line.pop(), test.line.pop()], [Some("b1"), Some("b2")]);
    for (id, item) in saved.into_iter().zip(["a1", "a2", "a3"]) {
        test.enter(1, id, 1, item);
    }
    test.add(3, "c1");
    assert_eq!(test.order(), ["a1", "c1", "a2", "b3", "a3", "b4", "b5"]);
}

#[test]
fn the_jobs_of_a_party_are_served_as_they_were_reserved() {
    let mut test = Test::new();
    let (first, second) = (test.reserve(1), test.reserve(1));
    test.enter(1, second, 1, "second");
    test.enter(1, first, 1, "first");
    assert_eq!(test.order(), ["first", "second"]);
}

#[test]
fn work_counts_and_not_the_number_of_jobs() {
    let mut test = Test::new();
    test.add_work(4, 1, "a1");
    test.add_work(4, 1, "a2");
    for item in ["b1", "b2", "b3", "b4", "b5"] {
        test.add(2, item);
    }
    assert_eq!(test.line.totals().work, 13);
    assert_eq!(test.order(), ["b1", "b2", "b3", "a1", "b4", "b5", "a2"]);
}

#[test]
fn a_party_stands_by_all_of_its_calls_and_what_they_want() {
    let mut test = Test::new();
    let nothing = Standing { own: Counts::default(), parties: 1, largest: 0 };
    assert_eq!(test.line.standing(party(1)), nothing);
    test.add(1, "a1");
    test.reserve(1);
    test.add(2, "b1");
    let own = Counts { calls: 2, reserved: 1, waiting: 1, work: 2 };
    assert_eq!(test.line.standing(party(1)), Standing { own, parties: 2, largest: 2 });
    // One whose job is computed counts as a call, and takes no turns any more.
    assert_eq!(test.line.pop(), Some("a1"));
    test.line.cancel(party(1), 1);
    let own = Counts { calls: 2, ..Counts::default() };
    assert_eq!(test.line.standing(party(1)), Standing { own, parties: 2, largest: 2 });
    assert_eq!(test.line.standing(party(3)), Standing { own: Counts::default(), parties: 2, largest: 2 });
}

#[test]
fn the_largest_party_is_found_with_what_it_reserved_last() {
    let mut test = Test::new();
    assert!(test.line.largest().is_none());
    test.add(1, "a1");
    test.add(2, "b1");
    test.add(2, "b2");
    let largest = test.line.largest().unwrap();
    assert_eq!((largest.party, largest.work), (party(2), 2));
    assert_eq!(test.line.remove_last(party(2)), Some("b2"));
    // Their calls go on until they end.
    assert_eq!(test.line.largest().unwrap().party, party(2));
    test.line.leave(party(2));
    test.reserve(1);
    assert_eq!(test.line.largest().unwrap().party, party(1));
    // What is reserved cannot be taken.
    assert_eq!(test.line.remove_last(party(1)), Some("a1"));
    assert!(test.line.largest().is_none());
}

#[test]
fn those_who_left_make_room_and_are_forgotten() {
    let mut test = Test::new();
    test.add(1, "a1");
    let (second, third) = (test.add(1, "a2"), test.add(2, "b1"));
    assert_eq!(test.line.remove(party(1), second), Some("a2"));
    assert_eq!(test.line.remove(party(1), second), None);
    assert_eq!(test.line.remove(party(2), third), Some("b1"));
    assert_eq!(test.line.totals(), Counts { calls: 3, reserved: 0, waiting: 1, work: 1 });
    assert_eq!(test.order(), ["a1"]);
    for host in [1, 1, 2] {
        test.line.leave(party(host));
    }
    assert_eq!(test.line.totals(), Counts::default());
    assert!(test.line.shares.is_empty() && test.line.sizes.is_empty() && test.line.heads.is_empty());
    assert_eq!(test.line.queued_parties, 0);
}
