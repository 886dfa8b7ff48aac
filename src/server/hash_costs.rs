//! Keeps the time of refusals at that of the dearest stored password hash.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::service::{CostWalk, Service};

/// Before the next try after one that failed.
const RETRY: Duration = Duration::from_secs(10);

/// How often it is looked what other processes have imported.
const IMPORTS_PERIOD: Duration = Duration::from_secs(3);

/// Walks through the stored hashes, a piece at a time.
pub(super) struct HashCosts {
    service: Service,
    walk: CostWalk,
    imports_due: Instant,
}

impl HashCosts {
    pub(super) fn new(service: Service) -> Self {
        Self { service, walk: CostWalk::default(), imports_due: Instant::now() }
    }

    /// Looks at the next hashes, and returns how long to wait before the ones after that.
    pub(super) async fn look(&mut self) -> Duration {
        self.look_at_imports().await;
        match self.service.follow_hash_costs(&mut self.walk).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::debug!(%error, "the costs of the stored password hashes cannot be read");
                RETRY
            }
        }
    }

    async fn look_at_imports(&mut self) {
        if let Err(error) = self.service.follow_imported_costs(&mut self.walk).await {
            tracing::debug!(%error, "the costs of imported password hashes cannot be read");
        }
        self.imports_due = Instant::now() + IMPORTS_PERIOD;
    }

    /// Goes on for ever, after a first `pause`.
    pub(super) async fn run(mut self, mut pause: Duration) -> Infallible {
        loop {
            let due = Instant::now() + pause;
            while self.imports_due < due {
                sleep_until(self.imports_due).await;
                self.look_at_imports().await;
            }
            sleep_until(due).await;
            pause = self.look().await;
        }
    }
}
