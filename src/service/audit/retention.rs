//! Deletes audit events that are too old, a few at a time: for operators, who say from before when, and for the
//! server, which keeps to its setting.
//!
//! The cutoff is recorded before anything is deleted: the database refuses to delete what is above the last one.

use std::time::{Duration, Instant};

use super::super::{Authority, Service, ServiceError};
use crate::domain::{Action, AuditEvent, Clock, FieldChange, Party, Timestamp};
use crate::storage::{self, Lane, Permit, Storage, StorageError, Tx};

/// How many events are deleted in one unit of work, so that none takes long.
const PRUNED_AT_ONCE: usize = 250;

/// The shortest pause between two units of work, and how many times longer than one it is.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_FACTOR: u32 = 3;

/// The pause of an operator, who waits.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// Before all events: the year 1.
const BEGINNING: Timestamp = Timestamp::from_unix_micros(-62_135_596_800_000_000);

/// How far a process has come with what is too old.
#[derive(Clone, Copy, Debug)]
pub struct Pruning {
    cutoff: Timestamp,
    /// Nothing older is left.
    from: Timestamp,
    /// How many events were deleted that no event tells of yet.
    deleted: usize,
}

impl Default for Pruning {
    fn default() -> Self {
        Self::to(BEGINNING)
    }
}

impl Pruning {
    fn to(cutoff: Timestamp) -> Self {
        Self { cutoff, from: BEGINNING, deleted: 0 }
    }
}

/// What a unit of work left.
enum Pruned {
    /// There may be more.
    Some(Pruning),
    /// Another process deletes by the same cutoff.
    Busy,
    /// Nothing is left.
    All,
}

impl Service {
    /// Deletes some of the events that are older than the setting allows, of whatever tenant. Returns how long to
    /// wait before the next; `None` when none is left. Once the transaction has begun it goes on even when the
    /// future is dropped.
    ///
    /// They go by whole days, UTC: a cutoff stays on record for ever.
    ///
    /// # Errors
    /// [`ServiceError::Storage`]; what was not deleted is found the next time.
    pub async fn keep_retention(&self, pruning: &mut Pruning) -> Result<Option<Duration>, ServiceError> {
        let Some(retention) = self.0.audit_retention else { return Ok(None) };
        let oldest_kept = self.0.clock.now().minus(retention).as_unix_micros();
        let cutoff = Timestamp::from_unix_micros(oldest_kept.div_euclid(DAY_MICROS) * DAY_MICROS);
        if cutoff > pruning.cutoff {
            *pruning = Pruning { cutoff, ..*pruning };
        }
        let oldest = {
            let mut conn = self.0.storage.read().await?;
            storage::audit::find_oldest(&mut conn, pruning.from).await?
        };
        if pruning.deleted == 0 && oldest.is_none_or(|oldest| oldest >= pruning.cutoff) {
            return Ok(None);
        }
        let begun = Instant::now();
        let (service, before) = (self.clone(), *pruning);
        let permit = self.0.storage.permit(Lane::Operators, Party::System).await?;
        let unit = async move |permit: Permit| {
            let (clock, by) = (service.0.clock.as_ref(), Authority::system());
            let mut tx = permit.begin("keep audit retention").await?;
            storage::audit::insert_cutoff(&mut tx, before.cutoff, clock.now()).await?;
            let pruned = prune_some(&mut tx, before, oldest).await?;
            if matches!(pruned, Pruned::All) {
                tell(&mut tx, clock, &by, before).await?;
            }
            tx.commit().await?;
            Ok(pruned)
        };
        match self.0.units.run(permit, unit).await? {
            Pruned::Some(now) => *pruning = now,
            Pruned::Busy => {}
            Pruned::All => *pruning = Pruning { deleted: 0, ..*pruning },
        }
        Ok(Some(PAUSE.max(begun.elapsed() * PAUSE_FACTOR)))
    }
}

/// Deletes the events of all tenants from before `cutoff`; returns how many there were.
///
/// The event that tells of it is written with the last of them, since only then their number is known. What was
/// deleted before a failure has the recorded cutoff for a trace, and doing it again deletes the rest.
///
/// # Errors
/// [`StorageError`] when the database fails, or `cutoff` is yet to come.
pub async fn prune(
    storage: &Storage,
    clock: &dyn Clock,
    by: &Authority,
    cutoff: Timestamp,
) -> Result<usize, StorageError> {
    let mut tx = storage.begin("record an audit cutoff").await?;
    storage::audit::insert_cutoff(&mut tx, cutoff, clock.now()).await?;
    tx.commit().await?;
    let mut pruning = Pruning::to(cutoff);
    loop {
        let mut tx = storage.begin("prune audit events").await?;
        let oldest = storage::audit::find_oldest(&mut tx, pruning.from).await?;
        let pruned = prune_some(&mut tx, pruning, oldest).await?;
        if matches!(pruned, Pruned::All) {
            tell(&mut tx, clock, by, pruning).await?;
        }
        tx.commit().await?;
        match pruned {
            Pruned::Some(now) => pruning = now,
            Pruned::Busy => {}
            Pruned::All => return Ok(pruning.deleted),
        }
        tokio::time::sleep(SHORT_PAUSE).await;
    }
}

/// Deletes some events, the oldest of which occurred at `oldest`.
async fn prune_some(
    tx: &mut Tx,
    pruning: Pruning,
    oldest: Option<Timestamp>,
) -> Result<Pruned, StorageError> {
    if !storage::audit::lock_cutoff(tx, pruning.cutoff).await? {
        return Ok(Pruned::Busy);
    }
    let Some(from) = oldest.filter(|oldest| *oldest < pruning.cutoff) else { return Ok(Pruned::All) };
    let some = storage::audit::delete_before(tx, from, pruning.cutoff, PRUNED_AT_ONCE).await?;
    Ok(Pruned::Some(Pruning { from, deleted: pruning.deleted + some, ..pruning }))
}

/// Tells how many events were deleted.
async fn tell(tx: &mut Tx, clock: &dyn Clock, by: &Authority, pruning: Pruning) -> Result<(), StorageError> {
    let changes = vec![
        FieldChange::set("cutoff", pruning.cutoff.to_string()),
        FieldChange::set("events_deleted", pruning.deleted.to_string()),
    ];
    let event = by.event(clock.now(), None, Action::AuditPruned);
    storage::audit::insert(tx, &AuditEvent { changes, ..event }).await
}
