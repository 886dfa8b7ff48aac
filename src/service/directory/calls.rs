//! The changes that callers ask for: authorised, limited, hashed for, and made in a unit of work. Once a
//! write has begun, it goes on even when the caller's future is dropped.

use super::super::admission::Changing;
use super::super::authority::{Authority, Stake};
use super::super::call::Call;
use super::super::{Service, ServiceError};
use super::changes::{self, NewUser, TenantChanges, UserChanges};
use crate::domain::{
    Etag, FieldViolation, Password, PasswordPolicy, Tenant, TenantId, Timestamp, User, UserId, UserState,
};
use crate::storage;
use crate::storage::tenants::TenantLock;
use crate::storage::users::UserLock;
use crate::storage::{Permit, Tx};

/// A user by their id, and by their tenant where that is named.
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
        call: Call,
        tenant_id: Option<TenantId>,
        new: NewUser,
        password: &Password,
    ) -> Result<User, ServiceError> {
        // Before the hash, so that whoever may not do this keeps no core busy.
        let changing = self.charge_change(&call)?;
        let mut slot = self.reserve_hash(&call)?;
        {
            let mut conn = self.reader(&call).await?;
            let by = self.authorize(&mut conn, &call).await?;
            let tenant_id = by.tenant("tenant_id", tenant_id)?;
            storage::tenants::find(&mut conn, tenant_id).await?.ok_or(ServiceError::TenantNotFound)?;
            changes::require_may_create(&by, &new)?;
        }
        let hash = slot.hash(password).await?;
        let stake = Stake { tenant: TenantLock::Keep, user: None };
        let service = self.clone();
        let work = async move |Authorized { mut tx, by, now }| {
            let tenant_id = by.tenant("tenant_id", tenant_id)?;
            let limited = service.lock_taken(&mut tx, &by).await?;
            let created = changes::create_user(&mut tx, &by, tenant_id, new, &hash, now).await?;
            if created.is_none() {
                service.tell_taken(&mut tx, &by, limited, now).await?;
            }
            Ok((tx, (created, slot)))
        };
        let (created, _slot) = self.run_change(call, changing, "create user", stake, work).await?;
        created.ok_or(ServiceError::EmailTaken)
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
        call: Call,
        whose: Whose,
        etag: Option<Etag>,
        changes: UserChanges,
        current_password: Option<Password>,
    ) -> Result<User, ServiceError> {
        let changing = self.charge_change(&call)?;
        let checked_at = match &changes.email {
            Some(email) if call.caller().is_user(whose.0) => {
                self.check_own_password(&call, email, current_password).await?
            }
            Some(_) | None => None,
        };
        let stake = Stake { tenant: changes.tenant_lock(), user: Some((whose.0, UserLock::Change)) };
        let service = self.clone();
        let work = async move |Authorized { mut tx, by, now }| {
            if let Some(checked_at) = checked_at {
                require_unchanged_password(&mut tx, &by, checked_at).await?;
            }
            let limited = match changes.email {
                Some(_) => service.lock_taken(&mut tx, &by).await?,
                None => None,
            };
            let updated = changes::update_user(&mut tx, &by, whose, etag.as_ref(), changes, now).await?;
            if updated.is_none() {
                service.tell_taken(&mut tx, &by, limited, now).await?;
            }
            Ok((tx, updated))
        };
        let updated = self.run_change(call, changing, "update user", stake, work).await?;
        updated.ok_or(ServiceError::EmailTaken)
    }

    /// Lets a user log in and call, or not.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::set_user_state`].
    pub async fn set_user_state(
        &self,
        call: Call,
        whose: Whose,
        etag: Option<Etag>,
        state: UserState,
    ) -> Result<User, ServiceError> {
        let stake = Stake { tenant: TenantLock::Change, user: Some((whose.0, UserLock::Change)) };
        let work = async move |Authorized { mut tx, by, now }| {
            let user = changes::set_user_state(&mut tx, &by, whose, etag.as_ref(), state, now).await?;
            Ok((tx, user))
        };
        self.change(call, "set user state", stake, work).await
    }

    /// Gives somebody else another password, which satisfies [`Service::password_policy`] but for the e-mail.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::set_password`]; [`ServiceError::FieldInvalid`] when
    /// the password is the user's e-mail, or the user is the caller, who has to know the current one;
    /// [`ServiceError::Overloaded`].
    pub async fn set_password(
        &self,
        call: Call,
        whose: Whose,
        password: &Password,
    ) -> Result<(), ServiceError> {
        // Before the hash, so that whoever may not do this keeps no core busy.
        let changing = self.charge_change(&call)?;
        let mut slot = self.reserve_hash(&call)?;
        let user = {
            let mut conn = self.reader(&call).await?;
            let by = self.authorize(&mut conn, &call).await?;
            if call.caller().is_user(whose.0) {
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
        let whose = (user.id, Some(user.tenant.id));
        let stake = Stake { tenant: TenantLock::Keep, user: Some((user.id, UserLock::Change)) };
        let work = async move |Authorized { mut tx, by, now }| {
            changes::set_password(&mut tx, &by, whose, &hash, now).await?;
            Ok((tx, slot))
        };
        self.run_change(call, changing, "set password", stake, work).await.map(drop)
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::revoke_user_sessions`].
    pub async fn revoke_user_sessions(&self, call: Call, whose: Whose) -> Result<(), ServiceError> {
        let stake = Stake { tenant: TenantLock::Keep, user: Some((whose.0, UserLock::Change)) };
        let work = async move |Authorized { mut tx, by, now }| {
            changes::revoke_user_sessions(&mut tx, &by, whose, now).await?;
            Ok((tx, ()))
        };
        self.change(call, "revoke user sessions", stake, work).await
    }

    /// Deletes a user with everything that belongs to them.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::delete_user`].
    pub async fn delete_user(
        &self,
        call: Call,
        whose: Whose,
        etag: Option<Etag>,
    ) -> Result<(), ServiceError> {
        let stake = Stake { tenant: TenantLock::Change, user: Some((whose.0, UserLock::Delete)) };
        let work = async move |Authorized { mut tx, by, now }| {
            changes::delete_user(&mut tx, &by, whose, etag.as_ref(), now).await?;
            Ok((tx, ()))
        };
        self.change(call, "delete user", stake, work).await
    }

    /// Changes a tenant.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::update_tenant`].
    pub async fn update_tenant(
        &self,
        call: Call,
        tenant_id: Option<TenantId>,
        etag: Option<Etag>,
        changes: TenantChanges,
    ) -> Result<Tenant, ServiceError> {
        let stake = Stake { tenant: TenantLock::Change, user: None };
        let work = async move |Authorized { mut tx, by, now }| {
            let tenant_id = by.tenant("tenant.id", tenant_id)?;
            let tenant = changes::update_tenant(&mut tx, &by, tenant_id, etag.as_ref(), changes, now).await?;
            Ok((tx, tenant))
        };
        self.change(call, "update tenant", stake, work).await
    }

    /// Deletes a tenant with its users and everything that belongs to them. It exists for nobody once this
    /// returns; its rows are removed in the background.
    ///
    /// # Errors
    /// Those of an unauthorised caller and of [`changes::delete_tenant`].
    pub async fn delete_tenant(
        &self,
        call: Call,
        tenant_id: TenantId,
        etag: Option<Etag>,
    ) -> Result<(), ServiceError> {
        let stake = Stake { tenant: TenantLock::Delete, user: None };
        let work = async move |Authorized { mut tx, by, now }| {
            let tenant_id = by.tenant("tenant_id", Some(tenant_id))?;
            changes::delete_tenant(&mut tx, &by, tenant_id, etag.as_ref(), now).await?;
            Ok((tx, ()))
        };
        self.change(call, "delete tenant", stake, work).await
    }

    /// Makes a change in a unit of work that logs call `name`: takes its budgets, and lets `work` do what the
    /// caller turns out to be allowed to do.
    async fn change<T, F>(
        &self,
        call: Call,
        name: &'static str,
        stake: Stake,
        work: impl FnOnce(Authorized) -> F + Send + 'static,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Tx, T), ServiceError>> + Send + 'static,
    {
        let changing = self.charge_change(&call)?;
        self.run_change(call, changing, name, stake, work).await
    }

    /// As [`Service::change`], of a change that was charged before.
    async fn run_change<T, F>(
        &self,
        call: Call,
        changing: Changing,
        name: &'static str,
        stake: Stake,
        work: impl FnOnce(Authorized) -> F + Send + 'static,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Tx, T), ServiceError>> + Send + 'static,
    {
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let mut tx = permit.begin(name).await?;
            let by = service.authorize_change(&mut tx, &call, stake).await?;
            let (tx, done) = work(Authorized { tx, by, now: service.0.clock.now() }).await?;
            // What told the audit log of nothing has changed nothing, and costs nothing.
            let is_change = tx.has_events();
            tx.commit().await?;
            if is_change {
                changing.made();
            }
            if stake.tenant == TenantLock::Delete {
                service.tell_deleted();
            }
            Ok(done)
        };
        self.0.units.run(permit, unit).await
    }
}

/// Refuses to go on when the caller's password is not the one of `checked_at` any more. The caller is locked.
///
/// # Errors
/// [`ServiceError::LoginFailed`].
async fn require_unchanged_password(
    tx: &mut Tx,
    by: &Authority,
    checked_at: Timestamp,
) -> Result<(), ServiceError> {
    let holder = by.holder().ok_or(ServiceError::TokenInvalid)?;
    let found = storage::logins::find_password_changed_at(tx, holder.tenant_id, holder.user_id).await?;
    if found == Some(checked_at) { Ok(()) } else { Err(ServiceError::LoginFailed) }
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
    policy.check(password, Some(&user.profile.email)).map_err(|problem| {
        ServiceError::FieldInvalid(FieldViolation { field: "new_password", description: problem.to_string() })
    })
}
