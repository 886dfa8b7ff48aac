//! Who may register, and how often.
//!
//! The limits hold where a registration is written: there the source's row is locked, before anything tells
//! whether the e-mail is taken. The look before the hash only spares the hash.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::domain::{Action, Limit, RequestId, Room, Timestamp};
use crate::storage;
use crate::storage::Tx;
use crate::storage::attempts::{AttemptKey, Tried};
use crate::storage::outcomes::Outcome;
use crate::telemetry::metrics::Label as _;

use super::attempts::LimitKind;
use super::authority::Authority;
use super::caller::{CallContext, TokenHolder};
use super::{Service, ServiceError};

/// How often a source may be told that an e-mail is taken: it is the one answer that tells of a stranger.
const TAKEN: Limit = Limit { most: 30, within: Duration::from_secs(15 * 60) };

/// Who may register, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationRules {
    /// Who may.
    pub open_to: OpenTo,
    /// How often a source may within an hour.
    pub hourly: Option<NonZeroUsize>,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenTo {
    /// Whoever calls.
    Anybody,
    /// Other services of the company.
    Services,
    /// Nobody.
    Nobody,
}

/// What a source has registered lately, locked.
pub(super) struct Registered {
    windows: Vec<(Window, Tried)>,
}

#[derive(Clone, Copy)]
struct Window {
    kind: LimitKind,
    limit: Limit,
    key: AttemptKey,
}

impl Service {
    /// Lets the caller register now, unless that was done before under the same request id: then it returns the
    /// outcome, and nothing is counted.
    ///
    /// # Errors
    /// [`ServiceError::TooManyRegistrations`]; [`ServiceError::Overloaded`] before anything is asked of the
    /// database.
    pub(super) async fn admit_registration(
        &self,
        request_id: Option<RequestId>,
        context: &CallContext,
    ) -> Result<Option<Outcome>, ServiceError> {
        let mut conn = self.unit(context).await?.connect().await?;
        if let Some(request_id) = request_id
            && let Some(known) = storage::outcomes::find(&mut conn, request_id).await?
            && known.expires_at > self.0.clock.now()
        {
            return Ok(Some(known));
        }
        for window in self.windows(context) {
            if let Some(tried) = storage::attempts::find(&mut conn, window.key).await? {
                self.room(window, tried)?;
            }
        }
        Ok(None)
    }

    /// Whether registration is open to the caller.
    ///
    /// # Errors
    /// [`ServiceError::RegistrationClosed`].
    pub(super) fn require_registration_open(&self, context: &CallContext) -> Result<(), ServiceError> {
        match self.0.registration_rules.open_to {
            OpenTo::Anybody => Ok(()),
            OpenTo::Services if context.service.is_some() => Ok(()),
            OpenTo::Services | OpenTo::Nobody => Err(ServiceError::RegistrationClosed),
        }
    }

    /// Locks what the caller's source has registered lately.
    ///
    /// # Errors
    /// [`ServiceError::TooManyRegistrations`].
    pub(super) async fn lock_registered(
        &self,
        tx: &mut Tx,
        context: &CallContext,
    ) -> Result<Registered, ServiceError> {
        let mut locking = Vec::new();
        for window in self.windows(context) {
            locking.push((window, storage::attempts::ask_locked(tx, window.key).await?));
        }
        let mut windows = Vec::new();
        for (window, locking) in locking {
            let tried = locking.receive(tx, self.0.clock.now()).await?;
            windows.push((window, self.room(window, tried)?));
        }
        Ok(Registered { windows })
    }

    /// Locks how often the caller was told that an e-mail is taken, when the caller is a user: services may look
    /// e-mails up anyway. Strangers at the same address count for themselves.
    ///
    /// # Errors
    /// [`ServiceError::TooManyRegistrations`].
    pub(super) async fn lock_taken(
        &self,
        tx: &mut Tx,
        by: &Authority,
    ) -> Result<Option<Registered>, ServiceError> {
        let Some(TokenHolder { tenant_id, user_id, .. }) = by.holder() else { return Ok(None) };
        let key = AttemptKey {
            subject: self.subject(&[LimitKind::TakenEmails.name()]),
            source: self.subject(&["user", &tenant_id.to_string(), &user_id.to_string()]),
        };
        let window = Window { kind: LimitKind::TakenEmails, limit: TAKEN, key };
        let tried = storage::attempts::lock(tx, window.key, self.0.clock.now()).await?;
        Ok(Some(Registered { windows: vec![(window, self.room(window, tried)?)] }))
    }

    /// Counts an answer that an e-mail is taken, and writes that it was given.
    pub(super) async fn tell_taken(
        &self,
        tx: &mut Tx,
        by: &Authority,
        registered: Option<Registered>,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        if let Some(registered) = registered {
            registered.count_taken(tx, now).await?;
        }
        Ok(storage::audit::insert(tx, &by.event(now, by.bound_to(), Action::EmailTaken)).await?)
    }

    /// Always in the same order, so that nobody waits in a circle.
    fn windows(&self, context: &CallContext) -> Vec<Window> {
        let source = self.source(context);
        let window = |kind: LimitKind, limit| {
            let key = AttemptKey { subject: self.subject(&[kind.name()]), source };
            Window { kind, limit, key }
        };
        let hourly = |most: NonZeroUsize| Limit { most: most.get(), within: Duration::from_secs(60 * 60) };
        let hourly = self.0.registration_rules.hourly.map(hourly);
        let registrations = hourly.map(|limit| window(LimitKind::Registrations, limit));
        [window(LimitKind::TakenEmails, TAKEN)].into_iter().chain(registrations).collect()
    }

    /// What counts still, when that leaves room for one more.
    fn room(&self, window: Window, mut tried: Tried) -> Result<Tried, ServiceError> {
        let now = self.0.clock.now();
        tried.attempts.forget(window.limit, now);
        match tried.attempts.room(window.limit, now) {
            // Nothing is ever under way here.
            Room::Free | Room::Awaited => Ok(tried),
            Room::Full { until } => {
                self.0.refusals.count(window.kind);
                Err(ServiceError::TooManyRegistrations { retry_after: until.since(now) })
            }
        }
    }
}

impl Registered {
    /// Counts a registration.
    pub(super) async fn count_registration(self, tx: &mut Tx, now: Timestamp) -> Result<(), ServiceError> {
        self.count(tx, LimitKind::Registrations, now).await
    }

    /// Counts an answer that an e-mail is taken.
    pub(super) async fn count_taken(self, tx: &mut Tx, now: Timestamp) -> Result<(), ServiceError> {
        self.count(tx, LimitKind::TakenEmails, now).await
    }

    async fn count(self, tx: &mut Tx, kind: LimitKind, now: Timestamp) -> Result<(), ServiceError> {
        for (window, mut tried) in self.windows {
            if window.kind == kind {
                tried.attempts.counted.push(now);
                let expires_at = now.plus(window.limit.within);
                storage::attempts::update(tx, window.key, &tried, expires_at).await?;
            }
        }
        Ok(())
    }
}
