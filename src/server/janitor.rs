//! Deletes what has expired, whose time counts whether or not it is still there.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::service::{Service, Swept};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// Between two batches of a round, so that the calls of users come first.
const BATCH: Duration = Duration::from_millis(100);

/// Sweeps a batch, and returns how long to wait before the next one.
pub(super) async fn sweep(service: &Service) -> Duration {
    match service.sweep().await {
        Ok(Swept::Some) => BATCH,
        Ok(Swept::All) => ROUND,
        Err(error) => {
            tracing::debug!(%error, "what has expired was not deleted; it will be tried again");
            ROUND
        }
    }
}

/// Sweeps for ever, after a first `pause`. May be dropped at any time: a batch that has begun goes on to
/// its end.
pub(super) async fn run(service: Service, mut pause: Duration) -> Infallible {
    loop {
        sleep(pause).await;
        pause = sweep(&service).await;
    }
}
