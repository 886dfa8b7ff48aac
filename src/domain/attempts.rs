//! Limits of how often something may be tried within a sliding span of time.

use std::time::Duration;

use super::clock::Timestamp;

/// How long an attempt that was begun may take to end. One that took longer belonged to a process that was
/// killed, and counts as any other until it ages out. Longer than any call may last.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// How many attempts may count within how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most that may count: never one more in any span of that length.
    pub most: usize,
    /// The span.
    pub within: Duration,
}

/// The attempts that matter to a limit, each by when it was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Those that count.
    pub counted: Vec<Timestamp>,
    /// Those under way, which may come to count.
    pub pending: Vec<Timestamp>,
}

/// Whether one more attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Free,
    /// It has to wait for one under way to end: should all of them come to count, there is no room.
    Awaited,
    /// It may not before then.
    Full {
        /// When the oldest that counts is forgotten.
        until: Timestamp,
    },
}

impl Attempts {
    /// Forgets what is too old for `limit` at `now`, and what a clock that was wrong dated far ahead.
    pub fn forget(&mut self, limit: Limit, now: Timestamp) {
        let matters = |at: &Timestamp| at.plus(limit.within) > now && *at <= now.plus(limit.within);
        self.counted.retain(matters);
        self.pending.retain(matters);
    }

    /// Whether one more attempt may begin at `now`, what is too old being forgotten.
    pub fn room(&self, limit: Limit, now: Timestamp) -> Room {
        let abandoned = self.pending.iter().filter(|at| at.plus(LONGEST) <= now);
        let mut counted: Vec<_> = self.counted.iter().chain(abandoned).copied().collect();
        if let Some(beyond) = counted.len().checked_sub(limit.most) {
            counted.sort();
            // As many have to go as leave one place.
            let last = counted.get(beyond).copied().unwrap_or(now);
            return Room::Full { until: last.plus(limit.within) };
        }
        if self.counted.len() + self.pending.len() < limit.most { Room::Free } else { Room::Awaited }
    }

    /// Ends the attempt that was begun at `at`; whether it was still known.
    pub fn end(&mut self, at: Timestamp, counts: bool) -> bool {
        let Some(index) = self.pending.iter().position(|pending| *pending == at) else { return false };
        self.pending.swap_remove(index);
        if counts {
            self.counted.push(at);
        }
        true
    }

    /// When all of them are forgotten, if there are any.
    pub fn forgotten_at(&self, limit: Limit) -> Option<Timestamp> {
        self.counted.iter().chain(&self.pending).max().map(|last| last.plus(limit.within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { most: 3, within: Duration::from_secs(900) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn attempts(counted: &[i64], pending: &[i64]) -> Attempts {
        let times = |seconds: &[i64]| seconds.iter().map(|second| at(*second)).collect();
        Attempts { counted: times(counted), pending: times(pending) }
    }

    #[test]
    fn there_is_room_until_all_places_are_taken() {
        assert_eq!(attempts(&[1, 2], &[]).room(LIMIT, at(3)), Room::Free);
        assert_eq!(attempts(&[1], &[2, 2]).room(LIMIT, at(3)), Room::Awaited);
        assert_eq!(attempts(&[2, 1, 3], &[]).room(LIMIT, at(3)), Room::Full { until: at(901) });
    }

    #[test]
    fn the_span_slides() {
        let mut tried = attempts(&[0, 300, 600], &[]);
        tried.forget(LIMIT, at(899));
        assert_eq!(tried.room(LIMIT, at(899)), Room::Full { until: at(900) });
        tried.forget(LIMIT, at(900));
        assert_eq!(tried, attempts(&[300, 600], &[]));
        tried.counted.push(at(900));
        assert_eq!(tried.room(LIMIT, at(901)), Room::Full { until: at(1_200) });
    }

    #[test]
    fn more_than_fit_take_as_long_as_all_but_one_place_needs() {
        assert_eq!(attempts(&[1, 2, 3, 4, 5], &[]).room(LIMIT, at(6)), Room::Full { until: at(903) });
    }

    #[test]
    fn what_nobody_ended_counts_and_is_not_waited_for() {
        let tried = attempts(&[1, 2], &[3]);
        assert_eq!(tried.room(LIMIT, at(602)), Room::Awaited);
        assert_eq!(tried.room(LIMIT, at(603)), Room::Full { until: at(901) });
    }

    #[test]
    fn what_is_dated_far_ahead_is_forgotten() {
        let mut tried = attempts(&[10_000, 700], &[20_000]);
        tried.forget(LIMIT, at(1_000));
        assert_eq!(tried, attempts(&[700], &[]));
    }

    #[test]
    fn an_attempt_ends_once() {
        let mut tried = attempts(&[], &[1, 1, 2]);
        assert!(tried.end(at(1), true) && tried.end(at(1), false));
        assert!(!tried.end(at(1), true));
        assert_eq!(tried, attempts(&[1], &[2]));
        assert_eq!(tried.forgotten_at(LIMIT), Some(at(902)));
    }
}
