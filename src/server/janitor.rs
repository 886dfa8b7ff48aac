//! Deletes what has expired, whose time counts whether or not it is still there.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::service::{Service, Swept};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// Between two batches of a round, so that the calls of users come first.
const BATCH: Duration = Duration::from_millis(100);

/// Sweeps what has expired, a batch at a time.
pub(super) struct Janitor {
    service: Service,
    is_failing: bool,
}

impl Janitor {
    pub(super) fn new(service: Service) -> Self {
        Self { service, is_failing: false }
    }

    /// Sweeps a batch, and returns how long to wait before the next one.
    pub(super) async fn sweep(&mut self) -> Duration {
        match self.service.sweep().await {
            Ok(swept) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("what has expired is deleted again");
                }
                match swept {
                    Swept::Some => BATCH,
                    Swept::All => ROUND,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "what has expired cannot be deleted; it is tried again until it works");
                }
                ROUND
            }
        }
    }

    /// Sweeps for ever, after a first `pause`. May be dropped at any time: a batch that has begun goes on
    /// to its end.
    pub(super) async fn run(mut self, mut pause: Duration) -> Infallible {
        loop {
            sleep(pause).await;
            pause = self.sweep().await;
        }
    }
}
