//! Refreshing: a session goes on with another refresh token.
//!
//! A session counts its generations; each token names one. The latest is rotated by one
//! compare-and-set, and its successor is computed, not stored: whoever presents the same token within
//! the grace of its rotation gets the latest one, which is its successor unless that was rotated as well.
//! A token whose grace is over is seen again only when somebody has a copy of it (RFC 9700, 4.14.2): the
//! session ends.

use std::time::Duration;

use crate::crypto::refresh_token::ParsedRefreshToken;
use crate::domain::{Action, AuditEvent, Reason, Session, Timestamp, User};
use crate::storage;
use crate::storage::{Conn, Permit, Tx};

use super::super::call::Call;
use super::super::{CallContext, Service, ServiceError};
use super::{OpenedSession, SessionRules};

/// How far ahead the clock of another process may be. A rotation dated later than that has no grace: it would last
/// until that date.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

/// What a genuine token of an open session is.
enum Standing {
    /// The latest: it gets a successor.
    Latest,
    /// Replaced, and presented in time: it gets the latest.
    Rotated,
    /// Replaced for longer: somebody has kept or stolen it.
    Outlived,
    /// Newer than anything that was issued: the database was set back. It proves nothing.
    Unknown,
}

impl Service {
    /// The successor of a refresh token and a new access token.
    ///
    /// A text that this service did not make is refused without a query. Once the write has begun it
    /// goes on even when the future is dropped; whoever asks again within the grace gets the same.
    ///
    /// # Errors
    /// [`ServiceError::RefreshTokenInvalid`] when the token is not the latest of an open session, or its
    /// user may do nothing any more.
    pub async fn refresh_session(
        &self,
        call: Call,
        refresh_token: &str,
    ) -> Result<OpenedSession, ServiceError> {
        let token =
            self.0.refresh_tokens.parse(refresh_token).map_err(|_| ServiceError::RefreshTokenInvalid)?;
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| service.rotate(permit, &token, &call).await;
        self.0.units.run(permit, unit).await
    }

    async fn rotate(
        &self,
        permit: Permit,
        token: &ParsedRefreshToken,
        context: &CallContext,
    ) -> Result<OpenedSession, ServiceError> {
        let mut tx = permit.begin("refresh session").await?;
        let (session, user) = self.open_session_of(&mut tx, token).await?;
        let now = self.0.clock.now();
        match standing(token.generation, &session, self.0.session_rules, now) {
            Standing::Latest => self.rotate_latest(tx, token, session, user, now).await,
            Standing::Rotated => Ok(self.hand_out(user, &session, &token.secret)),
            Standing::Outlived => {
                tracing::warn!(
                    session.id = %session.id,
                    user.id = %user.id,
                    "a refresh token was used again after it had been replaced; its session is ended"
                );
                let event = context.event(now, Some(token.tenant_id), Action::SessionEnded);
                let event = AuditEvent { reason: Some(Reason::RefreshTokenReused), ..event };
                self.end_session(&mut tx, token.tenant_id, session.id, event).await?;
                tx.commit().await?;
                Err(ServiceError::RefreshTokenInvalid)
            }
            Standing::Unknown => Err(ServiceError::RefreshTokenInvalid),
        }
    }

    async fn rotate_latest(
        &self,
        mut tx: Tx,
        token: &ParsedRefreshToken,
        session: Session,
        user: User,
        now: Timestamp,
    ) -> Result<OpenedSession, ServiceError> {
        // No session lives to see four billion of them.
        let next = token.generation.checked_add(1).ok_or(ServiceError::RefreshTokenInvalid)?;
        // Another process's clock may be a little ahead. A date that is far ahead is wrong, and ends here.
        let last = Some(session.last_used_at).filter(|at| *at <= now.plus(CLOCK_LEEWAY));
        let now = last.map_or(now, |last| now.max(last));
        let rules = self.0.session_rules;
        // Their places say which generations they belong to, so only the oldest may go.
        let kept = session.rotations.iter().rposition(|at| is_within_grace(*at, rules, now));
        let recent = session.rotations.iter().copied().take(kept.map_or(0, |last| last + 1));
        let rotated = Session {
            generation: next,
            last_used_at: now,
            rotations: std::iter::once(now).chain(recent).take(Session::MAX_ROTATIONS).collect(),
            ..session
        };
        // Where it finds no such session, it writes nothing, and there is no harm in committing that.
        let is_rotated = storage::sessions::ask_rotated(&mut tx, &rotated).await?;
        let mut conn = tx.commit_and_go_on().await?;
        if is_rotated.receive(&mut conn).await? {
            return Ok(self.hand_out(user, &rotated, &token.secret));
        }
        // Somebody else was faster, with the same token or by ending the session: what they wrote is there to
        // be read.
        let (session, user) = self.open_session_of(&mut conn, token).await?;
        match standing(token.generation, &session, self.0.session_rules, now) {
            Standing::Rotated => Ok(self.hand_out(user, &session, &token.secret)),
            Standing::Latest | Standing::Outlived | Standing::Unknown => {
                Err(ServiceError::RefreshTokenInvalid)
            }
        }
    }

    /// The session that a genuine token stands for, if it is open and its user may call.
    async fn open_session_of(
        &self,
        conn: &mut Conn,
        token: &ParsedRefreshToken,
    ) -> Result<(Session, User), ServiceError> {
        let found = storage::sessions::find_with_user(conn, token.tenant_id, token.session_id).await?;
        let now = self.0.clock.now();
        found
            .filter(|(session, user)| {
                token.secret.has_digest(&session.secret_digest) && self.is_open(session, user, now)
            })
            .ok_or(ServiceError::RefreshTokenInvalid)
    }
}

fn standing(generation: u32, session: &Session, rules: SessionRules, now: Timestamp) -> Standing {
    if generation == session.generation {
        return Standing::Latest;
    }
    if generation > session.generation {
        return Standing::Unknown;
    }
    let in_time = session.rotated_at(generation).is_some_and(|at| is_within_grace(at, rules, now));
    if in_time { Standing::Rotated } else { Standing::Outlived }
}

/// Whether a token that was replaced at `at` still counts.
fn is_within_grace(at: Timestamp, rules: SessionRules, now: Timestamp) -> bool {
    now <= at.plus(rules.refresh_grace) && at <= now.plus(CLOCK_LEEWAY)
}
