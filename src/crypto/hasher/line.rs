//! The order in which waiting jobs are served: fair between those they are for, and honest to those
//! who were let in.
//!
//! Every job has a place in a virtual order: its party's jobs follow each other, as far apart as they
//! are long, beginning where the line is now (self-clocked fair queueing, S. J. Golestani, INFOCOM
//! 1994). So a party with one job is served before the second one of a party with many. A job that
//! counts towards two parties follows the later of both. Nobody overtakes a job that would then be
//! too late.
//!
//! How much of the line one party may take is bounded by what is free (dynamic thresholds, A. K.
//! Choudhury and E. L. Hahne, IEEE/ACM Transactions on Networking 6, 1998): one alone gets a half, two
//! get a third each, and there is always a place for a newcomer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::origin::{Origin, Party};

/// Waiting jobs, first the one that is served next.
pub(super) struct Line<T> {
    entries: VecDeque<Entry<T>>,
    parties: HashMap<Party, Waiting>,
    /// Where in the virtual order the job stood that was served last.
    clock: u64,
}

/// A job that waits.
pub(super) struct Entry<T> {
    /// The job.
    pub(super) item: T,
    /// Its work, in expansions.
    pub(super) work: u64,
    /// When it is of no use any more.
    pub(super) due: Instant,
    origin: Origin,
    /// Where in the virtual order it ends.
    finish: u64,
}

/// What waits for one party.
#[derive(Default)]
struct Waiting {
    jobs: usize,
    work: u64,
    /// Where in the virtual order the party's last job ends.
    finish: u64,
}

/// A place in the line that a job could have.
pub(super) struct Place {
    index: usize,
    finish: u64,
    /// Work that waits before it.
    pub(super) ahead: u64,
    /// The most that waits for one of its parties, in jobs and in work.
    pub(super) own_jobs: usize,
    pub(super) own_work: u64,
}

/// When work that waits is done.
pub(super) trait Forecast {
    /// The time from now to the end of a job of `work`, when `ahead` waits before it.
    fn end(&self, ahead: u64, work: u64) -> Duration;
}

impl<F: Fn(u64, u64) -> Duration> Forecast for F {
    fn end(&self, ahead: u64, work: u64) -> Duration {
        self(ahead, work)
    }
}

impl<T> Line<T> {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), parties: HashMap::new(), clock: 0 }
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Work that waits, in expansions.
    pub(super) fn work(&self) -> u64 {
        self.entries.iter().map(|entry| entry.work).sum()
    }

    /// The place that a job of `work` would have: the fair one, or behind the last job that would be
    /// made too late by it.
    pub(super) fn place(&self, origin: Origin, work: u64, now: Instant, forecast: impl Forecast) -> Place {
        let waiting = || origin.parties().filter_map(|party| self.parties.get(&party));
        let start = waiting().map(|waiting| waiting.finish).fold(self.clock, u64::max);
        let finish = start.saturating_add(work);
        let fair = self.entries.partition_point(|entry| entry.finish <= finish);
        let mut place = Place {
            index: fair,
            finish,
            ahead: self.entries.range(..fair).map(|entry| entry.work).sum(),
            own_jobs: waiting().map(|waiting| waiting.jobs).max().unwrap_or(0),
            own_work: waiting().map(|waiting| waiting.work).max().unwrap_or(0),
        };
        let mut ahead = place.ahead;
        for (index, entry) in self.entries.range(fair..).enumerate() {
            let end = now + forecast.end(ahead.saturating_add(work), entry.work);
            ahead += entry.work;
            if end > entry.due {
                // What stands before this one may not be overtaken either, or the order would break.
                (place.index, place.ahead) = (fair + index + 1, ahead);
                place.finish = place.finish.max(entry.finish);
            }
        }
        place
    }

    /// Puts a job where [`Line::place`] said, with nothing changed in between.
    pub(super) fn insert(&mut self, place: Place, origin: Origin, work: u64, due: Instant, item: T) {
        for party in origin.parties() {
            let waiting = self.parties.entry(party).or_default();
            waiting.jobs += 1;
            waiting.work += work;
            waiting.finish = waiting.finish.max(place.finish);
        }
        self.entries.insert(place.index, Entry { item, work, due, origin, finish: place.finish });
    }

    /// Takes the first job out.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.clock = self.clock.max(entry.finish - entry.work);
        self.forget(&entry);
        Some(entry)
    }

    /// Takes out the jobs that satisfy `is_gone`, and returns how many those were.
    pub(super) fn remove_if(&mut self, mut is_gone: impl FnMut(&T) -> bool) -> usize {
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| is_gone(&entry.item));
        self.entries = kept;
        for entry in &gone {
            self.forget(entry);
        }
        gone.len()
    }

    /// Takes all jobs out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.parties.clear();
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.item)
    }

    fn forget(&mut self, entry: &Entry<T>) {
        for party in entry.origin.parties() {
            let waiting = self.parties.get_mut(&party).expect("a job that waits counts for its parties");
            waiting.jobs -= 1;
            waiting.work -= entry.work;
            if waiting.jobs == 0 {
                self.parties.remove(&party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// One unit of work takes a second.
    fn forecast(ahead: u64, work: u64) -> Duration {
        Duration::from_secs(ahead + work)
    }

    struct Test {
        line: Line<&'static str>,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            Self { line: Line::new(), now: Instant::now() }
        }

        /// Adds a job of one unit for a source; returns what waits ahead of it.
        fn add(&mut self, source: u8, due: u64, item: &'static str) -> u64 {
            self.add_work(1, source, due, item)
        }

        fn add_work(&mut self, work: u64, source: u8, due: u64, item: &'static str) -> u64 {
            let origin = Origin::new(Some(IpAddr::from([192, 0, 2, source])), item);
            let place = self.line.place(origin, work, self.now, forecast);
            let ahead = place.ahead;
            self.line.insert(place, origin, work, self.now + Duration::from_secs(due), item);
            ahead
        }

        fn order(&mut self) -> Vec<&'static str> {
            std::iter::from_fn(|| self.line.pop()).map(|entry| entry.item).collect()
        }
    }

    #[test]
    fn one_party_is_served_in_order() {
        let mut test = Test::new();
        assert_eq!([test.add(1, 99, "a"), test.add(1, 99, "b"), test.add(1, 99, "c")], [0, 1, 2]);
        assert_eq!(test.order(), ["a", "b", "c"]);
    }

    #[test]
    fn parties_take_turns() {
        let mut test = Test::new();
        for item in ["a1", "a2", "a3", "a4"] {
            test.add(1, 99, item);
        }
        assert_eq!(test.add(2, 99, "b1"), 1);
        assert_eq!(test.add(2, 99, "b2"), 3);
        assert_eq!(test.add(3, 99, "c1"), 2);
        assert_eq!(test.order(), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    }

    #[test]
    fn a_newcomer_does_not_make_up_for_the_time_before_he_came() {
        let mut test = Test::new();
        for item in ["a1", "a2", "a3", "a4"] {
            test.add(1, 99, item);
        }
        assert_eq!(test.line.pop().map(|entry| entry.item), Some("a1"));
        assert_eq!(test.line.pop().map(|entry| entry.item), Some("a2"));
        test.add(2, 99, "b1");
        test.add(2, 99, "b2");
        assert_eq!(test.order(), ["b1", "a3", "b2", "a4"]);
    }

    #[test]
    fn work_counts_and_not_the_number_of_jobs() {
        let mut test = Test::new();
        test.add_work(4, 1, 99, "a1");
        test.add_work(4, 1, 99, "a2");
        for item in ["b1", "b2", "b3", "b4", "b5"] {
            test.add(2, 99, item);
        }
        assert_eq!(test.order(), ["b1", "b2", "b3", "a1", "b4", "b5", "a2"]);
    }

    #[test]
    fn nobody_is_overtaken_who_would_then_be_too_late() {
        let mut test = Test::new();
        test.add(1, 1, "a1");
        test.add(1, 2, "a2");
        test.add(1, 99, "a3");
        assert_eq!(test.add(2, 99, "b1"), 2);
        assert_eq!(test.order(), ["a1", "a2", "b1", "a3"]);
    }

    #[test]
    fn a_job_follows_the_later_of_its_two_parties() {
        let mut test = Test::new();
        for source in 1..=4 {
            // The same group each time, from another source.
            test.add(source, 99, "group");
        }
        assert_eq!(test.add(9, 99, "other"), 1);
        assert_eq!(test.order(), ["group", "other", "group", "group", "group"]);
    }

    #[test]
    fn those_who_left_make_room_and_are_forgotten() {
        let mut test = Test::new();
        test.add(1, 99, "a1");
        test.add(1, 99, "gone");
        test.add(2, 99, "gone");
        assert_eq!(test.line.remove_if(|item| *item == "gone"), 2);
        assert_eq!((test.line.len(), test.line.work()), (1, 1));
        assert_eq!(test.order(), ["a1"]);
        assert!(test.line.parties.is_empty());
    }
}
