//! A check that has its place, to the end that is written down.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::limits::{KNOWN_FOR, KNOWN_SOURCES, OWN, STRANGERS, write};
use super::turns::Turn;
use crate::crypto::hasher::{Slot, Verdict};
use crate::domain::{AuditEvent, Party, Password, PasswordHash, Timestamp};
use crate::service::Service;
use crate::service::error::ServiceError;
use crate::service::retry::{self, Pauses};
use crate::storage;
use crate::storage::attempts::{AttemptKey, Locking};
use crate::storage::{Permit, Tx};

/// What a wrong password costs in the database, at least. Rows that are there already are found faster than
/// they are made; without this the difference would tell of accounts that are in use at the source.
const WRONG_TAKES: Duration = Duration::from_millis(20);

/// A check that has its place among those that may fail. However it ends, that is written down: by a task of
/// its own where the caller has left.
pub(in crate::service) struct Attempt {
    service: Service,
    /// Until it is settled.
    open: Option<Box<Open>>,
    /// How long the database took to reserve the place.
    took: Duration,
}

/// What an attempt holds until its end is written: so a caller who leaves makes no room for another before
/// what they left behind is done.
struct Open {
    hold: Hold,
    place: Place,
    end: End,
    /// The event of a check that failed.
    failure: Option<AuditEvent>,
}

/// The budgets that an attempt takes before it comes to the database.
pub(super) struct Hold {
    pub(super) slot: Slot,
    /// Among the checks of the account and source; kept for its end.
    pub(super) _turn: Turn,
    pub(super) party: Party,
}

/// Where an attempt is counted.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) key: AttemptKey,
    /// Where it is counted too, when the account does not know the source.
    pub(super) strangers: Option<AttemptKey>,
    pub(super) at: Timestamp,
}

/// The rows that count an attempt, about to be locked.
pub(in crate::service) struct Settling {
    own: Locking,
    strangers: Option<Locking>,
}

/// How a check ended.
pub(in crate::service) enum Checked {
    /// The password is right. The attempt is yet to be settled, by what the caller does with that.
    Right { attempt: Attempt, outdated: bool },
    /// It is wrong, or there is nothing to compare it with.
    Wrong,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No hash was computed, or nobody waits for its verdict.
    Void,
    Wrong,
    Right,
}

impl Attempt {
    /// An attempt that was given `place`, which took the database so long.
    pub(super) fn new(service: Service, hold: Hold, place: Place, took: Duration) -> Self {
        let open = Some(Box::new(Open { hold, place, end: End::Void, failure: None }));
        Self { service, open, took }
    }

    /// Checks a password against `stored`, or against nothing. One that is wrong is counted before this
    /// returns, together with the event `failure`, even when the future is dropped; one whose hash was not
    /// computed is given back.
    pub(in crate::service) async fn check(
        mut self,
        password: &Password,
        stored: Option<&PasswordHash>,
        failure: AuditEvent,
    ) -> Result<Checked, ServiceError> {
        let open = self.open.as_mut().ok_or_else(settled)?;
        match open.hold.slot.verify(password, stored).await? {
            Verdict::Match { outdated } => Ok(Checked::Right { attempt: self, outdated }),
            Verdict::Mismatch => {
                let began = Instant::now();
                (open.end, open.failure) = (End::Wrong, Some(failure));
                let permit = self.service.unit_of(open.hold.party).await?;
                let open = self.open.take().ok_or_else(settled)?;
                let service = self.service.clone();
                let unit = async move |permit: Permit| service.settle_or_go_on(permit, open).await;
                self.service.0.units.run(permit, unit).await?;
                sleep(WRONG_TAKES.saturating_sub(self.took + began.elapsed())).await;
                Ok(Checked::Wrong)
            }
        }
    }

    /// Locks what [`Attempt::succeed`] writes; waits for nothing yet.
    pub(in crate::service) async fn begin_success(&self, tx: &mut Tx) -> Result<Settling, ServiceError> {
        let open = self.open.as_ref().ok_or_else(settled)?;
        self.service.begin_settling(tx, &open.place).await
    }

    /// Gives the place back in `tx`, and remembers the source as one that the account knows. Call
    /// [`Attempt::settled`] once that is committed.
    pub(in crate::service) async fn succeed(
        &self,
        tx: &mut Tx,
        settling: Settling,
    ) -> Result<(), ServiceError> {
        let open = self.open.as_ref().ok_or_else(settled)?;
        self.service.settle(tx, &open.place, settling, End::Right).await
    }

    /// Ends an attempt whose success was committed.
    pub(in crate::service) fn settled(mut self) {
        self.open = None;
    }
}

fn settled() -> ServiceError {
    ServiceError::Fault("a password check was settled before it was made".into())
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let service = self.service.clone();
        self.service
            .0
            .units
            .start(async move { service.go_on_settling(open, retry::SETTLE_ATTEMPT.pauses()).await });
    }
}

impl Service {
    /// Locks what counts an attempt, which is then to be settled. Waits for nothing yet.
    async fn begin_settling(&self, tx: &mut Tx, place: &Place) -> Result<Settling, ServiceError> {
        let own = storage::attempts::ask_locked(tx, place.key).await?;
        let strangers = match place.strangers {
            Some(strangers) => Some(storage::attempts::ask_locked(tx, strangers).await?),
            None => None,
        };
        Ok(Settling { own, strangers })
    }

    async fn settle(
        &self,
        tx: &mut Tx,
        place: &Place,
        settling: Settling,
        end: End,
    ) -> Result<(), ServiceError> {
        let now = self.0.clock.now();
        let mut own = settling.own.receive(tx, now).await?;
        own.attempts.end(place.at, end == End::Wrong);
        if end == End::Right {
            own.known_until = Some(now.plus(KNOWN_FOR));
        }
        write(tx, place.key, &own, OWN).await?;
        let (Some(strangers), Some(locking)) = (place.strangers, settling.strangers) else { return Ok(()) };
        let mut tried = locking.receive(tx, now).await?;
        tried.attempts.end(place.at, end == End::Wrong);
        write(tx, strangers, &tried, STRANGERS).await?;
        if end == End::Right {
            let subject = place.key.subject;
            let forgotten = now.plus(OWN.within);
            storage::attempts::update_surplus_unknown(tx, subject, KNOWN_SOURCES, forgotten).await?;
        }
        Ok(())
    }

    async fn settle_alone(&self, permit: Permit, open: &Open) -> Result<(), ServiceError> {
        let mut tx = permit.begin("end attempt").await?;
        let settling = self.begin_settling(&mut tx, &open.place).await?;
        self.settle(&mut tx, &open.place, settling, open.end).await?;
        if let Some(failure) = &open.failure {
            storage::audit::insert(&mut tx, failure).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Settles an attempt. When the database is away, it goes on trying aside, for as long as the place would
    /// keep others waiting: or else a short outage would shut an account.
    async fn settle_or_go_on(&self, permit: Permit, open: Box<Open>) -> Result<(), ServiceError> {
        let Err(failure) = self.settle_alone(permit, &open).await else { return Ok(()) };
        let service = self.clone();
        self.0.units.run_aside(async move {
            let mut pauses = retry::SETTLE_ATTEMPT.pauses();
            pauses.wait().await;
            service.go_on_settling(open, pauses).await;
        });
        Err(failure)
    }

    /// Settles an attempt whose caller has left or was told of a failure.
    async fn go_on_settling(&self, open: Box<Open>, mut pauses: Pauses) {
        loop {
            if let Ok(permit) = self.unit_of(open.hold.party).await
                && self.settle_alone(permit, &open).await.is_ok()
            {
                return;
            }
            if !pauses.wait().await {
                break;
            }
        }
        tracing::warn!(
            "the end of a password check was not written; it counts as failed until it is forgotten"
        );
    }
}
