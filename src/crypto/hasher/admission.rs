//! Who is let in: decided by room, by shares and by time, before anything is done for a call.
//!
//! A party that is alone may use all the room and all the time that there is. While others have
//! reserved something or wait, a party gets in as far as it would still be in time if all of them went
//! on, each getting its turn. When there is no room, or the largest party's last waiting job would come too
//! late, a party with fewer calls than that takes the place of this job.

use std::time::{Duration, Instant};

use super::line::{Largest, Line, Standing};
use super::pace::Pace;
use super::statistics::Refusal;
use crate::domain::Party;

/// How much longer than forecast a job may take and still be in time: by so much the machine's load may
/// change while it waits, and others may come who are served first. A job that is admitted with nothing to
/// spare is often late, and its hash computed in vain.
const MARGIN: f64 = 1.5;

/// How much is let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Jobs that are reserved or wait at most, beyond those in flight. As many calls may have theirs
    /// behind them and not be at their end. Rehashes have a queue of the same size.
    pub(super) capacity: usize,
    /// How long a caller without a deadline waits at most, their own hash included.
    pub(super) max_wait: Duration,
}

impl Limits {
    /// Calls between their reservation and their end, when `lanes` jobs can be in flight. Parties that have
    /// less than others may exceed it, up to twice as many.
    pub(super) fn calls(self, lanes: usize) -> usize {
        self.capacity.saturating_mul(2).saturating_add(lanes)
    }
}

/// What workers have in flight, and what there is of them.
#[derive(Clone, Copy)]
pub(super) struct Workers {
    /// How many workers there are.
    pub(super) count: usize,
    /// Their lanes.
    pub(super) lanes: usize,
    /// Lanes in use.
    pub(super) lanes_in_use: usize,
    /// The most work that is left in those, in expansions.
    pub(super) work_left: u64,
}

/// One look at everything that matters for a decision.
pub(super) struct Admission<'a, T> {
    pub(super) line: &'a Line<T>,
    pub(super) workers: Workers,
    pub(super) pace: &'a Pace,
    pub(super) limits: Limits,
    pub(super) now: Instant,
}

/// A call is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// When its job is of no use any more.
    pub(super) due: Instant,
    /// Whose last waiting job makes room for it.
    pub(super) displaces: Option<Party>,
}

impl<T> Admission<'_, T> {
    /// Whether a job of `work` expansions for `party` is served by `deadline`.
    pub(super) fn decide(
        &self,
        party: Party,
        work: u64,
        deadline: Option<Instant>,
    ) -> Result<Admitted, Refusal> {
        let standing = self.line.standing(party);
        let displaces = self.room(standing)?;
        let patience = match deadline {
            Some(deadline) => deadline.saturating_duration_since(self.now),
            None => self.limits.max_wait,
        };
        self.time(standing, work, patience)?;
        let due = self.now + patience;
        let displaces =
            displaces.or_else(|| self.too_late_beside(standing).filter(|_| !self.has_free_lane()));
        Ok(Admitted { due, displaces })
    }

    /// How long a caller who comes now would wait for a lane behind everybody, at most.
    pub(super) fn wait(&self) -> Duration {
        self.wait_behind(self.line.totals().work)
    }

    /// Finds room in number: free, or the largest party's.
    fn room(&self, standing: Standing) -> Result<Option<Party>, Refusal> {
        let totals = self.line.totals();
        let queue = self.limits.capacity.saturating_add(self.workers.lanes);
        let calls = self.limits.calls(self.workers.lanes);
        if self.jobs() < queue && totals.calls < calls {
            return Ok(None);
        }
        let own = standing.own.calls;
        if !has_less(standing) {
            // With one call more it would have more than its equal part.
            let is_over = own > 0
                && standing.parties > 1
                && (own as u64 + 1).saturating_mul(standing.parties) > totals.calls as u64;
            return Err(if is_over { Refusal::Share } else { Refusal::Full });
        }
        match self.line.largest() {
            _ if totals.calls >= calls.saturating_mul(2) => Err(Refusal::Full),
            Some(largest) => Ok(Some(largest.party)),
            // No job of the largest party waits, so none can be refused: this call exceeds the limits.
            None => Ok(None),
        }
    }

    /// Finds out whether there is time: `patience` is enough for all that is served first.
    fn time(&self, standing: Standing, work: u64, patience: Duration) -> Result<(), Refusal> {
        let spared = patience.div_f64(MARGIN);
        let pace = self.pace.at(self.now);
        if self.jobs() == 0 {
            let needed = self.pace.job_alone(work);
            return if needed <= patience { Ok(()) } else { Err(Refusal::Deadline) };
        }
        if self.has_free_lane() {
            return if pace.job(work) <= spared { Ok(()) } else { Err(Refusal::Deadline) };
        }
        let in_time = |ahead| self.wait_behind(ahead).saturating_add(pace.job(work)) <= spared;
        // Each of the others has had its turn as often as this party, when that comes to this job.
        let own = standing.own.work;
        let turns = own.saturating_add(work).saturating_mul(standing.parties).saturating_sub(work);
        if in_time(turns) {
            return Ok(());
        }
        // Alone, the party would be in time: it is the others' turns that are missing.
        Err(if standing.parties > 1 && in_time(own) { Refusal::Share } else { Refusal::Deadline })
    }

    /// The largest party, if its last job comes too late once another party that has less gets its turns too.
    fn too_late_beside(&self, standing: Standing) -> Option<Party> {
        if !has_less(standing) {
            return None;
        }
        let Largest { party, work, due } = self.line.largest()?;
        let needed = self.wait_behind(work.saturating_mul(standing.parties));
        (needed > due.saturating_duration_since(self.now)).then_some(party)
    }

    /// Jobs in flight, waiting and reserved.
    fn jobs(&self) -> usize {
        let totals = self.line.totals();
        self.workers.lanes_in_use + totals.reserved + totals.waiting
    }

    fn has_free_lane(&self) -> bool {
        self.jobs() < self.workers.lanes
    }

    /// How long until `ahead` expansions are done, beside what is in flight.
    fn wait_behind(&self, ahead: u64) -> Duration {
        let work = self.workers.work_left.saturating_add(ahead);
        self.pace.at(self.now).work(work, self.workers.count)
    }
}

/// Whether a party has so much less than the largest that it still has no more once it has taken a place
/// of that.
fn has_less(standing: Standing) -> bool {
    standing.own.calls + 1 < standing.largest
}

#[cfg(test)]
mod tests;
