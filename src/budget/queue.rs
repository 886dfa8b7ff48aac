//! Who waits for a place, and whose turn it is.
//!
//! The next place goes to the group that holds the fewest, within it to the party that holds the fewest, and
//! among equals to the one that was served longest ago (max-min fairness). A party that is alone gets
//! everything. When the queue is full, a newcomer takes the place of the last one of the party that fills it,
//! unless the newcomer's party waits as often itself.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::domain::Party;

/// Parties that hold or await places. `T` is whoever waits.
pub(super) struct Queue<T> {
    parties: HashMap<Party, Standing<T>>,
    /// Places that are held, by group; groups without any are left out.
    groups: HashMap<Party, usize>,
    limit: usize,
    waiting: usize,
    /// Counts grants and arrivals.
    ordinal: u64,
}

struct Standing<T> {
    group: Party,
    held: usize,
    waiting: VecDeque<(u64, T)>,
    /// When the party was last served, in grants; 0 for never.
    served: u64,
}

/// What became of one who came while all places were taken.
pub(super) enum Joined<T> {
    /// Waits, under this ticket.
    Waits(u64),
    /// Waits, under this ticket, in the place of another, who has to go.
    Instead(u64, T),
    /// There is no room.
    Refused,
}

impl<T> Queue<T> {
    /// Nobody, with room for `limit` that wait.
    pub(super) fn new(limit: usize) -> Self {
        Self { parties: HashMap::new(), groups: HashMap::new(), limit, waiting: 0, ordinal: 0 }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Notes that a party got a place without waiting.
    pub(super) fn take(&mut self, party: Party, group: Party) {
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let standing = self.standing(party, group);
        standing.held += 1;
        standing.served = ordinal;
        *self.groups.entry(group).or_default() += 1;
    }

    /// Adds one who waits.
    pub(super) fn join(&mut self, party: Party, group: Party, waiter: T) -> Joined<T> {
        let own = self.parties.get(&party).map_or(0, |standing| standing.waiting.len());
        let evicted = if self.waiting < self.limit {
            None
        } else {
            let largest = self.parties.values_mut().max_by_key(|standing| standing.waiting.len());
            match largest.filter(|largest| largest.waiting.len() > own + 1) {
                Some(largest) => largest.waiting.pop_back().map(|(_, waiter)| waiter),
                None => return Joined::Refused,
            }
        };
        self.ordinal += 1;
        let ticket = self.ordinal;
        self.standing(party, group).waiting.push_back((ticket, waiter));
        match evicted {
            Some(evicted) => Joined::Instead(ticket, evicted),
            None => {
                self.waiting += 1;
                Joined::Waits(ticket)
            }
        }
    }

    /// Takes out one who waits no more, if they still do.
    pub(super) fn leave(&mut self, party: Party, ticket: u64) {
        let Some(standing) = self.parties.get_mut(&party) else { return };
        let Some(index) = standing.waiting.iter().position(|(of, _)| *of == ticket) else { return };
        standing.waiting.remove(index);
        self.waiting -= 1;
        self.forget(party);
    }

    /// Notes that a party gave a place back.
    pub(super) fn give_back(&mut self, party: Party) {
        let Some(standing) = self.parties.get_mut(&party) else { return };
        standing.held -= 1;
        if let Entry::Occupied(mut held) = self.groups.entry(standing.group) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        self.forget(party);
    }

    /// How many places a party holds.
    pub(super) fn held(&self, party: Party) -> usize {
        self.parties.get(&party).map_or(0, |standing| standing.held)
    }

    /// The next one to get a place, which is noted as held, if `may_take` one who holds as many as it does.
    pub(super) fn next_if(&mut self, may_take: impl FnOnce(usize) -> bool) -> Option<(Party, T)> {
        if self.waiting == 0 {
            return None;
        }
        let held_by = |group| self.groups.get(group).copied().unwrap_or(0);
        let waits = self.parties.iter().filter(|(_, standing)| !standing.waiting.is_empty());
        let (&party, standing) = waits.min_by_key(|(_, standing)| {
            (
                held_by(&standing.group),
                standing.held,
                standing.served,
                standing.waiting.front().map(|(at, _)| *at),
            )
        })?;
        if !may_take(standing.held) {
            return None;
        }
        let group = standing.group;
        let (_, waiter) = self.parties.get_mut(&party)?.waiting.pop_front()?;
        self.waiting -= 1;
        self.take(party, group);
        Some((party, waiter))
    }

    fn standing(&mut self, party: Party, group: Party) -> &mut Standing<T> {
        let none = || Standing { group, held: 0, waiting: VecDeque::new(), served: 0 };
        self.parties.entry(party).or_insert_with(none)
    }

    /// Forgets a party that neither holds nor awaits anything.
    fn forget(&mut self, party: Party) {
        let Entry::Occupied(standing) = self.parties.entry(party) else { return };
        if standing.get().held == 0 && standing.get().waiting.is_empty() {
            standing.remove();
        }
    }
}

#[cfg(test)]
impl<T> Queue<T> {
    fn next(&mut self) -> Option<(Party, T)> {
        self.next_if(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Source, TenantId, Timestamp, UserId};

    fn host(n: u8) -> Party {
        Party::Address(Source::of(Some([192, 0, 2, n].into())))
    }

    fn join(queue: &mut Queue<&'static str>, n: u8, waiter: &'static str) -> Joined<&'static str> {
        queue.join(host(n), host(n), waiter)
    }

    /// Who is served when one place is passed on and on, each holder leaving before the next is chosen.
    fn order(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        let mut served = Vec::new();
        while let Some((party, waiter)) = queue.next() {
            served.push(waiter);
            queue.give_back(party);
        }
        assert!(queue.parties.is_empty() && queue.groups.is_empty() && queue.waiting == 0);
        served
    }

    #[test]
    fn one_party_is_served_in_the_order_of_coming() {
        let mut queue = Queue::new(10);
        for waiter in ["a1", "a2", "a3"] {
            join(&mut queue, 1, waiter);
        }
        assert_eq!(order(&mut queue), ["a1", "a2", "a3"]);
    }

    #[test]
    fn a_newcomer_is_served_before_the_second_one_of_a_crowd() {
        let mut queue = Queue::new(10);
        for waiter in ["a1", "a2", "a3"] {
            join(&mut queue, 1, waiter);
        }
        join(&mut queue, 2, "b1");
        join(&mut queue, 3, "c1");
        assert_eq!(order(&mut queue), ["a1", "b1", "c1", "a2", "a3"]);
    }

    #[test]
    fn the_party_that_holds_the_fewest_places_is_next() {
        let mut queue = Queue::new(10);
        queue.take(host(1), host(1));
        queue.take(host(1), host(1));
        queue.take(host(2), host(2));
        join(&mut queue, 1, "a");
        join(&mut queue, 2, "b1");
        join(&mut queue, 2, "b2");
        assert_eq!(queue.next(), Some((host(2), "b1")));
        // Both hold two now; the first party was served longer ago.
        assert_eq!(queue.next(), Some((host(1), "a")));
        assert_eq!(queue.next(), Some((host(2), "b2")));
    }

    #[test]
    fn tenants_share_before_their_users_do() {
        let now = Timestamp::from_unix_micros(0);
        let (large, small) = (TenantId::generate(now), TenantId::generate(now));
        let user = |tenant| Party::User(tenant, UserId::generate(now));
        let mut queue = Queue::new(10);
        let holder = user(large);
        queue.take(holder, holder.group());
        for waiter in ["l1", "l2", "l3"] {
            let party = user(large);
            queue.join(party, party.group(), waiter);
        }
        let party = user(small);
        queue.join(party, party.group(), "s1");
        assert_eq!(queue.next().map(|(_, waiter)| waiter), Some("s1"));
        assert_eq!(queue.next().map(|(_, waiter)| waiter), Some("l1"));
    }

    #[test]
    fn a_full_queue_makes_room_for_a_newcomer_at_the_cost_of_the_largest_party() {
        let mut queue = Queue::new(3);
        for waiter in ["a1", "a2", "a3"] {
            assert!(matches!(join(&mut queue, 1, waiter), Joined::Waits(_)));
        }
        assert!(matches!(join(&mut queue, 1, "a4"), Joined::Refused), "the same party finds none");
        assert!(matches!(join(&mut queue, 2, "b1"), Joined::Instead(_, "a3")));
        assert!(matches!(join(&mut queue, 2, "b2"), Joined::Refused), "two against one is no larger share");
        assert!(matches!(join(&mut queue, 3, "c1"), Joined::Instead(_, "a2")));
        assert!(matches!(join(&mut queue, 4, "d1"), Joined::Refused), "all shares are equal");
        assert_eq!(order(&mut queue), ["a1", "b1", "c1"]);
    }

    #[test]
    fn those_who_leave_make_room_and_are_forgotten() {
        let mut queue = Queue::new(2);
        let Joined::Waits(first) = join(&mut queue, 1, "a1") else { panic!("there is room") };
        join(&mut queue, 1, "a2");
        queue.leave(host(1), first);
        // Once more is no harm: it may have been served in the meantime.
        queue.leave(host(1), first);
        assert_eq!(queue.waiting(), 1);
        assert!(matches!(join(&mut queue, 1, "a3"), Joined::Waits(_)));
        assert_eq!(order(&mut queue), ["a2", "a3"]);
    }
}
