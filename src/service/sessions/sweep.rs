//! Sweeping: rows whose time has passed are deleted, a few at a time.

use crate::domain::Party;
use crate::storage;
use crate::storage::{Lane, Permit};

use super::super::{Due, Service, ServiceError};

/// How many rows a transaction deletes at most, so that none holds up the calls beside it.
const BATCH: usize = 100;

/// Whether there may be more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing that has expired is left.
    All,
    /// A batch was full.
    Some,
}

impl Service {
    /// Deletes a batch of the sessions, of the remembered registrations and of the attempts whose time has
    /// passed, and writes down which calls were refused lately. Once the write has begun it goes on even when
    /// the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError::Storage`]; what was not deleted is found the next time.
    pub async fn sweep(&self) -> Result<Swept, ServiceError> {
        self.write_refusals(Due::Past).await?;
        let service = self.clone();
        let permit = self.0.storage.permit(Lane::Operators, Party::System).await?;
        let unit = async move |permit: Permit| {
            let open = service.0.session_rules.open_at(service.0.clock.now());
            let mut tx = permit.begin("sweep").await?;
            let sessions = storage::sessions::delete_expired(&mut tx, open, BATCH).await?;
            let outcomes = storage::outcomes::delete_expired(&mut tx, open.now, BATCH).await?;
            let attempts = storage::attempts::delete_expired(&mut tx, open.now, BATCH).await?;
            tx.commit().await?;
            if sessions + outcomes + attempts > 0 {
                tracing::debug!(sessions, outcomes, attempts, "deleted what has expired");
            }
            Ok(if [sessions, outcomes, attempts].contains(&BATCH) { Swept::Some } else { Swept::All })
        };
        self.0.units.run(permit, unit).await
    }
}
