//! Changing one's own password, and proving that one knows it.

use std::time::Duration;

use crate::domain::{
    Action, AuditEvent, Email, FieldViolation, Password, PasswordHash, Reason, Target, Timestamp,
};
use crate::storage;
use crate::storage::Permit;
use crate::storage::logins::Login;
use crate::storage::users::UserLock;

use super::Service;
use super::attempts::{Checked, Whose};
use super::call::Call;
use super::caller::TokenHolder;
use super::directory::require_unlike_email;
use super::error::ServiceError;

impl Service {
    /// Gives the caller another password, and ends all of the caller's sessions but the one that the call
    /// is made in. Once the write has begun it goes on even when the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended; [`ServiceError::FieldInvalid`]
    /// when the new password is the caller's e-mail; [`ServiceError::LoginFailed`] when `current` is not
    /// the caller's password, or somebody changed it meanwhile; [`ServiceError::TooManyAttempts`];
    /// [`ServiceError::Overloaded`].
    pub async fn change_password(
        &self,
        call: Call,
        current: &Password,
        new: &Password,
    ) -> Result<(), ServiceError> {
        let changing = self.charge_change(&call)?;
        // One to check the password with is taken with the attempt.
        let mut slot = self.reserve_hash(&call)?;
        let holder = *call.holder()?;
        let login = {
            let mut conn = self.reader(&call).await?;
            self.authorize(&mut conn, &call).await?;
            storage::logins::find_by_user(&mut conn, holder.tenant_id, holder.user_id).await?
        };
        let login = login.ok_or(ServiceError::LoginFailed)?;
        require_unlike_email(self.0.password_policy, new, &login.user)?;
        self.check_password(&call, &login, current).await?;
        let hash = slot.hash(new).await?;
        let by = (holder.tenant_id, holder.user_id);
        let event = call.event_by(by, self.0.clock.now(), Action::PasswordChanged);
        let event = AuditEvent { target: Some(Target::User(holder.user_id)), ..event };
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| {
            let _slot = slot;
            service.write_password(permit, &call, &login, &hash, &event).await?;
            changing.made();
            Ok(())
        };
        self.0.units.run(permit, unit).await
    }

    /// Checks that `current` is the password of a caller who wants `email` for a login name, as a login does.
    /// Returns when that password was set; nothing when they have that e-mail already, and prove nothing.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended; [`ServiceError::FieldInvalid`] when
    /// `current` is missing; [`ServiceError::LoginFailed`] when it is wrong; [`ServiceError::TooManyAttempts`];
    /// [`ServiceError::Overloaded`].
    pub(super) async fn check_own_password(
        &self,
        call: &Call,
        email: &Email,
        current: Option<Password>,
    ) -> Result<Option<Timestamp>, ServiceError> {
        let holder = *call.holder()?;
        let login = {
            let mut conn = self.reader(call).await?;
            self.authorize(&mut conn, call).await?.require_more_than_own()?;
            storage::logins::find_by_user(&mut conn, holder.tenant_id, holder.user_id).await?
        };
        let login = login.ok_or(ServiceError::LoginFailed)?;
        if email.as_given() == login.user.profile.email.as_given() {
            return Ok(None);
        }
        let Some(current) = current else {
            let description = "is needed to change one's own e-mail".to_owned();
            return Err(ServiceError::FieldInvalid(FieldViolation {
                field: "current_password",
                description,
            }));
        };
        self.check_password(call, &login, &current).await?;
        Ok(Some(login.password_changed_at))
    }

    /// Checks a password of a user who is logged in, and counts a wrong one as one of a login.
    async fn check_password(
        &self,
        call: &Call,
        login: &Login,
        password: &Password,
    ) -> Result<(), ServiceError> {
        let (attempt, _) = self.begin_attempt(&login.user.profile.email, call, Whose::Given).await?;
        let by = (login.user.tenant.id, login.user.id);
        let event = call.event_by(by, self.0.clock.now(), Action::LoginFailed);
        let target = Some(Target::User(login.user.id));
        let failure = AuditEvent { target, reason: Some(Reason::WrongPassword), ..event };
        match attempt.check(password, Some(&login.password), failure).await? {
            Checked::Wrong => Err(ServiceError::LoginFailed),
            // Dropped, it gives its place back.
            Checked::Right { .. } => Ok(()),
        }
    }

    async fn write_password(
        &self,
        permit: Permit,
        call: &Call,
        login: &Login,
        hash: &PasswordHash,
        event: &AuditEvent,
    ) -> Result<(), ServiceError> {
        let TokenHolder { tenant_id, user_id, session_id } = *call.holder()?;
        // Later than the last change, whatever this machine's clock says: logins compare the two.
        let soonest = login.password_changed_at.plus(Duration::from_micros(1));
        let now = self.0.clock.now().max(soonest);
        let mut tx = permit.begin("change password").await?;
        storage::users::lock(&mut tx, tenant_id, user_id, UserLock::Change).await?;
        // Whoever ended the session while the passwords were hashed meant to keep its holder out.
        self.authorize_kept(&mut tx, call).await?;
        let expected = login.password_changed_at;
        let changed =
            storage::logins::update_password(&mut tx, tenant_id, user_id, expected, hash, now).await?;
        if !changed {
            return Err(ServiceError::LoginFailed);
        }
        storage::sessions::update_others_revoked(&mut tx, tenant_id, user_id, Some(session_id), now).await?;
        storage::audit::insert(&mut tx, event).await?;
        Ok(tx.commit().await?)
    }
}
