//! Opening sessions.

use std::time::Duration;

use crate::crypto::access_token::{AccessToken, TokenSubject};
use crate::crypto::refresh_token::{RefreshToken, SessionSecret};
use crate::domain::{Session, SessionId, Timestamp, User};

use super::Service;

/// How long a session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLifetime {
    /// It ends when it was not refreshed for this long.
    pub idle: Duration,
    /// It ends after this long, however much it is used.
    pub max: Duration,
}

impl SessionLifetime {
    /// When a session ends that was last refreshed at `last_used_at` and is to end at `expires_at`
    /// whatever happens.
    pub(super) fn ends_at(&self, last_used_at: Timestamp, expires_at: Timestamp) -> Timestamp {
        last_used_at.plus(self.idle).min(expires_at)
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
    pub(super) fn new_session(&self, user: &User, now: Timestamp) -> (Session, SessionSecret) {
        let secret = SessionSecret::generate();
        let session = Session {
            id: SessionId::generate(now),
            tenant_id: user.tenant.id,
            user_id: user.id,
            generation: 0,
            secret_digest: secret.digest(),
            created_at: now,
            last_used_at: now,
            expires_at: now.plus(self.0.session_lifetime.max),
        };
        (session, secret)
    }

    /// The tokens of a session that has been stored.
    pub(super) fn hand_out(&self, user: User, session: &Session, secret: &SessionSecret) -> OpenedSession {
        let subject = TokenSubject {
            tenant_id: session.tenant_id,
            user_id: session.user_id,
            session_id: session.id,
            role: user.role,
            session_ends_at: self.0.session_lifetime.ends_at(session.last_used_at, session.expires_at),
        };
        let access_token = self.0.access_tokens.issue(&subject, self.0.clock.now());
        let refresh_token =
            self.0.refresh_tokens.issue(session.tenant_id, session.id, session.generation, secret);
        OpenedSession { user, access_token, refresh_token }
    }
}
