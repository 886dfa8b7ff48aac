//! Calls at a fixed rate, whatever became of those before.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task;
use tonic::Code;

use crate::calls::{Call, Outcome};
use crate::tally::{Tally, Times};

/// How many calls, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Calls a second.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

/// What became of an offer.
pub(crate) struct Offered {
    pub(crate) offer: Offer,
    pub(crate) tally: Tally,
    /// The calls that were answered OK behind the warm-up and before the time was up.
    pub(crate) in_time: u64,
    /// How long that was.
    pub(crate) counted: Duration,
    /// Calls that were sent, each second.
    pub(crate) achieved: f64,
    /// How long after they were due calls were sent: what the generator itself adds to latency.
    pub(crate) behind: Times,
}

impl Offer {
    pub(crate) fn calls(self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }

    /// When each call is due, from the start.
    fn dues(self) -> impl Iterator<Item = Duration> {
        (0..self.calls()).map(move |index| {
            let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.rate);
            Duration::from_nanos(u64::try_from(nanos).expect("a run takes less than 500 years"))
        })
    }
}

/// How the calls of an offer were sent.
pub(crate) struct Sent {
    /// How long it took to send them.
    took: Duration,
    /// How long after they were due they were sent.
    pub(crate) behind: Times,
}

/// Makes the calls of `offer`, and returns when the last of them has ended.
///
/// # Panics
/// A call panicked, and is missing in the counts.
pub(crate) async fn run(offer: Offer, call: impl Call) -> Offered {
    run_warm(offer, Duration::ZERO, call).await
}

/// As [`run`]; what is answered in the first `warm_up` is not counted as served.
///
/// # Panics
/// As there.
pub(crate) async fn run_warm(offer: Offer, warm_up: Duration, call: impl Call) -> Offered {
    let (mut tally, mut in_time) = (Tally::default(), 0);
    let (began, length) = (Instant::now(), Duration::from_secs(offer.seconds.into()));
    let record = |outcome: &Outcome| {
        tally.record(outcome);
        let is_in_time = (began + warm_up..=began + length).contains(&outcome.ended);
        in_time += u64::from(outcome.code == Code::Ok && is_in_time);
    };
    let sent = run_from(began, offer, call, record).await;
    // Sending ends with the last call, one interval before the time is up.
    let achieved = offer.calls() as f64 / sent.took.max(length).as_secs_f64();
    let counted = length.saturating_sub(warm_up);
    Offered { offer, tally, in_time, counted, achieved, behind: sent.behind }
}

/// Makes the calls of `offer`, of which the first is due at `began`, hands what became of each to `record`,
/// and returns when the last of them has ended.
///
/// # Panics
/// A call panicked, and is missing in the counts.
pub(crate) async fn run_from(
    began: Instant,
    offer: Offer,
    call: impl Call,
    mut record: impl FnMut(&Outcome),
) -> Sent {
    let (outcomes, mut ended) = mpsc::unbounded_channel();
    let (runtime, call) = (Handle::current(), Arc::new(call));
    let pacer = task::spawn_blocking(move || {
        let mut behind = Times::new();
        pace(offer, began, |index, due| {
            behind.record(due.elapsed());
            let (call, outcomes) = (Arc::clone(&call), outcomes.clone());
            // The other end is open until the last sender is gone.
            runtime.spawn(async move { outcomes.send(call.call(index, due).await) });
        });
        Sent { took: began.elapsed(), behind }
    });
    let mut count = 0;
    while let Some(outcome) = ended.recv().await {
        count += 1;
        record(&outcome);
    }
    let sent = pacer.await.expect("the pacer does not panic");
    assert_eq!(count, offer.calls(), "every call ends in a count");
    sent
}

/// Calls `send` for every call of `offer` when it is due, or as soon after that as possible; none is
/// left out because others were late.
///
/// Sleeps on a thread instead of in the runtime, whose timer rounds up to the next millisecond: several
/// times what a look-up takes.
fn pace(offer: Offer, began: Instant, mut send: impl FnMut(u64, Instant)) {
    for (index, due) in (0..).zip(offer.dues()) {
        let due = began + due;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        send(index, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Codes;

    #[test]
    fn an_offer_is_exactly_its_rate_for_its_seconds() {
        for (rate, seconds) in [(1, 1), (3, 2), (2000, 15), (7777, 3), (100_000, 1)] {
            let offer = Offer { rate, seconds };
            let dues: Vec<_> = offer.dues().collect();
            assert_eq!(dues.len() as u64, u64::from(rate) * u64::from(seconds));
            assert_eq!(dues[0], Duration::ZERO);
            assert!(*dues.last().unwrap() < Duration::from_secs(seconds.into()));
            for second in 0..seconds {
                let second = Duration::from_secs(second.into())..Duration::from_secs((second + 1).into());
                let within = dues.iter().filter(|&due| second.contains(due)).count();
                assert_eq!(within, rate as usize, "{rate} in {second:?}");
            }
        }
    }

    #[test]
    fn no_call_is_sent_before_it_is_due_and_each_once() {
        let offer = Offer { rate: 50_000, seconds: 1 };
        let began = Instant::now() - Duration::from_millis(900);
        let mut sent = Vec::new();
        pace(offer, began, |index, due| {
            assert!(due <= Instant::now());
            sent.push(index);
        });
        assert_eq!(sent, (0..50_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_pacer_that_is_behind_makes_up_for_it_and_keeps_the_times_that_were_due() {
        let offer = Offer { rate: 1_000, seconds: 2 };
        let began = Instant::now() - Duration::from_secs(60);
        let mut dues = Vec::new();
        pace(offer, began, |_, due| dues.push(due - began));
        assert_eq!(dues, offer.dues().collect::<Vec<_>>());
    }

    /// Fails every third time, and takes its time over it.
    struct Flaky;

    impl Call for Flaky {
        async fn call(&self, index: u64, due: Instant) -> Outcome {
            tokio::time::sleep(Duration::from_millis(index % 20)).await;
            let code = if index.is_multiple_of(3) { Code::Unavailable } else { Code::Ok };
            Outcome { code, due, ended: Instant::now(), late: false, retry_after: None }
        }
    }

    #[tokio::test]
    async fn every_call_ends_in_a_count_also_when_it_fails_or_outlives_the_offer() {
        let offered = run(Offer { rate: 3_000, seconds: 1 }, Flaky).await;
        assert_eq!(offered.tally.codes(), Codes::from([("OK", 2_000), ("UNAVAILABLE", 1_000)]));
        assert!(offered.in_time <= 2_000, "{}", offered.in_time);
        assert!(offered.achieved <= 3_000.0, "{}", offered.achieved);
        assert!(offered.behind.latency().is_some());
    }
}
