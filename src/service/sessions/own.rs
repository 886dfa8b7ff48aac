//! What users do about their own sessions.

use crate::domain::{
    Action, AuditEvent, Page, PageSize, Reason, Session, SessionId, Target, TenantId, Timestamp, UserId,
};
use crate::storage::sessions::OpenAt;
use crate::storage::users::UserLock;
use crate::storage::{self, Conn, Permit, StorageError, Tx};

use super::super::call::Call;
use super::super::caller::TokenHolder;
use super::super::directory::pieces::{Cursor, Piece, Pieced, Pieces};
use super::super::{Service, ServiceError};

/// One of the caller's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSession {
    /// The session.
    pub session: Session,
    /// When it ends unless it is refreshed before.
    pub ends_at: Timestamp,
    /// Whether the call is made in it.
    pub is_current: bool,
}

impl Service {
    /// A page of the caller's open sessions, the newest first: the one behind `page_token`, or the first.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended; [`ServiceError::FieldInvalid`]
    /// when the page token was not issued for this caller's list.
    pub async fn list_sessions(
        &self,
        call: &Call,
        size: PageSize,
        page_token: Option<&str>,
    ) -> Result<Page<OwnSession>, ServiceError> {
        let listing = self.listing(call).await?;
        {
            let mut conn = listing.connection().await?;
            self.authorize(&mut conn, call).await?;
        }
        let holder = call.holder()?;
        let scope = scope(holder);
        let after = self.cursor(&scope, page_token)?;
        let rules = self.0.session_rules;
        let (tenant_id, user_id) = (holder.tenant_id, holder.user_id);
        let list = OpenSessions { tenant_id, user_id, open: rules.open_at(self.0.clock.now()) };
        let found = Pieces::on(&listing).page(&list, size, after).await?;
        let Page { entries, next } = self.page(&scope, found);
        let own = |session: Session| OwnSession {
            ends_at: rules.ends_at(session.last_used_at, session.expires_at),
            is_current: session.id == holder.session_id,
            session,
        };
        Ok(Page { entries: entries.into_iter().map(own).collect(), next })
    }

    /// Ends one of the caller's sessions; one that has ended already is no error.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended;
    /// [`ServiceError::SessionNotFound`] when the caller has no such session, whether or not others have.
    pub async fn revoke_session(&self, call: Call, id: SessionId) -> Result<(), ServiceError> {
        let changing = self.charge_change(&call)?;
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let mut tx = permit.begin("revoke session").await?;
            let TokenHolder { tenant_id, user_id, session_id } = *call.holder()?;
            storage::users::lock(&mut tx, tenant_id, user_id, UserLock::Keep).await?;
            // By id, so that two sessions that end each other do not wait in a circle.
            let ends = if id <= session_id {
                let ends = storage::sessions::find_user_locked(&mut tx, tenant_id, id).await?;
                service.authorize_kept(&mut tx, &call).await?;
                ends
            } else {
                service.authorize_kept(&mut tx, &call).await?;
                storage::sessions::find_user_locked(&mut tx, tenant_id, id).await?
            };
            if ends != Some(user_id) {
                return Err(ServiceError::SessionNotFound);
            }
            let by = (tenant_id, user_id);
            let event = call.event_by(by, service.0.clock.now(), Action::SessionEnded);
            if service.end_session(&mut tx, tenant_id, id, event).await? {
                tx.commit().await?;
                changing.made();
            }
            Ok(())
        };
        self.0.units.run(permit, unit).await
    }

    /// Ends the session that a refresh token stands for; one that has ended already is no error.
    ///
    /// A text that this service did not make is refused without a query.
    ///
    /// # Errors
    /// [`ServiceError::RefreshTokenInvalid`] for anything but a refresh token of this service.
    pub async fn logout(&self, call: Call, refresh_token: &str) -> Result<(), ServiceError> {
        let token =
            self.0.refresh_tokens.parse(refresh_token).map_err(|_| ServiceError::RefreshTokenInvalid)?;
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let mut tx = permit.begin("logout").await?;
            let found = storage::sessions::find_with_user(&mut tx, token.tenant_id, token.session_id).await?;
            // One that is not there has ended and was swept.
            let Some((session, _)) = found else { return Ok(()) };
            if !token.secret.has_digest(&session.secret_digest) {
                return Err(ServiceError::RefreshTokenInvalid);
            }
            let by = (session.tenant_id, session.user_id);
            let event = call.event_by(by, service.0.clock.now(), Action::SessionEnded);
            let event = AuditEvent { reason: Some(Reason::Logout), ..event };
            if service.end_session(&mut tx, session.tenant_id, session.id, event).await? {
                tx.commit().await?;
            }
            Ok(())
        };
        self.0.units.run(permit, unit).await
    }

    /// Ends a session of a tenant, and tells of it by `event`; false when it has ended already, and nothing
    /// was written.
    pub(super) async fn end_session(
        &self,
        tx: &mut Tx,
        tenant_id: TenantId,
        id: SessionId,
        event: AuditEvent,
    ) -> Result<bool, ServiceError> {
        let is_first = storage::sessions::update_revoked(tx, tenant_id, id, self.0.clock.now()).await?;
        if is_first {
            let event = AuditEvent { target: Some(Target::Session(id)), ..event };
            storage::audit::insert(tx, &event).await?;
        }
        Ok(is_first)
    }
}

/// The open sessions of a user, the newest first.
struct OpenSessions {
    tenant_id: TenantId,
    user_id: UserId,
    open: OpenAt,
}

impl Pieced for OpenSessions {
    type Entry = Session;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<Session>, StorageError> {
        let after = after.map(|(at, id)| (at, SessionId::from(id)));
        let Self { tenant_id, user_id, open } = *self;
        let some = storage::sessions::list_open(conn, tenant_id, user_id, open, after, most).await?;
        Ok(Piece::whole(some, most))
    }
}

/// The list that a page token is good for.
fn scope(holder: &TokenHolder) -> [String; 3] {
    ["sessions".to_owned(), holder.tenant_id.to_string(), holder.user_id.to_string()]
}
