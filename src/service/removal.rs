//! Deleted tenants: gone for everybody at once, their rows removed afterwards at the pace that others leave.
//!
//! A transaction removes few rows, and the next one waits. What a process has removed stays removed when it is
//! killed: another one goes on, or the same after its next start. Once the last row is gone, an event tells so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Service, ServiceError};
use crate::domain::{
    Action, Actor, AuditEvent, Clock, FieldChange, Party, Target, TenantId, Timestamp, UserId,
};
use crate::storage::removal::{self, Removed};
use crate::storage::{self, Lane, Permit, Storage, StorageError, Tx};

/// How many users a transaction removes at most: some milliseconds of work, in tables whose pages are far apart.
const BATCH: usize = 100;

/// How long the rows of a deleted tenant stay at least. Calls that found the tenant before it was deleted end
/// first.
pub const REMOVAL_DELAY: Duration = Duration::from_secs(2);

/// The shortest pause between two transactions, and how many times longer than a transaction it is: the longer
/// others keep the database busy, the longer they are left alone.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_FACTOR: u32 = 3;

/// The pause where somebody waits for the removal.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// Tells the background task that a tenant was deleted. Cheap to clone; all clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Deletions(Arc<Notify>);

impl Deletions {
    fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits until a tenant is deleted in this process.
    pub async fn next(&self) {
        self.0.notified().await;
    }
}

/// How far a process has come with a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemovalPlace(Option<(TenantId, UserId)>);

impl RemovalPlace {
    fn within(self, tenant_id: TenantId) -> Option<UserId> {
        self.0.filter(|(of, _)| *of == tenant_id).map(|(_, user_id)| user_id)
    }
}

impl Service {
    /// Tells of deleted tenants.
    pub fn deletions(&self) -> &Deletions {
        &self.0.deletions
    }

    /// Tells the background task that there is something to remove.
    pub(super) fn tell_deleted(&self) {
        self.0.deletions.tell();
    }

    /// Removes some rows of the tenant that was deleted first, from `place` on. Returns how long to wait before
    /// the next; `None` when nothing is left. Once the transaction has begun it goes on even when the future is
    /// dropped.
    ///
    /// # Errors
    /// [`ServiceError::Storage`]; what was not removed is found the next time.
    pub async fn remove_deleted(&self, place: &mut RemovalPlace) -> Result<Option<Duration>, ServiceError> {
        let now = self.0.clock.now();
        let first = {
            let mut conn = self.0.storage.read().await?;
            removal::find_first_deleted(&mut conn).await?
        };
        let Some(deleted_at) = first else { return Ok(None) };
        let due = deleted_at.plus(REMOVAL_DELAY);
        if due > now {
            return Ok(Some(due.since(now).min(REMOVAL_DELAY)));
        }
        let begun = Instant::now();
        let (service, before) = (self.clone(), *place);
        let permit = self.0.storage.permit(Lane::Operators, Party::System).await?;
        let unit = async move |permit: Permit| {
            let due = service.0.clock.now().minus(REMOVAL_DELAY);
            let mut tx = permit.begin("remove deleted tenant").await?;
            let Some(id) = removal::find_due_locked(&mut tx, due).await? else { return Ok(before) };
            let removed = remove_some(&mut tx, service.0.clock.now(), id, before.within(id)).await?;
            tx.commit().await?;
            Ok(match removed {
                Removed::Some(Some(user_id)) => RemovalPlace(Some((id, user_id))),
                Removed::Some(None) | Removed::Busy | Removed::All { .. } => RemovalPlace(None),
            })
        };
        *place = self.0.units.run(permit, unit).await?;
        Ok(Some(PAUSE.max(begun.elapsed() * PAUSE_FACTOR)))
    }
}

/// Removes all rows of a deleted tenant, for somebody who waits for it. Does nothing where the tenant is not
/// deleted, or removed by now.
///
/// # Errors
/// [`StorageError`]; what was not removed is left to the background task.
pub async fn remove_now(storage: &Storage, clock: &dyn Clock, id: TenantId) -> Result<(), StorageError> {
    let mut after = None;
    loop {
        let mut tx = storage.begin("remove deleted tenant").await?;
        if !removal::find_locked(&mut tx, id).await? {
            return Ok(());
        }
        let removed = remove_some(&mut tx, clock.now(), id, after).await?;
        tx.commit().await?;
        match removed {
            Removed::Some(place) => after = place,
            Removed::Busy => after = None,
            Removed::All { .. } => return Ok(()),
        }
        tokio::time::sleep(SHORT_PAUSE).await;
    }
}

/// Removes some rows of a tenant that is locked, and with the last one tells of it.
async fn remove_some(
    tx: &mut Tx,
    now: Timestamp,
    id: TenantId,
    after: Option<UserId>,
) -> Result<Removed, StorageError> {
    let removed = removal::delete(tx, id, after, BATCH).await?;
    if let Removed::All { users } = removed {
        let event = AuditEvent::new(now, Some(id), Actor::System, Action::TenantErased);
        let changes = vec![FieldChange::set("users_removed", users.to_string())];
        let target = Some(Target::Tenant(id));
        storage::audit::insert(tx, &AuditEvent { target, changes, ..event }).await?;
    }
    Ok(removed)
}
