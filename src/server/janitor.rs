//! Deletes what has expired, whose time counts whether or not it is still there; removes what is left of deleted
//! tenants; keeps the audit log as long as it is to be kept.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::service::audit::Pruning;
use crate::service::removal::RemovalPlace;
use crate::service::{Service, ServiceError, Swept};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// Between two batches of a round, so that the calls of users come first.
const BATCH: Duration = Duration::from_millis(100);

/// Sweeps what has expired or was deleted, a batch at a time.
pub(super) struct Janitor {
    service: Service,
    place: RemovalPlace,
    pruning: Pruning,
    is_failing: bool,
}

impl Janitor {
    pub(super) fn new(service: Service) -> Self {
        let (place, pruning) = (RemovalPlace::default(), Pruning::default());
        Self { service, place, pruning, is_failing: false }
    }

    /// Sweeps a batch of each kind, and returns how long to wait before the next ones.
    pub(super) async fn sweep(&mut self) -> Duration {
        match self.sweep_each().await {
            Ok(pause) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("expired and deleted rows are removed again");
                }
                pause
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "cannot remove expired and deleted rows; retrying every minute");
                }
                ROUND
            }
        }
    }

    async fn sweep_each(&mut self) -> Result<Duration, ServiceError> {
        let sweeping = match self.service.sweep().await? {
            Swept::Some => BATCH,
            Swept::All => ROUND,
        };
        let removing = self.service.remove_deleted(&mut self.place).await?;
        let pruning = self.service.keep_retention(&mut self.pruning).await?;
        Ok([removing, pruning].into_iter().flatten().fold(sweeping, Duration::min))
    }

    /// Sweeps for ever, after a first `pause`. May be dropped at any time: a batch that has begun goes on
    /// to its end.
    pub(super) async fn run(mut self, mut pause: Duration) -> Infallible {
        let deletions = self.service.deletions().clone();
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = deletions.next() => {}
            }
            pause = self.sweep().await;
        }
    }
}
