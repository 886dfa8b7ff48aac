//! Keeps the time of refusals at that of the dearest stored password hash.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::service::{CostWalk, Service};

/// Before the next try after one that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Walks through the stored hashes, a piece at a time.
pub(super) struct HashCosts {
    service: Service,
    walk: CostWalk,
}

impl HashCosts {
    pub(super) fn new(service: Service) -> Self {
        Self { service, walk: CostWalk::default() }
    }

    /// Looks at the next hashes, and returns how long to wait before the ones after that.
    pub(super) async fn look(&mut self) -> Duration {
        match self.service.follow_hash_costs(&mut self.walk).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::debug!(%error, "the costs of the stored password hashes cannot be read");
                RETRY
            }
        }
    }

    /// Goes on for ever, after a first `pause`.
    pub(super) async fn run(mut self, mut pause: Duration) -> Infallible {
        loop {
            sleep(pause).await;
            pause = self.look().await;
        }
    }
}
