//! Looking users up.

use crate::domain::{User, UserId, UserState};
use crate::storage;
use crate::storage::users::SessionStanding;

use super::Service;
use super::caller::Caller;
use super::error::ServiceError;

impl Service {
    /// The caller, or the user `wanted` of the caller's tenant.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended or its user may do
    /// nothing any more; [`ServiceError::UserNotFound`] when the caller's tenant has no such user,
    /// whether or not another has.
    pub async fn get_user(&self, caller: &Caller, wanted: Option<UserId>) -> Result<User, ServiceError> {
        let caller = caller.holder()?;
        let wanted = wanted.unwrap_or(caller.user_id);
        let mut conn = self.0.storage.read().await?;
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
        user.ok_or(ServiceError::UserNotFound)
    }

    /// Refuses a caller without a session that is open, for a use case whose work does not ask.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] as in [`Service::get_user`].
    pub async fn require_session(&self, caller: &Caller) -> Result<(), ServiceError> {
        self.get_user(caller, None).await.map(drop)
    }

    /// Refuses a session that has ended, or whose user may do nothing any more.
    fn require_open(&self, standing: &SessionStanding) -> Result<(), ServiceError> {
        let now = self.0.clock.now();
        let ends_at = self.0.session_lifetime.ends_at(standing.last_used_at, standing.expires_at);
        let open = standing.state == UserState::Active && standing.revoked_at.is_none() && ends_at > now;
        if open { Ok(()) } else { Err(ServiceError::TokenInvalid) }
    }
}
