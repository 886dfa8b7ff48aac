//! The changes that callers ask for: authorised, limited, hashed for, and made in a unit of work. Once a
//! write has begun, it goes on even when the caller's future is dropped.

use super::super::access;
use super::super::admission::Changing;
use super::super::authority::{Authority, Stake};
use super::super::{CallContext, Caller, Service, ServiceError};
use super::changes::{self, NewUser, TenantChanges, UserChanges};
use crate::domain::{
    Etag, FieldViolation, Password, PasswordPolicy, Tenant, TenantId, Timestamp, User, UserId, UserState,
};
use crate::storage;
use crate::storage::tenants::TenantLock;
use crate::storage::users::UserLock;
use crate::storage::{Permit, Tx};

/// A user by his id, and by his tenant where that is named.
type Whose = (UserId, Option<TenantId>);

/// A unit of work whose caller may make it.
struct Authorized {
    tx: Tx,
    by: Authority,
    now: Timestamp,
}

impl Service {
    /// Creates a user of a tenant. The password satisfies [`Service::password_policy`].
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::create_user`]; [`ServiceError::EmailTaken`];
    /// [`ServiceError::TooManyRegistrations`] when a user was told too often that an e-mail is taken;
    /// [`ServiceError::Overloaded`].
    pub async fn create_user(
        &self,
        caller: Caller,
        tenant_id: Option<TenantId>,
        new: NewUser,
        password: &Password,
        context: CallContext,
    ) -> Result<User, ServiceError> {
        // Before the hash, so that whoever may not do this keeps no core busy.
        let changing = self.charge_change(&caller)?;
        let mut slot = self.reserve_hash(&context)?;
        {
            let mut conn = self.reader(&context).await?;
            let by = self.authorize(&mut conn, access::CREATE_USER, &caller, &context).await?;
            let tenant_id = by.tenant("tenant_id", tenant_id)?;
            storage::tenants::find(&mut conn, tenant_id).await?.ok_or(ServiceError::TenantNotFound)?;
            by.require_role(new.role)?;
        }
        let hash = slot.hash(password).await?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let _slot = slot;
            let stake = Stake { tenant: TenantLock::Keep, user: None };
            let rpc = access::CREATE_USER;
            let authorized = service.begin_authorized(permit, "create user", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            let tenant_id = by.tenant("tenant_id", tenant_id)?;
            let limited = service.lock_taken(&mut tx, &by).await?;
            let created = changes::create_user(&mut tx, &by, tenant_id, new, &hash, now).await?;
            if created.is_none() {
                service.tell_taken(&mut tx, &by, limited, now).await?;
            }
            commit(tx, changing).await?;
            created.ok_or(ServiceError::EmailTaken)
        };
        self.0.units.run(permit, unit).await
    }

    /// Changes a user. Callers who give themselves another e-mail prove that they know `current_password`.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::update_user`]; [`ServiceError::EmailTaken`];
    /// [`ServiceError::TooManyRegistrations`] when a user was told too often that an e-mail is taken;
    /// [`ServiceError::FieldInvalid`] when `current_password` is missing; [`ServiceError::LoginFailed`] when it
    /// is wrong, or was changed meanwhile; [`ServiceError::TooManyAttempts`]; [`ServiceError::Overloaded`].
    pub async fn update_user(
        &self,
        caller: Caller,
        whose: Whose,
        etag: Option<Etag>,
        changes: UserChanges,
        current_password: Option<Password>,
        context: CallContext,
    ) -> Result<User, ServiceError> {
        let changing = self.charge_change(&caller)?;
        let checked_at = match &changes.email {
            Some(email) if caller.is_user(whose.0) => {
                self.check_own_password(&caller, email, current_password, &context).await?
            }
            Some(_) | None => None,
        };
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let stake = Stake { tenant: changes.tenant_lock(), user: Some((whose.0, UserLock::Change)) };
            let rpc = access::UPDATE_USER;
            let authorized = service.begin_authorized(permit, "update user", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            if let Some(checked_at) = checked_at {
                require_unchanged_password(&mut tx, &caller, checked_at).await?;
            }
            let limited = match changes.email {
                Some(_) => service.lock_taken(&mut tx, &by).await?,
                None => None,
            };
            let updated = changes::update_user(&mut tx, &by, whose, etag.as_ref(), changes, now).await?;
            if updated.is_none() {
                service.tell_taken(&mut tx, &by, limited, now).await?;
            }
            commit(tx, changing).await?;
            updated.ok_or(ServiceError::EmailTaken)
        };
        self.0.units.run(permit, unit).await
    }

    /// Lets a user log in and call, or not.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::set_user_state`].
    pub async fn set_user_state(
        &self,
        caller: Caller,
        whose: Whose,
        etag: Option<Etag>,
        state: UserState,
        context: CallContext,
    ) -> Result<User, ServiceError> {
        let changing = self.charge_change(&caller)?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let stake = Stake { tenant: TenantLock::Change, user: Some((whose.0, UserLock::Change)) };
            let rpc = access::SET_USER_STATE;
            let authorized =
                service.begin_authorized(permit, "set user state", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            let user = changes::set_user_state(&mut tx, &by, whose, etag.as_ref(), state, now).await?;
            commit(tx, changing).await?;
            Ok(user)
        };
        self.0.units.run(permit, unit).await
    }

    /// Gives somebody else another password, which satisfies [`Service::password_policy`] but for the e-mail.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::set_password`]; [`ServiceError::FieldInvalid`] when
    /// the password is the user's e-mail, or the user is the caller, who has to know the current one;
    /// [`ServiceError::Overloaded`].
    pub async fn set_password(
        &self,
        caller: Caller,
        whose: Whose,
        password: &Password,
        context: CallContext,
    ) -> Result<(), ServiceError> {
        // Before the hash, so that whoever may not do this keeps no core busy.
        let changing = self.charge_change(&caller)?;
        let mut slot = self.reserve_hash(&context)?;
        let user = {
            let mut conn = self.reader(&context).await?;
            let by = self.authorize(&mut conn, access::SET_PASSWORD, &caller, &context).await?;
            if caller.is_user(whose.0) {
                let description = "must be somebody else: ChangePassword is for one's own".to_owned();
                return Err(ServiceError::FieldInvalid(FieldViolation { field: "user_id", description }));
            }
            let tenant_id = changes::tenant_of(&mut conn, &by, whose.0, whose.1).await?;
            let user = storage::users::find(&mut conn, tenant_id, whose.0).await?;
            let user = user.ok_or(ServiceError::UserNotFound)?;
            by.require_role(user.role)?;
            user
        };
        require_unlike_email(self.0.password_policy, password, &user)?;
        let hash = slot.hash(password).await?;
        let permit = self.unit(&context).await?;
        let whose = (user.id, Some(user.tenant.id));
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let _slot = slot;
            let stake = Stake { tenant: TenantLock::Keep, user: Some((whose.0, UserLock::Change)) };
            let rpc = access::SET_PASSWORD;
            let authorized = service.begin_authorized(permit, "set password", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            changes::set_password(&mut tx, &by, whose, &hash, now).await?;
            commit(tx, changing).await
        };
        self.0.units.run(permit, unit).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::revoke_user_sessions`].
    pub async fn revoke_user_sessions(
        &self,
        caller: Caller,
        whose: Whose,
        context: CallContext,
    ) -> Result<(), ServiceError> {
        let changing = self.charge_change(&caller)?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let rpc = access::REVOKE_USER_SESSIONS;
            let stake = Stake { tenant: TenantLock::Keep, user: Some((whose.0, UserLock::Change)) };
            let name = "revoke user sessions";
            let authorized = service.begin_authorized(permit, name, rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            changes::revoke_user_sessions(&mut tx, &by, whose, now).await?;
            commit(tx, changing).await
        };
        self.0.units.run(permit, unit).await
    }

    /// Deletes a user with everything that belongs to him.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::delete_user`].
    pub async fn delete_user(
        &self,
        caller: Caller,
        whose: Whose,
        etag: Option<Etag>,
        context: CallContext,
    ) -> Result<(), ServiceError> {
        let changing = self.charge_change(&caller)?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let stake = Stake { tenant: TenantLock::Change, user: Some((whose.0, UserLock::Delete)) };
            let rpc = access::DELETE_USER;
            let authorized = service.begin_authorized(permit, "delete user", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            changes::delete_user(&mut tx, &by, whose, etag.as_ref(), now).await?;
            commit(tx, changing).await
        };
        self.0.units.run(permit, unit).await
    }

    /// Changes a tenant.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::update_tenant`].
    pub async fn update_tenant(
        &self,
        caller: Caller,
        tenant_id: Option<TenantId>,
        etag: Option<Etag>,
        changes: TenantChanges,
        context: CallContext,
    ) -> Result<Tenant, ServiceError> {
        let changing = self.charge_change(&caller)?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let stake = Stake { tenant: TenantLock::Change, user: None };
            let rpc = access::UPDATE_TENANT;
            let authorized = service.begin_authorized(permit, "update tenant", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            let tenant_id = by.tenant("tenant.id", tenant_id)?;
            let tenant = changes::update_tenant(&mut tx, &by, tenant_id, etag.as_ref(), changes, now).await?;
            commit(tx, changing).await?;
            Ok(tenant)
        };
        self.0.units.run(permit, unit).await
    }

    /// Deletes a tenant with its users and everything that belongs to them. It exists for nobody once this
    /// returns; its rows are removed in the background.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::delete_tenant`].
    pub async fn delete_tenant(
        &self,
        caller: Caller,
        tenant_id: TenantId,
        etag: Option<Etag>,
        context: CallContext,
    ) -> Result<(), ServiceError> {
        let changing = self.charge_change(&caller)?;
        let permit = self.unit(&context).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let stake = Stake { tenant: TenantLock::Delete, user: None };
            let rpc = access::DELETE_TENANT;
            let authorized = service.begin_authorized(permit, "delete tenant", rpc, &caller, &context, stake);
            let Authorized { mut tx, by, now } = authorized.await?;
            let tenant_id = by.tenant("tenant_id", Some(tenant_id))?;
            changes::delete_tenant(&mut tx, &by, tenant_id, etag.as_ref(), now).await?;
            commit(tx, changing).await?;
            service.tell_deleted();
            Ok(())
        };
        self.0.units.run(permit, unit).await
    }

    async fn begin_authorized(
        &self,
        permit: Permit,
        name: &'static str,
        rpc: &str,
        caller: &Caller,
        context: &CallContext,
        stake: Stake,
    ) -> Result<Authorized, ServiceError> {
        let mut tx = permit.begin(name).await?;
        let by = self.authorize_change(&mut tx, rpc, caller, context, stake).await?;
        let now = self.0.clock.now();
        Ok(Authorized { tx, by, now })
    }
}

/// Refuses to go on when the caller's password is not the one of `checked_at` any more. The caller is locked.
///
/// # Errors
/// [`ServiceError::LoginFailed`].
async fn require_unchanged_password(
    tx: &mut Tx,
    caller: &Caller,
    checked_at: Timestamp,
) -> Result<(), ServiceError> {
    let holder = caller.holder()?;
    let found = storage::logins::find_password_changed_at(tx, holder.tenant_id, holder.user_id).await?;
    if found == Some(checked_at) { Ok(()) } else { Err(ServiceError::LoginFailed) }
}

/// Commits a change. One that told the audit log of nothing has changed nothing, and costs nothing.
async fn commit(tx: Tx, changing: Changing) -> Result<(), ServiceError> {
    let is_change = tx.has_events();
    tx.commit().await?;
    if is_change {
        changing.made();
    }
    Ok(())
}

/// Refuses a password that is its user's e-mail.
///
/// # Errors
/// [`ServiceError::FieldInvalid`].
pub(in crate::service) fn require_unlike_email(
    policy: PasswordPolicy,
    password: &Password,
    user: &User,
) -> Result<(), ServiceError> {
    policy.check(password, Some(&user.email)).map_err(|problem| {
        ServiceError::FieldInvalid(FieldViolation { field: "new_password", description: problem.to_string() })
    })
}
