//! Registering and logging in.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    Action, Actor, AuditEvent, Email, Password, PasswordHash, Profile, Reason, RequestId, Role, Target,
    Tenant, TenantId, TenantName, Timestamp, User, UserId, UserState,
};
use crate::storage;
use crate::storage::logins::Login;
use crate::storage::outcomes::Outcome;
use crate::storage::{Inserted, Permit, Tx};

use super::Service;
use super::attempts::{Attempt, Checked, Whose};
use super::call::Call;
use super::caller::CallContext;
use super::directory::changes;
use super::error::ServiceError;
use super::sessions::OpenedSession;

/// How long the outcome of a registration is remembered by its request id.
const OUTCOME_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a registration needs. The password satisfies [`Service::password_policy`].
#[derive(Clone, Debug)]
pub struct Registration {
    /// What is said of the owner.
    pub profile: Profile,
    /// The owner's password.
    pub password: Password,
    /// The tenant's name.
    pub tenant_name: TenantName,
    /// What the caller names this attempt, if it may be repeated.
    pub request_id: Option<RequestId>,
}

/// How an attempt to write a registration ended.
enum Written {
    Created(Box<OpenedSession>),
    /// The request id was there already.
    Known(Outcome),
    EmailTaken,
}

impl Service {
    /// Creates a tenant and its owner, both or neither, and opens a session.
    ///
    /// A registration with a request id that was used within 24 hours, with the same content,
    /// creates nothing: it returns the same user and tenant, with a new session. Once the write has
    /// begun it goes on even when the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError::RegistrationClosed`]; [`ServiceError::TooManyRegistrations`];
    /// [`ServiceError::EmailTaken`]; [`ServiceError::RequestIdReused`] when the request id was used
    /// with other content, or the user may not log in any more; [`ServiceError::TooManyAttempts`];
    /// [`ServiceError::Overloaded`].
    pub async fn register(
        &self,
        call: Call,
        registration: Registration,
    ) -> Result<OpenedSession, ServiceError> {
        self.require_registration_open(&call)?;
        let registration = Arc::new(registration);
        let mut slot = self.reserve_hash(&call)?;
        if let Some(known) = self.admit_registration(registration.request_id, &call).await? {
            drop(slot);
            return self.replay(call, &registration, &known).await;
        }
        let hash = slot.hash(&registration.password).await?;
        let permit = self.unit(&call).await?;
        let written = {
            let (service, registration) = (self.clone(), Arc::clone(&registration));
            let call = call.clone();
            let unit = async move |permit: Permit| {
                let _slot = slot;
                service.write_registration(permit, &registration, &hash, &call).await
            };
            self.0.units.run(permit, unit).await?
        };
        match written {
            Written::Created(opened) => Ok(*opened),
            Written::Known(outcome) => self.replay(call, &registration, &outcome).await,
            Written::EmailTaken => Err(ServiceError::EmailTaken),
        }
    }

    async fn write_registration(
        &self,
        permit: Permit,
        registration: &Registration,
        hash: &PasswordHash,
        context: &CallContext,
    ) -> Result<Written, ServiceError> {
        let now = self.0.clock.now();
        let user = new_owner(registration, now);
        let mut tx = permit.begin("register").await?;
        if let Some(known) = self.claim_request_id(&mut tx, registration, &user).await? {
            return Ok(Written::Known(known));
        }
        let registered = self.lock_registered(&mut tx, context).await?;
        storage::tenants::insert(&mut tx, &user.tenant).await?;
        changes::insert_user(&mut tx, &user).await?;
        let claimed =
            storage::logins::insert_name(&mut tx, &user.profile.email, user.tenant.id, user.id).await?;
        if claimed == Inserted::Taken {
            // Takes the user and the claim along.
            storage::tenants::undo_insert(&mut tx, user.tenant.id).await?;
            registered.count_taken(&mut tx, now).await?;
            storage::audit::insert(&mut tx, &context.event(now, None, Action::EmailTaken)).await?;
            tx.commit().await?;
            return Ok(Written::EmailTaken);
        }
        registered.count_registration(&mut tx, now).await?;
        self.insert_known(&mut tx, &user.profile.email, context, now).await?;
        storage::logins::insert_password(&mut tx, user.tenant.id, user.id, hash, now).await?;
        let event = |action| context.event(now, Some(user.tenant.id), action);
        let events = vec![
            changes::tenant_created(event(Action::TenantCreated), &user.tenant),
            changes::user_created(event(Action::UserCreated), &user),
        ];
        let (session, secret) = self.insert_session(&mut tx, &user, context, events).await?;
        tx.commit().await?;
        Ok(Written::Created(Box::new(self.hand_out(user, &session, &secret))))
    }

    /// Records that this attempt made `owner`, unless an earlier attempt of that name made another.
    async fn claim_request_id(
        &self,
        tx: &mut Tx,
        registration: &Registration,
        owner: &User,
    ) -> Result<Option<Outcome>, ServiceError> {
        let Some(request_id) = registration.request_id else { return Ok(None) };
        let outcome = Outcome {
            request_id,
            fingerprint: self.0.fingerprints.fingerprint(&identifying(registration)),
            tenant_id: owner.tenant.id,
            user_id: owner.id,
            created_at: owner.created_at,
            expires_at: owner.created_at.plus(OUTCOME_KEPT),
        };
        match storage::outcomes::insert(tx, &outcome).await? {
            Inserted::Yes => Ok(None),
            Inserted::Taken => match storage::outcomes::find(tx, request_id).await? {
                Some(known) => Ok(Some(known)),
                // Its user was deleted between the two statements; trying again will register.
                None => Err(storage::StorageError::Unavailable("a request id was just freed".into()).into()),
            },
        }
    }

    /// Answers a registration that happened before as it was answered then, with a new session.
    async fn replay(
        &self,
        call: Call,
        registration: &Registration,
        outcome: &Outcome,
    ) -> Result<OpenedSession, ServiceError> {
        if !self.0.fingerprints.matches(&identifying(registration), &outcome.fingerprint) {
            return Err(ServiceError::RequestIdReused);
        }
        let whose = Whose::User(outcome.tenant_id, outcome.user_id);
        let (attempt, found) = self.begin_attempt(&registration.profile.email, &call, whose).await?;
        let failure = failure(&call, found.as_ref().map(|login| &login.user), self.0.clock.now());
        let found = found.filter(may_log_in);
        let stored = found.as_ref().map(|login| &login.password);
        let checked = attempt.check(&registration.password, stored, failure).await?;
        let (Some(login), Checked::Right { attempt, .. }) = (found, checked) else {
            return Err(ServiceError::RequestIdReused);
        };
        self.open_session(call, login, attempt).await
    }

    /// Checks a password and opens a session.
    ///
    /// An unknown e-mail costs one hash, as a wrong password does. When the stored hash is older
    /// than today's settings, it is replaced after the answer. Once the write has begun it goes on
    /// even when the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError::LoginFailed`], the same for an unknown e-mail, a wrong password and a user
    /// who may not log in; [`ServiceError::TooManyAttempts`], whether or not the password is right;
    /// [`ServiceError::Overloaded`].
    pub async fn login(
        &self,
        call: Call,
        email: &Email,
        password: Password,
    ) -> Result<OpenedSession, ServiceError> {
        // The connection goes back before the hash is computed.
        let (attempt, found) = self.begin_attempt(email, &call, Whose::Email(email.clone())).await?;
        let failure = failure(&call, found.as_ref().map(|login| &login.user), self.0.clock.now());
        let found = found.filter(may_log_in);
        let stored = found.as_ref().map(|login| &login.password);
        let checked = attempt.check(&password, stored, failure).await?;
        let (Some(login), Checked::Right { attempt, outdated }) = (found, checked) else {
            return Err(ServiceError::LoginFailed);
        };
        let (tenant_id, user_id, old) = (login.user.tenant.id, login.user.id, login.password.clone());
        let opened = self.open_session(call, login, attempt).await?;
        if outdated {
            self.replace_hash(tenant_id, user_id, password, old);
        }
        Ok(opened)
    }

    /// Opens a session for a user whose password was just found right, unless the user was disabled
    /// or got another password or e-mail in the meantime.
    async fn open_session(
        &self,
        call: Call,
        login: Login,
        attempt: Attempt,
    ) -> Result<OpenedSession, ServiceError> {
        // Spares a transaction that would find the same.
        if login.user.state != UserState::Active {
            return Err(ServiceError::LoginFailed);
        }
        let permit = self.unit(&call).await?;
        let service = self.clone();
        let unit = async move |permit: Permit| service.write_session(permit, login, &call, attempt).await;
        self.0.units.run(permit, unit).await
    }

    async fn write_session(
        &self,
        permit: Permit,
        login: Login,
        context: &CallContext,
        attempt: Attempt,
    ) -> Result<OpenedSession, ServiceError> {
        let mut tx = permit.begin("login").await?;
        // As they are now: the hash took its time.
        let found = storage::logins::ask_locked(&mut tx, &login.user.tenant, login.user.id).await?;
        let surplus = self.ask_surplus(&mut tx, &login.user).await?;
        let settling = attempt.begin_success(&mut tx).await?;
        let Some((user, password_changed_at)) = found.receive(&mut tx).await? else {
            return Err(ServiceError::LoginFailed);
        };
        let is_whom_was_checked = user.state == UserState::Active
            && password_changed_at == login.password_changed_at
            && user.profile.email.as_normalized() == login.user.profile.email.as_normalized();
        if !is_whom_was_checked {
            return Err(ServiceError::LoginFailed);
        }
        let events = self.end_surplus(&mut tx, &user, surplus).await?.into_iter().collect();
        let (session, secret) = self.insert_session(&mut tx, &user, context, events).await?;
        attempt.succeed(&mut tx, settling).await?;
        tx.commit().await?;
        attempt.settled();
        Ok(self.hand_out(user, &session, &secret))
    }

    /// Replaces an outdated hash while the password is at hand, when the hasher has time for it.
    fn replace_hash(&self, tenant_id: TenantId, user_id: UserId, password: Password, old: PasswordHash) {
        let service = self.clone();
        self.0.units.run_aside(async move {
            if let Err(error) = service.write_hash(tenant_id, user_id, &password, &old).await {
                tracing::warn!(user.id = %user_id, error = %error, "an outdated password hash was not replaced");
            }
        });
    }

    async fn write_hash(
        &self,
        tenant_id: TenantId,
        user_id: UserId,
        password: &Password,
        old: &PasswordHash,
    ) -> Result<(), ServiceError> {
        let new = self.0.hasher.rehash(password).await?;
        let mut tx = self.0.storage.begin("rehash").await?;
        // False when the password was changed, or another login was faster: both are fine.
        if storage::logins::update_hash(&mut tx, tenant_id, user_id, old, &new).await? {
            let now = self.0.clock.now();
            let event = AuditEvent::new(now, Some(tenant_id), Actor::System, Action::PasswordRehashed);
            let event = AuditEvent { target: Some(Target::User(user_id)), ..event };
            storage::audit::insert(&mut tx, &event).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Whether a password is to be checked. A user who may not log in is checked as nobody is: no verdict, and no
/// time, tells of the hash.
fn may_log_in(login: &Login) -> bool {
    login.user.state == UserState::Active
}

/// The event of a password check of `user`, or of nobody, that fails.
fn failure(context: &CallContext, user: Option<&User>, now: Timestamp) -> AuditEvent {
    let event = context.event(now, user.map(|user| user.tenant.id), Action::LoginFailed);
    let reason = match user {
        None => Reason::UnknownEmail,
        Some(user) if user.state == UserState::Disabled => Reason::UserDisabled,
        Some(_) => Reason::WrongPassword,
    };
    AuditEvent { target: user.map(|user| Target::User(user.id)), reason: Some(reason), ..event }
}

/// What makes two registrations the same, the password aside: no digest of a password is ever stored
/// beside its hash.
fn identifying(registration: &Registration) -> [&str; 5] {
    [
        "register",
        registration.profile.email.as_given(),
        registration.profile.first_name.as_str(),
        registration.profile.last_name.as_str(),
        registration.tenant_name.as_str(),
    ]
}

fn new_owner(registration: &Registration, now: Timestamp) -> User {
    let tenant = Tenant {
        id: TenantId::generate(now),
        name: registration.tenant_name.clone(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    User {
        id: UserId::generate(now),
        tenant,
        profile: registration.profile.clone(),
        role: Role::Owner,
        state: UserState::Active,
        version: 1,
        created_at: now,
        updated_at: now,
    }
}
