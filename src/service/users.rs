//! Looking users up.

use crate::domain::{FieldViolation, TenantId, User, UserId};
use crate::storage;

use super::Service;
use super::call::Call;
use super::caller::{Caller, TokenHolder};
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
        call: &Call,
        wanted: Option<UserId>,
        tenant: Option<TenantId>,
    ) -> Result<User, ServiceError> {
        match call.caller() {
            Caller::Service(_) => self.find_user(call, wanted, tenant).await,
            Caller::User(_) | Caller::Anonymous => {
                let holder = call.holder()?;
                let user = self.find_colleague(call, holder, wanted.unwrap_or(holder.user_id)).await?;
                let user = user.filter(|_| tenant.is_none_or(|tenant| tenant == holder.tenant_id));
                user.ok_or(ServiceError::UserNotFound)
            }
        }
    }

    /// For a service, to which all tenants are the same.
    async fn find_user(
        &self,
        call: &Call,
        wanted: Option<UserId>,
        tenant: Option<TenantId>,
    ) -> Result<User, ServiceError> {
        let wanted = wanted.ok_or_else(|| {
            let description = "must name a user".to_owned();
            ServiceError::FieldInvalid(FieldViolation { field: "user_id", description })
        })?;
        let mut conn = self.reader(call).await?;
        match tenant {
            Some(tenant) => storage::users::find(&mut conn, tenant, wanted).await?,
            None => Some(changes::find_anywhere(&mut conn, wanted).await?),
        }
        .ok_or(ServiceError::UserNotFound)
    }

    /// A user of the caller's tenant, in the one query that also checks the caller's session.
    async fn find_colleague(
        &self,
        call: &Call,
        holder: &TokenHolder,
        wanted: UserId,
    ) -> Result<Option<User>, ServiceError> {
        let TokenHolder { tenant_id, user_id, session_id } = *holder;
        let mut conn = self.reader(call).await?;
        let found =
            storage::users::find_with_session(&mut conn, tenant_id, session_id, user_id, wanted).await?;
        let (standing, user) = found.unzip();
        self.calling_user_of(call, standing.as_ref())?.require_reach(wanted)?;
        Ok(user.flatten())
    }
}
