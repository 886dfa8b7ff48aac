//! Reserves the place of a check among those that may fail.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attempt::{Attempt, Hold, Place};
use super::limits::{OWN, STRANGERS, write};
use super::refusals::LimitKind;
use super::turns::NoTurn;
use crate::crypto::hasher::Slot;
use crate::domain::{Email, Party, RETRY_SOON, Room, TenantId, Timestamp, UserId};
use crate::service::Service;
use crate::service::caller::CallContext;
use crate::service::error::ServiceError;
use crate::service::retry;
use crate::storage;
use crate::storage::Permit;
use crate::storage::attempts::AttemptKey;
use crate::storage::logins::Login;

/// How long a check waits for a place when its caller names no deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose hash a password is checked against.
#[derive(Clone, Debug)]
pub(in crate::service) enum Whose {
    /// Whoever has that login name, if anybody does.
    Email(Email),
    /// A user who is known already.
    User(TenantId, UserId),
    /// The caller has it.
    Given,
}

/// What came of asking for a place.
enum Reserved {
    Place(Box<(Attempt, Option<Login>)>),
    Awaited(Box<Hold>),
    Full { limit: LimitKind, until: Timestamp },
}

impl Service {
    /// Reserves a place for checking a password of `email`, who need not exist, and finds whom it is checked
    /// for. Where those who are checked now hold all places, it waits for them.
    ///
    /// Takes a password hash first, and for each look at the database a connection that writes. Nothing is
    /// spawned before both are there.
    ///
    /// # Errors
    /// [`ServiceError::TooManyAttempts`]; [`ServiceError::Overloaded`] when no hash would be admitted now, or
    /// no place was found in time.
    pub(in crate::service) async fn begin_attempt(
        &self,
        email: &Email,
        context: &CallContext,
        whose: Whose,
    ) -> Result<(Attempt, Option<Login>), ServiceError> {
        // First, since it costs nothing: a flood of logins shall not become one of transactions.
        let slot = self.reserve_hash(context)?;
        let subject = self.subject(&["account", email.as_normalized()]);
        let key = AttemptKey { subject, source: self.source(context) };
        let until = context.deadline.map_or_else(|| Instant::now() + PATIENCE, Instant::from_std);
        let reserving = self.reserve(key, &whose, slot, context.party);
        timeout_at(until, reserving)
            .await
            .unwrap_or(Err(ServiceError::Overloaded { retry_after: RETRY_SOON }))
    }

    async fn reserve(
        &self,
        key: AttemptKey,
        whose: &Whose,
        slot: Slot,
        party: Party,
    ) -> Result<(Attempt, Option<Login>), ServiceError> {
        let now = || self.0.clock.now();
        let turn = match self.0.turns.turn(key, OWN.most, now).await {
            Ok(turn) => turn,
            Err(NoTurn::Closed { until }) => return Err(self.refuse_attempt(LimitKind::Attempts, until)),
            Err(NoTurn::Crowded) => return Err(ServiceError::Overloaded { retry_after: RETRY_SOON }),
        };
        let mut hold = Hold { slot, _turn: turn, party };
        let strangers = self.strangers(key.subject);
        if let Some(until) = self.0.turns.closed_until(strangers, now())
            && !self.knows(key, party).await?
        {
            return Err(self.refuse_attempt(LimitKind::Account, until));
        }
        let mut pauses = retry::RESERVE_ATTEMPT.pauses();
        loop {
            let permit = self.unit_of(party).await?;
            // In a task of its own: a place is reserved and known to be, or neither.
            let (service, whose) = (self.clone(), whose.clone());
            let unit = async move |permit: Permit| service.try_reserve(permit, key, &whose, hold).await;
            match self.0.units.run(permit, unit).await? {
                Reserved::Place(reserved) => return Ok(*reserved),
                Reserved::Awaited(still) => hold = *still,
                Reserved::Full { limit, until } => {
                    let full = if limit == LimitKind::Account { strangers } else { key };
                    self.0.turns.close(full, until);
                    return Err(self.refuse_attempt(limit, until));
                }
            }
            pauses.wait().await;
        }
    }

    async fn try_reserve(
        &self,
        permit: Permit,
        key: AttemptKey,
        whose: &Whose,
        hold: Hold,
    ) -> Result<Reserved, ServiceError> {
        let began = Instant::now();
        let mut tx = permit.begin("attempt").await?;
        // Before the locks, so that these are held for less.
        let login = match whose {
            Whose::Email(email) => Some(storage::logins::ask_by_email(&mut tx, email).await?),
            Whose::User(tenant_id, user_id) => {
                Some(storage::logins::ask_by_user(&mut tx, *tenant_id, *user_id).await?)
            }
            Whose::Given => None,
        };
        let own = storage::attempts::ask_locked(&mut tx, key).await?;
        let login = match login {
            Some(login) => login.receive(&mut tx).await?,
            None => None,
        };
        let mut own = own.receive(&mut tx, self.0.clock.now()).await?;
        // Read under the lock: times are in the order of the places.
        let now = self.0.clock.now();
        own.attempts.forget(OWN, now);
        match own.attempts.room(OWN, now) {
            Room::Free => {}
            Room::Awaited => return Ok(Reserved::Awaited(Box::new(hold))),
            Room::Full { until } => return Ok(Reserved::Full { limit: LimitKind::Attempts, until }),
        }
        own.attempts.pending.push(now);
        let is_known = own.known_until.is_some_and(|until| until > now);
        let strangers = (!is_known).then(|| self.strangers(key.subject));
        if let Some(strangers) = strangers {
            let mut tried = storage::attempts::lock(&mut tx, strangers, now).await?;
            tried.attempts.forget(STRANGERS, now);
            match tried.attempts.room(STRANGERS, now) {
                Room::Free => {}
                Room::Awaited => return Ok(Reserved::Awaited(Box::new(hold))),
                Room::Full { until } => return Ok(Reserved::Full { limit: LimitKind::Account, until }),
            }
            tried.attempts.pending.push(now);
            write(&mut tx, strangers, &tried, STRANGERS).await?;
        }
        write(&mut tx, key, &own, OWN).await?;
        tx.commit().await?;
        let place = Place { key, strangers, at: now };
        let attempt = Attempt::new(self.clone(), hold, place, began.elapsed());
        Ok(Reserved::Place(Box::new((attempt, login))))
    }

    /// Whether the account has logged in from the source.
    async fn knows(&self, key: AttemptKey, party: Party) -> Result<bool, ServiceError> {
        let mut conn = self.unit_of(party).await?.connect().await?;
        let tried = storage::attempts::find(&mut conn, key).await?;
        let known_until = tried.and_then(|tried| tried.known_until);
        Ok(known_until.is_some_and(|until| until > self.0.clock.now()))
    }
}
