//! The calls that want a hash, by party: those that have reserved one, those that wait for it, and
//! those that are not at their end yet.
//!
//! Waiting jobs are served in a virtual order that is fair between parties (self-clocked fair queueing,
//! S. J. Golestani, INFOCOM 1994): the jobs of one party follow each other, as far apart as they are
//! long, beginning where the line is now. So a party with one job is served before the second job of a
//! party with many. Within a party the order is that of the reservations.
//!
//! Every question takes constant time, every change the logarithm of what there is. Who is let in is
//! decided in [`super::admission`].

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::domain::Party;

/// All calls between their reservation and their end.
pub(super) struct Line<T> {
    shares: HashMap<Party, Share<T>>,
    /// The parties by their number of calls, and among equals by their share's id.
    sizes: BTreeMap<(usize, u64), Party>,
    /// The parties with a waiting job by where in the virtual order their first one ends.
    heads: BTreeMap<(u64, u64), Party>,
    totals: Counts,
    /// Parties that have reserved something or wait.
    queued_parties: usize,
    /// Where in the virtual order the job began that was served last.
    clock: u64,
    /// The next reservation's or share's id.
    next_id: u64,
}

/// What there is, of one party or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Calls between their reservation and their end.
    pub(super) calls: usize,
    /// Those of them whose job is still to come.
    pub(super) reserved: usize,
    /// Those of them whose job waits.
    pub(super) waiting: usize,
    /// The work that is reserved or waits, in expansions.
    pub(super) work: u64,
}

/// What one party has.
struct Share<T> {
    id: u64,
    calls: usize,
    reserved: usize,
    work: u64,
    /// Where in the virtual order the party's first waiting job begins, or the next one at the earliest.
    start: u64,
    /// Waiting jobs by the ids of their reservations.
    waiting: BTreeMap<u64, Entry<T>>,
}

/// A job that waits.
pub(super) struct Entry<T> {
    /// The job.
    pub(super) item: T,
    /// Its work, in expansions.
    pub(super) work: u64,
    /// When it is of no use any more.
    pub(super) due: Instant,
}

/// How a party stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// What it has.
    pub(super) own: Counts,
    /// Parties that have reserved something or wait, this one included.
    pub(super) parties: u64,
    /// The most calls that a party has.
    pub(super) largest: usize,
}

/// The party with the most calls, if any of its jobs waits.
pub(super) struct Largest {
    /// Which it is.
    pub(super) party: Party,
    /// Its work that is reserved or waits, in expansions.
    pub(super) work: u64,
    /// When its last waiting job is of no use any more.
    pub(super) due: Instant,
}

impl<T> Line<T> {
    /// No calls.
    pub(super) fn new() -> Self {
        Self {
            shares: HashMap::new(),
            sizes: BTreeMap::new(),
            heads: BTreeMap::new(),
            totals: Counts::default(),
            queued_parties: 0,
            clock: 0,
            next_id: 0,
        }
    }

    /// What all parties have together.
    pub(super) fn totals(&self) -> Counts {
        self.totals
    }

    /// How `party` stands.
    pub(super) fn standing(&self, party: Party) -> Standing {
        let own = self.shares.get(&party).map(Share::counts).unwrap_or_default();
        let others = self.queued_parties - usize::from(own.is_queued());
        let largest = self.sizes.last_key_value().map_or(0, |((calls, _), _)| *calls);
        Standing { own, parties: others as u64 + 1, largest }
    }

    /// The largest party, unless none of its jobs waits.
    pub(super) fn largest(&self) -> Option<Largest> {
        let (_, party) = self.sizes.last_key_value()?;
        let share = &self.shares[party];
        let (_, last) = share.waiting.last_key_value()?;
        Some(Largest { party: *party, work: share.work, due: last.due })
    }

    /// Notes a call of `party` that has reserved `work`. Returns its id, by which it stands in line.
    pub(super) fn reserve(&mut self, party: Party, work: u64) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.update(party, |share| {
            share.calls += 1;
            share.reserved += 1;
            share.work += work;
        });
        id
    }

    /// Gives up a reservation of `work`. The call goes on.
    pub(super) fn cancel(&mut self, party: Party, work: u64) {
        self.update(party, |share| {
            share.reserved -= 1;
            share.work -= work;
        });
    }

    /// Puts the job of a reservation of `reserved` in line.
    pub(super) fn enter(&mut self, party: Party, id: u64, reserved: u64, entry: Entry<T>) {
        let clock = self.clock;
        self.update(party, |share| {
            share.reserved -= 1;
            share.work = share.work - reserved + entry.work;
            if share.waiting.is_empty() {
                share.start = share.start.max(clock);
            }
            share.waiting.insert(id, entry);
        });
    }

    /// Takes a job out of the line, if it still waits. The call goes on.
    pub(super) fn remove(&mut self, party: Party, id: u64) -> Option<T> {
        self.shares.get(&party)?.waiting.get(&id)?;
        self.update(party, |share| share.take(id)).map(|entry| entry.item)
    }

    /// Takes the job out that `party` reserved last of those that wait. The call goes on.
    pub(super) fn remove_last(&mut self, party: Party) -> Option<T> {
        let (&id, _) = self.shares.get(&party)?.waiting.last_key_value()?;
        self.remove(party, id)
    }

    /// Notes the end of a call that has neither a reservation nor a waiting job.
    pub(super) fn leave(&mut self, party: Party) {
        self.update(party, |share| share.calls -= 1);
    }

    /// Takes the job out that is to be served next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (&(end, _), &party) = self.heads.first_key_value()?;
        let entry = self.update(party, |share| {
            let (&id, _) = share.waiting.first_key_value()?;
            share.start = end;
            share.take(id)
        })?;
        self.clock = self.clock.max(end - entry.work);
        Some(entry.item)
    }

    /// Takes all waiting jobs out.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Changes what a party has, and all that is known of it elsewhere.
    fn update<R>(&mut self, party: Party, change: impl FnOnce(&mut Share<T>) -> R) -> R {
        let next_id = &mut self.next_id;
        let share = self.shares.entry(party).or_insert_with(|| {
            *next_id += 1;
            Share::new(*next_id)
        });
        let (before, head_before) = (share.counts(), share.head());
        let changed = change(share);
        let (after, head) = (share.counts(), share.head());
        let id = share.id;
        if after.calls == 0 {
            self.shares.remove(&party);
        }
        self.totals = self.totals.changed(before, after);
        self.queued_parties =
            self.queued_parties + usize::from(after.is_queued()) - usize::from(before.is_queued());
        if before.calls != after.calls {
            self.sizes.remove(&(before.calls, id));
            if after.calls > 0 {
                self.sizes.insert((after.calls, id), party);
            }
        }
        if head_before != head {
            if let Some(end) = head_before {
                self.heads.remove(&(end, id));
            }
            if let Some(end) = head {
                self.heads.insert((end, id), party);
            }
        }
        changed
    }
}

impl Counts {
    fn is_queued(self) -> bool {
        self.reserved + self.waiting > 0
    }

    fn changed(self, before: Self, after: Self) -> Self {
        Self {
            calls: self.calls - before.calls + after.calls,
            reserved: self.reserved - before.reserved + after.reserved,
            waiting: self.waiting - before.waiting + after.waiting,
            work: self.work - before.work + after.work,
        }
    }
}

impl<T> Share<T> {
    fn new(id: u64) -> Self {
        Self { id, calls: 0, reserved: 0, work: 0, start: 0, waiting: BTreeMap::new() }
    }

    fn counts(&self) -> Counts {
        Counts { calls: self.calls, reserved: self.reserved, waiting: self.waiting.len(), work: self.work }
    }

    /// Where in the virtual order the first waiting job ends.
    fn head(&self) -> Option<u64> {
        let (_, first) = self.waiting.first_key_value()?;
        Some(self.start.saturating_add(first.work))
    }

    fn take(&mut self, id: u64) -> Option<Entry<T>> {
        let entry = self.waiting.remove(&id)?;
        self.work -= entry.work;
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
