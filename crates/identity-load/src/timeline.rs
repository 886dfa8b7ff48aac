//! When an attack begins and ends, and what others notice of it: the same calls at the same pace, before it,
//! during it, and from a second after its end.
//!
//! A call counts in the phase in which it was due, however late it was answered: so a service that stands
//! still until long after the attack cannot hide it.

use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::calls::Call;
use crate::open_loop::{self, Offer};
use crate::tally::{Tally, Times};

/// How long others call before it counts.
const WARM_UP: u32 = 1;

/// How long after the attack everything may take to be as before.
const SETTLE: u32 = 1;

/// When an attack begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    began: Instant,
    /// How long the attack lasts, in seconds.
    pub(crate) seconds: u32,
}

/// What became of one kind of calls of others.
pub(crate) struct Beside {
    /// Calls a second.
    pub(crate) rate: u32,
    pub(crate) before: Tally,
    pub(crate) during: Tally,
    pub(crate) after: Tally,
    /// How long after they were due calls were sent.
    pub(crate) behind: Times,
}

impl Timeline {
    /// Begins now. The attack lasts for `seconds`; what is before it and after it, half of that each.
    pub(crate) fn begin(seconds: u32) -> Self {
        Self { began: Instant::now(), seconds }
    }

    /// How long others are measured before the attack, and after it, in seconds.
    fn calm(self) -> u32 {
        self.seconds.div_ceil(2)
    }

    fn at(self, seconds: u32) -> Instant {
        self.began + Duration::from_secs(seconds.into())
    }

    /// From the beginning of the attack to its end.
    pub(crate) fn attack(self) -> Range<Instant> {
        let begins = WARM_UP + self.calm();
        self.at(begins)..self.at(begins + self.seconds)
    }

    fn before(self) -> Range<Instant> {
        self.at(WARM_UP)..self.attack().start
    }

    fn after(self) -> Range<Instant> {
        self.attack().end + Duration::from_secs(SETTLE.into())..self.end()
    }

    /// When the last call of others is due.
    pub(crate) fn end(self) -> Instant {
        self.at(self.total())
    }

    fn total(self) -> u32 {
        WARM_UP + self.calm() + self.seconds + SETTLE + self.calm()
    }

    /// Waits until the attack begins, and says when it ends.
    pub(crate) async fn attack_begins(self) -> Instant {
        let Range { start, end } = self.attack();
        sleep_until(start.into()).await;
        end
    }

    /// Makes `rate` calls a second from the beginning to the end.
    pub(crate) async fn beside(self, rate: u32, call: impl Call) -> Beside {
        let (mut before, mut during, mut after) = (Tally::default(), Tally::default(), Tally::default());
        let offer = Offer { rate, seconds: self.total() };
        let sent = open_loop::run_from(self.began, offer, call, |outcome| {
            for (phase, tally) in
                [(self.before(), &mut before), (self.attack(), &mut during), (self.after(), &mut after)]
            {
                if phase.contains(&outcome.due) {
                    tally.record(outcome);
                }
            }
        });
        let behind = sent.await.behind;
        Beside { rate, before, during, after, behind }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::calls::Outcome;

    /// Answers during the attack only when it is over, with another code.
    struct Stalled(Range<Instant>);

    impl Call for Stalled {
        async fn call(&self, _: u64, due: Instant) -> Outcome {
            let mut code = Code::Ok;
            if self.0.contains(&due) {
                sleep_until(self.0.end.into()).await;
                code = Code::Unavailable;
            }
            Outcome { code, due, ended: Instant::now(), late: false, retry_after: None }
        }
    }

    #[tokio::test]
    async fn calls_count_in_the_phase_in_which_they_were_due() {
        let timeline = Timeline::begin(2);
        let beside = timeline.beside(100, Stalled(timeline.attack())).await;
        assert_eq!((beside.before.count(Code::Ok), beside.before.total()), (100, 100));
        assert_eq!((beside.during.count(Code::Unavailable), beside.during.total()), (200, 200));
        assert_eq!((beside.after.count(Code::Ok), beside.after.total()), (100, 100));
        assert!(beside.during.latency().unwrap().max_ms > 1_900.0);
        assert!(beside.after.latency().unwrap().max_ms < 1_000.0);
    }

    #[test]
    fn the_phases_follow_each_other_with_a_second_after_the_attack() {
        let timeline = Timeline::begin(5);
        assert_eq!(timeline.before().end, timeline.attack().start);
        assert_eq!(timeline.after().start - timeline.attack().end, Duration::from_secs(1));
        assert_eq!(timeline.attack().end - timeline.attack().start, Duration::from_secs(5));
        assert_eq!(timeline.end() - timeline.began, Duration::from_secs(13));
    }
}
