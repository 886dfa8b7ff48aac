//! Password checks, as many as an account and a source may get wrong.
//!
//! Before a password is hashed, a place among those that may fail is reserved in the database. It stays taken
//! for [`OWN`]'s span when a hash was computed and did not match, and is given back otherwise. So the limit
//! holds however many processes are asked at once, and of a process that was killed no more than its
//! reservations is left.

mod refusals;
mod turns;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::crypto::hasher::{Slot, Verdict};
use crate::domain::{
    AuditEvent, Email, Limit, Party, Password, PasswordHash, Room, Source, TenantId, Timestamp, UserId,
};
use crate::storage;
use crate::storage::attempts::{AttemptKey, Locking, Tried};
use crate::storage::logins::Login;
use crate::storage::{Permit, Tx};

use super::Service;
use super::caller::CallContext;
use super::error::ServiceError;
use turns::{NoTurn, Turn};

pub use refusals::{LimitKind, Refusals};
pub use turns::Turns;

const QUARTER: Duration = Duration::from_secs(15 * 60);
/// Failed checks of an account by one source.
const OWN: Limit = Limit { most: 10, within: QUARTER };
/// Failed checks of an account by all sources that it does not know together: as many as guess one of the
/// fifty most common passwords twice over, and few enough that guessing the rest takes years.
const STRANGERS: Limit = Limit { most: 100, within: QUARTER };

/// How long a source is known from which an account has logged in.
const KNOWN_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How many such sources are known of an account, the latest ones.
const KNOWN_SOURCES: usize = 20;

/// What a wrong password costs in the database, at least. Rows that are there already are found faster than
/// they are made; without this the difference would tell of accounts that are in use at the source.
const WRONG_TAKES: Duration = Duration::from_millis(20);

/// How long a check waits for a place when its caller names no deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at places that others hold, the last one repeated.
const LOOKS: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];
/// Between two tries to write how a check ended, the last one repeated: ten minutes altogether.
const TRIES: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(5),
];
const LAST_TRIES: usize = 118;
/// What those are told who found no place in time, though nobody knows that there will be none.
const SOON: Duration = Duration::from_secs(1);

/// Whose hash a password is checked against.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// Whoever has that login name, if anybody does.
    Email(Email),
    /// A user who is known already.
    User(TenantId, UserId),
    /// The caller has it.
    Given,
}

/// A check that has its place among those that may fail. However it ends, that is written down: by a task of
/// its own where the caller has left.
pub(super) struct Attempt {
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
struct Hold {
    slot: Slot,
    /// Among the checks of the account and source; kept for its end.
    _turn: Turn,
    party: Party,
}

/// Where an attempt is counted.
#[derive(Clone, Copy)]
struct Place {
    key: AttemptKey,
    /// Where it is counted too, when the account does not know the source.
    strangers: Option<AttemptKey>,
    at: Timestamp,
}

/// The rows that count an attempt, about to be locked.
pub(super) struct Settling {
    own: Locking,
    strangers: Option<Locking>,
}

/// How a check ended.
pub(super) enum Checked {
    /// The password is right. The attempt is yet to be settled, by what the caller does with that.
    Right { attempt: Attempt, outdated: bool },
    /// It is wrong, or there is nothing to compare it with.
    Wrong,
}

/// What came of asking for a place.
enum Reserved {
    Place(Box<(Attempt, Option<Login>)>),
    Awaited(Box<Hold>),
    Full { limit: LimitKind, until: Timestamp },
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No hash was computed, or nobody waits for its verdict.
    Void,
    Wrong,
    Right,
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
    pub(super) async fn begin_attempt(
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
        timeout_at(until, reserving).await.unwrap_or(Err(ServiceError::Overloaded { retry_after: SOON }))
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
            Err(NoTurn::Crowded) => return Err(ServiceError::Overloaded { retry_after: SOON }),
        };
        let mut hold = Hold { slot, _turn: turn, party };
        let strangers = self.strangers(key.subject);
        if let Some(until) = self.0.turns.closed_until(strangers, now())
            && !self.knows(key, party).await?
        {
            return Err(self.refuse_attempt(LimitKind::Account, until));
        }
        let mut looks = LOOKS.into_iter().chain(std::iter::repeat(LOOKS[LOOKS.len() - 1]));
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
            if let Some(look) = looks.next() {
                sleep(look).await;
            }
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
        let open = Some(Box::new(Open { hold, place, end: End::Void, failure: None }));
        let attempt = Attempt { service: self.clone(), open, took: began.elapsed() };
        Ok(Reserved::Place(Box::new((attempt, login))))
    }

    /// Whether the account has logged in from the source.
    async fn knows(&self, key: AttemptKey, party: Party) -> Result<bool, ServiceError> {
        let mut conn = self.unit_of(party).await?.connect().await?;
        let tried = storage::attempts::find(&mut conn, key).await?;
        let known_until = tried.and_then(|tried| tried.known_until);
        Ok(known_until.is_some_and(|until| until > self.0.clock.now()))
    }

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
            sleep(TRIES[0]).await;
            service.go_on_settling(open).await;
        });
        Err(failure)
    }

    /// Settles an attempt whose caller has left or was told of a failure.
    async fn go_on_settling(&self, open: Box<Open>) {
        for pause in TRIES.into_iter().chain(std::iter::repeat_n(TRIES[TRIES.len() - 1], LAST_TRIES)) {
            if let Ok(permit) = self.unit_of(open.hold.party).await
                && self.settle_alone(permit, &open).await.is_ok()
            {
                return;
            }
            sleep(pause).await;
        }
        tracing::warn!(
            "the end of a password check was not written; it counts as failed until it is forgotten"
        );
    }

    /// Notes that the new user of `email` is at home where the call comes from.
    pub(super) async fn insert_known(
        &self,
        tx: &mut Tx,
        email: &Email,
        context: &CallContext,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        let subject = self.subject(&["account", email.as_normalized()]);
        let key = AttemptKey { subject, source: self.source(context) };
        Ok(storage::attempts::insert_known(tx, key, now.plus(KNOWN_FOR)).await?)
    }

    /// Whom or what limits are about, in a form that names nobody.
    pub(super) fn subject(&self, what: &[&str]) -> [u8; 32] {
        self.0.attempt_keys.fingerprint(what)
    }

    /// Where the call comes from, in such a form.
    pub(super) fn source(&self, context: &CallContext) -> [u8; 32] {
        self.0.attempt_keys.fingerprint(&["source", &Source::of(context.source).to_string()])
    }

    /// The row of an account that all sources share which it does not know.
    fn strangers(&self, subject: [u8; 32]) -> AttemptKey {
        AttemptKey { subject, source: self.0.attempt_keys.fingerprint(&["strangers"]) }
    }

    fn refuse_attempt(&self, limit: LimitKind, until: Timestamp) -> ServiceError {
        self.0.refusals.count(limit);
        ServiceError::TooManyAttempts { retry_after: until.since(self.0.clock.now()) }
    }
}

/// Writes what is remembered for as long as it matters. What does not is deleted: a row is there only for
/// checks that failed or are under way, and for sources that are known.
async fn write(tx: &mut Tx, key: AttemptKey, tried: &Tried, limit: Limit) -> Result<(), ServiceError> {
    match tried.attempts.forgotten_at(limit).max(tried.known_until) {
        Some(expires_at) => storage::attempts::update(tx, key, tried, expires_at).await?,
        None => storage::attempts::delete(tx, key).await?,
    }
    Ok(())
}

impl Attempt {
    /// Checks a password against `stored`, or against nothing. One that is wrong is counted before this
    /// returns, together with the event `failure`, even when the future is dropped; one whose hash was not
    /// computed is given back.
    pub(super) async fn check(
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
    pub(super) async fn begin_success(&self, tx: &mut Tx) -> Result<Settling, ServiceError> {
        let open = self.open.as_ref().ok_or_else(settled)?;
        self.service.begin_settling(tx, &open.place).await
    }

    /// Gives the place back in `tx`, and remembers the source as one that the account knows. Call
    /// [`Attempt::settled`] once that is committed.
    pub(super) async fn succeed(&self, tx: &mut Tx, settling: Settling) -> Result<(), ServiceError> {
        let open = self.open.as_ref().ok_or_else(settled)?;
        self.service.settle(tx, &open.place, settling, End::Right).await
    }

    /// Ends an attempt whose success was committed.
    pub(super) fn settled(mut self) {
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
        self.service.0.units.start(async move { service.go_on_settling(open).await });
    }
}
