//! Looking users up.

use crate::domain::{FieldViolation, TenantId, User, UserId, UserState};
use crate::storage;
use crate::storage::users::SessionStanding;
use crate::storage::{Conn, Tx};

use super::Service;
use super::caller::{CallContext, Caller, TokenHolder};
use super::directory::changes;
use super::error::ServiceError;

impl Service {
    /// The caller, or the user `wanted` of the caller's tenant; to a service any user, of `tenant` if that
    /// is given.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended or its user may do
    /// nothing any more; [`ServiceError::UserNotFound`] when the caller's tenant has no such user,
    /// whether or not another has; [`ServiceError::FieldInvalid`] when a service does not say enough.
    pub async fn get_user(
        &self,
        caller: &Caller,
        wanted: Option<UserId>,
        tenant: Option<TenantId>,
        context: &CallContext,
    ) -> Result<User, ServiceError> {
        match caller {
            Caller::Service(_) => self.find_user(wanted, tenant, context).await,
            Caller::User(_) | Caller::Anonymous => {
                let holder = caller.holder()?;
                let user = self.find_user_for(holder, wanted.unwrap_or(holder.user_id), context).await?;
                let user = user.filter(|_| tenant.is_none_or(|tenant| tenant == holder.tenant_id));
                user.ok_or(ServiceError::UserNotFound)
            }
        }
    }

    /// For a service, to which all tenants are the same.
    async fn find_user(
        &self,
        wanted: Option<UserId>,
        tenant: Option<TenantId>,
        context: &CallContext,
    ) -> Result<User, ServiceError> {
        let wanted = wanted.ok_or_else(|| {
            let description = "must name a user".to_owned();
            ServiceError::FieldInvalid(FieldViolation { field: "user_id", description })
        })?;
        let mut conn = self.reader(context).await?;
        match tenant {
            Some(tenant) => storage::users::find(&mut conn, tenant, wanted).await?,
            None => Some(changes::find_anywhere(&mut conn, wanted).await?),
        }
        .ok_or(ServiceError::UserNotFound)
    }

    /// A user of the caller's tenant, in the one query that also checks the caller's session.
    async fn find_user_for(
        &self,
        caller: &TokenHolder,
        wanted: UserId,
        context: &CallContext,
    ) -> Result<Option<User>, ServiceError> {
        let mut conn = self.reader(context).await?;
        let found = storage::users::find_with_session(
            &mut conn,
            caller.tenant_id,
            caller.session_id,
            caller.user_id,
            wanted,
        )
        .await?;
        let (standing, user) = found.ok_or(ServiceError::TokenInvalid)?;
        self.require_open(&standing)?;
        Ok(user)
    }

    /// Refuses a user without a session that is open, for a use case whose work does not ask. Services have
    /// none.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] as in [`Service::get_user`].
    pub async fn require_session(&self, caller: &Caller, context: &CallContext) -> Result<(), ServiceError> {
        match caller {
            Caller::Service(_) => Ok(()),
            Caller::User(_) | Caller::Anonymous => {
                let holder = caller.holder()?;
                self.find_user_for(holder, holder.user_id, context).await.map(drop)
            }
        }
    }

    /// As [`Service::require_session`], on a connection that is at hand.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn require_session_on(
        &self,
        conn: &mut Conn,
        caller: &Caller,
    ) -> Result<(), ServiceError> {
        let TokenHolder { tenant_id, user_id, session_id } = *caller.holder()?;
        let standing = storage::users::find_standing(conn, tenant_id, session_id, user_id).await?;
        self.require_open(&standing.ok_or(ServiceError::TokenInvalid)?)
    }

    /// As [`Service::require_session_on`], of a session and a user that stay as they are until the transaction
    /// ends.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn require_session_kept(
        &self,
        tx: &mut Tx,
        holder: &TokenHolder,
    ) -> Result<(), ServiceError> {
        let TokenHolder { tenant_id, user_id, session_id } = *holder;
        let standing = storage::users::ask_standing_kept(tx, tenant_id, session_id, user_id).await?;
        let standing = standing.receive(tx).await?;
        self.require_open(&standing.ok_or(ServiceError::TokenInvalid)?)
    }

    /// Refuses a session that has ended, or whose user may do nothing any more.
    pub(super) fn require_open(&self, standing: &SessionStanding) -> Result<(), ServiceError> {
        let SessionStanding { state, last_used_at, expires_at, revoked_at, .. } = *standing;
        let rules = self.0.session_rules;
        let is_open = rules.is_open(last_used_at, expires_at, revoked_at, self.0.clock.now());
        if is_open && state == UserState::Active { Ok(()) } else { Err(ServiceError::TokenInvalid) }
    }
}
