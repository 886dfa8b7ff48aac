//! Calls that fail because the database is unavailable. The log has a line for the first one and the number of
//! those after it, since an outage fails every call.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::{Service, ServiceError};
use crate::storage::StorageError;

/// The time between two lines of one outage, and without a failed call at its end.
const PERIOD: Duration = Duration::from_secs(10);

/// Counts the calls that an outage fails. All clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Outages(Arc<Mutex<Option<Outage>>>);

#[derive(Debug)]
struct Outage {
    /// Calls that failed, the first one included.
    calls: u64,
    /// How many of them the log tells of.
    logged: u64,
}

impl Service {
    /// Counts a call that fails with `error`, if an outage is why.
    pub fn note_outage(&self, error: &ServiceError) {
        if let ServiceError::Storage(StorageError::Unavailable(cause)) = error {
            self.0.outages.call_failed(cause);
        }
    }

    /// The calls that fail because the database is unavailable.
    pub fn outages(&self) -> &Outages {
        &self.0.outages
    }
}

impl Outages {
    fn call_failed(&self, cause: &str) {
        {
            let mut outage = self.lock();
            if let Some(outage) = outage.as_mut() {
                outage.calls += 1;
                return;
            }
            *outage = Some(Outage { calls: 1, logged: 1 });
        }
        tracing::warn!(
            error = cause,
            "a call failed because the database is unavailable; calls that fail from now on are counted"
        );
    }

    /// Logs the number of failed calls every ten seconds, until one passes without any. Never returns.
    pub async fn follow(&self) -> Infallible {
        loop {
            sleep(PERIOD).await;
            if self.log() == 0 {
                self.end();
            }
        }
    }

    /// Logs how many calls have failed since the last time, if any have, and returns their number.
    pub fn log(&self) -> u64 {
        let calls = self.lock().as_mut().map_or(0, |outage| {
            let before = std::mem::replace(&mut outage.logged, outage.calls);
            outage.calls - before
        });
        if calls > 0 {
            tracing::warn!(calls, "calls failed because the database is unavailable");
        }
        calls
    }

    fn end(&self) {
        let ended = self.lock().take();
        if let Some(Outage { calls, .. }) = ended {
            tracing::info!(calls, "no more calls fail because the database is unavailable");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outage>> {
        // Each change is one step, so what is behind a poisoned lock is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
