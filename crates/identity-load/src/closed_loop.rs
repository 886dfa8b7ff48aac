//! Clients that call without a pause, each waiting for its answer before it calls again. Polite ones wait as well
//! for as long as a refusal asks for.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tonic::Code;

use crate::calls::{Call, Outcome};
use crate::tally::Tally;

/// How long clients call before it counts: until connections, caches and queues are as they stay.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);

/// What clients reached.
pub(crate) struct Reached {
    pub(crate) clients: u32,
    pub(crate) seconds: u32,
    /// The calls that ended within the measured time.
    pub(crate) measured: Tally,
    /// Those that ended in the warm-up, or were still running when the time was up.
    pub(crate) outside: Tally,
}

impl Reached {
    /// Calls answered OK, each second.
    pub(crate) fn rate(&self) -> f64 {
        self.measured.count(Code::Ok) as f64 / f64::from(self.seconds)
    }
}

/// Lets `clients` call for [`WARM_UP`] and then for `seconds`, and returns when each has its last answer.
///
/// # Panics
/// A call panicked.
pub(crate) async fn run(clients: u32, seconds: u32, call: impl Call) -> Reached {
    let measured_from = Instant::now() + WARM_UP;
    let until = measured_from + Duration::from_secs(seconds.into());
    let (measured, outside) =
        run_until(clients, measured_from..until, call, |outcome| outcome.retry_after).await;
    Reached { clients, seconds, measured, outside }
}

/// Lets `clients` call from now to the end of `measured`, with a `pause` after each call, and returns, when each has its last answer, the calls
/// that ended within `measured` and those that did not.
///
/// # Panics
/// A call panicked.
pub(crate) async fn run_until(
    clients: u32,
    measured: Range<Instant>,
    call: impl Call,
    pause: fn(&Outcome) -> Option<Duration>,
) -> (Tally, Tally) {
    let until = measured.end;
    let (outcomes, mut ended) = mpsc::unbounded_channel();
    let call = Arc::new(call);
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (call, outcomes) = (Arc::clone(&call), outcomes.clone());
        tasks.spawn(async move {
            let mut index = u64::from(client);
            loop {
                let now = Instant::now();
                if now >= until {
                    return;
                }
                let outcome = call.call(index, now).await;
                if outcomes.send(outcome).is_err() {
                    return;
                }
                if let Some(pause) = pause(&outcome) {
                    sleep_until((Instant::now() + pause).min(until).into()).await;
                }
                index += u64::from(clients);
            }
        });
    }
    drop(outcomes);
    let (mut within, mut outside) = (Tally::default(), Tally::default());
    while let Some(outcome) = ended.recv().await {
        let counts = measured.contains(&outcome.ended);
        (if counts { &mut within } else { &mut outside }).record(&outcome);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no client panics");
    }
    (within, outside)
}
