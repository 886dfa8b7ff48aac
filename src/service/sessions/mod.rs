//! Sessions: how they are opened, go on and end.

mod own;
mod refresh;
mod sweep;
mod verify;

use std::time::Duration;

use crate::crypto::access_token::{AccessToken, TokenSubject};
use crate::crypto::refresh_token::{RefreshToken, SessionSecret};
use crate::domain::{
    Action, Actor, AuditEvent, EndUser, FieldChange, Reason, Session, SessionId, Target, Timestamp, User,
    UserState,
};
use crate::storage;
use crate::storage::sessions::OpenAt;
use crate::storage::{Answer, Tx};

use super::{CallContext, Service, ServiceError};

pub use own::OwnSession;
pub use sweep::Swept;
pub use verify::VerifiedToken;

/// How long sessions last, and how many a user has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// A session ends when it was not refreshed for this long.
    pub idle: Duration,
    /// It ends after this long, however much it is used.
    pub max: Duration,
    /// For how long after a refresh the token that was refreshed still gets the same successor.
    pub refresh_grace: Duration,
    /// How many sessions a user has at most; the oldest goes first.
    pub per_user: usize,
}

impl SessionRules {
    /// When a session ends that was last refreshed at `last_used_at` and is to end at `expires_at`
    /// whatever happens.
    pub(super) fn ends_at(&self, last_used_at: Timestamp, expires_at: Timestamp) -> Timestamp {
        last_used_at.plus(self.idle).min(expires_at)
    }

    /// Whether a session is open at `now`.
    pub(super) fn is_open(
        &self,
        last_used_at: Timestamp,
        expires_at: Timestamp,
        revoked_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        revoked_at.is_none() && self.ends_at(last_used_at, expires_at) > now
    }

    /// What tells open sessions from ended ones at `now`, in a query.
    pub(super) fn open_at(&self, now: Timestamp) -> OpenAt {
        OpenAt { now, unused_since: now.minus(self.idle) }
    }
}

/// What whoever opened a session gets.
#[derive(Clone, Debug)]
pub struct OpenedSession {
    /// Whose session it is.
    pub user: User,
    /// Proves who is calling, for some minutes.
    pub access_token: AccessToken,
    /// Stands for the session.
    pub refresh_token: RefreshToken,
}

impl Service {
    /// A new session of `user`, yet to be stored, and the secret that only its refresh token has.
    fn new_session(&self, user: &User, opened_by: EndUser, now: Timestamp) -> (Session, SessionSecret) {
        let secret = SessionSecret::generate();
        let session = Session {
            id: SessionId::generate(now),
            tenant_id: user.tenant.id,
            user_id: user.id,
            generation: 0,
            secret_digest: secret.digest(),
            created_at: now,
            last_used_at: now,
            expires_at: now.plus(self.0.session_rules.max),
            opened_by,
            revoked_at: None,
            rotations: Vec::new(),
        };
        (session, secret)
    }

    /// Opens a session of `user`, and writes that behind `events`. [`Service::hand_out`] gives its tokens once
    /// that is committed.
    pub(super) async fn insert_session(
        &self,
        tx: &mut Tx,
        user: &User,
        context: &CallContext,
        mut events: Vec<AuditEvent>,
    ) -> Result<(Session, SessionSecret), ServiceError> {
        let now = self.0.clock.now();
        let (session, secret) = self.new_session(user, context.end_user.clone(), now);
        storage::sessions::insert(tx, &session).await?;
        let event = context.event_by((user.tenant.id, user.id), now, Action::SessionOpened);
        events.push(AuditEvent { target: Some(Target::Session(session.id)), ..event });
        storage::audit::insert_all(tx, &events).await?;
        Ok((session, secret))
    }

    /// Finds the oldest sessions of a user who has no room for another, in a transaction that locks the user's row
    /// first. Waits for nothing yet.
    pub(super) async fn ask_surplus(
        &self,
        tx: &mut Tx,
        user: &User,
    ) -> Result<Answer<Vec<SessionId>>, ServiceError> {
        let (rules, now) = (self.0.session_rules, self.0.clock.now());
        let (open, kept) = (rules.open_at(now), rules.per_user.saturating_sub(1));
        Ok(storage::sessions::ask_surplus(tx, user.tenant.id, user.id, open, kept).await?)
    }

    /// Ends those sessions. Returns the event that tells of it, to be written.
    pub(super) async fn end_surplus(
        &self,
        tx: &mut Tx,
        user: &User,
        surplus: Answer<Vec<SessionId>>,
    ) -> Result<Option<AuditEvent>, ServiceError> {
        let surplus = surplus.receive(tx).await?;
        let ended = storage::sessions::delete(tx, user.tenant.id, &surplus).await?;
        let now = self.0.clock.now();
        let event = AuditEvent::new(now, Some(user.tenant.id), Actor::System, Action::SessionEnded);
        Ok((ended > 0).then(|| AuditEvent {
            target: Some(Target::User(user.id)),
            changes: vec![FieldChange::set("sessions_ended", ended.to_string())],
            reason: Some(Reason::TooManySessions),
            ..event
        }))
    }

    /// Whether a session is open at `now`, and its user may use it.
    pub(super) fn is_open(&self, session: &Session, user: &User, now: Timestamp) -> bool {
        let Session { last_used_at, expires_at, revoked_at, .. } = *session;
        self.0.session_rules.is_open(last_used_at, expires_at, revoked_at, now)
            && user.state == UserState::Active
    }

    /// The tokens of a session that has been stored.
    pub(super) fn hand_out(&self, user: User, session: &Session, secret: &SessionSecret) -> OpenedSession {
        let subject = TokenSubject {
            tenant_id: session.tenant_id,
            user_id: session.user_id,
            session_id: session.id,
            role: user.role,
            session_ends_at: self.0.session_rules.ends_at(session.last_used_at, session.expires_at),
        };
        let access_token = self.0.access_tokens.issue(&subject, self.0.clock.now());
        let refresh_token =
            self.0.refresh_tokens.issue(session.tenant_id, session.id, session.generation, secret);
        OpenedSession { user, access_token, refresh_token }
    }
}
