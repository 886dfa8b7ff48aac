//! Where writes run: in tasks of their own, so that a caller who leaves does not take a write along.

use std::future::Future;

use tokio_util::task::TaskTracker;

use super::error::ServiceError;
use crate::storage::Permit;

/// The units of work under way. Cheap to clone; all clones count together.
#[derive(Clone, Default)]
pub struct UnitsOfWork {
    writes: TaskTracker,
    asides: TaskTracker,
}

impl UnitsOfWork {
    /// Nothing under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `unit` to its end, even when the returned future is dropped before. Its `permit` was taken by the
    /// caller's own future, so that no more units are under way than there are connections for them.
    ///
    /// # Errors
    /// What `unit` fails with; [`ServiceError::Fault`] when it panics.
    pub(super) async fn run<T, F>(
        &self,
        permit: Permit,
        unit: impl FnOnce(Permit) -> F,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        match self.writes.spawn(unit(permit)).await {
            Ok(result) => result,
            Err(panic) => Err(ServiceError::Fault(format!("a unit of work did not end: {panic}"))),
        }
    }

    /// Runs `unit`, which takes back what was reserved for a caller who has gone; nobody waits for its result.
    /// It holds the caller's budgets until it has done so. Does nothing where no runtime is left to run it.
    pub(super) fn start(&self, unit: impl Future<Output = ()> + Send + 'static) {
        // A call that is cut off when a process stops leaves one behind at the last moment.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.asides.spawn_on(unit, &runtime);
        }
    }

    /// Runs `unit` when there is time for it; nobody waits for its result.
    pub(super) fn run_aside(&self, unit: impl Future<Output = ()> + Send + 'static) {
        self.asides.spawn(unit);
    }

    /// Waits until every write that was started has ended. For use once no more calls come in.
    pub async fn finished(&self) {
        self.writes.close();
        self.writes.wait().await;
    }

    /// Waits until that has ended, too, which nobody waits for: hashes replaced, places given back.
    pub async fn asides_finished(&self) {
        self.asides.close();
        self.asides.wait().await;
    }
}
