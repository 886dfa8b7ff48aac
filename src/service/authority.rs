//! On whose authority something is changed: how far it reaches, and what the audit log says of it.

use super::access::Reach;
use super::call::Call;
use super::caller::{Caller, TokenHolder};
use super::{Service, ServiceError};
use crate::domain::{
    Action, Actor, AuditEvent, AuditOrigin, FieldViolation, Role, SessionId, TenantId, Timestamp, UserId,
    UserState,
};
use crate::storage;
use crate::storage::sessions::SessionStanding;
use crate::storage::tenants::TenantLock;
use crate::storage::users::UserLock;
use crate::storage::{Conn, Tx};

/// What somebody may change, and who they are.
#[derive(Clone, Debug)]
pub struct Authority {
    actor: Actor,
    origin: AuditOrigin,
    /// `None` for services, operators and the service itself, who stand outside of all tenants.
    user: Option<CallingUser>,
}

/// A user as the database has them now.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallingUser {
    holder: TokenHolder,
    role: Role,
    reach: Reach,
}

impl CallingUser {
    /// As [`Authority::require_reach`].
    pub(super) fn require_reach(&self, target: UserId) -> Result<(), ServiceError> {
        let is_beyond = self.reach == Reach::Own && self.holder.user_id != target;
        if is_beyond { Err(ServiceError::RoleTooLow) } else { Ok(()) }
    }
}

/// What a change is about, besides who makes it: the rows of the caller's tenant that it locks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stake {
    /// The tenant itself.
    pub(super) tenant: TenantLock,
    /// The user whom the change is about, if there is one yet.
    pub(super) user: Option<(UserId, UserLock)>,
}

impl Authority {
    /// Whoever runs a command on the database: everything. `name` is what the machine calls them.
    pub fn operator(name: Option<String>) -> Self {
        Self { actor: Actor::Operator { name }, origin: AuditOrigin::default(), user: None }
    }

    /// The service itself, in its own time.
    pub fn system() -> Self {
        Self { actor: Actor::System, origin: AuditOrigin::default(), user: None }
    }

    /// An event of now, by this authority.
    pub(super) fn event(&self, now: Timestamp, tenant_id: Option<TenantId>, action: Action) -> AuditEvent {
        let event = AuditEvent::new(now, tenant_id, self.actor.clone(), action);
        AuditEvent { origin: self.origin.clone(), ..event }
    }

    /// The one tenant that it is about: a user's own, or the one that a service has to name.
    ///
    /// # Errors
    /// [`ServiceError::TenantNotFound`] when a user names another one, whether or not it exists;
    /// [`ServiceError::FieldInvalid`] when a service names none in `field`.
    pub(super) fn tenant(
        &self,
        field: &'static str,
        named: Option<TenantId>,
    ) -> Result<TenantId, ServiceError> {
        match (&self.user, named) {
            (None, Some(named)) => Ok(named),
            (None, None) => {
                let description = "must name a tenant".to_owned();
                Err(ServiceError::FieldInvalid(FieldViolation { field, description }))
            }
            (Some(user), None) => Ok(user.holder.tenant_id),
            (Some(user), Some(named)) if named == user.holder.tenant_id => Ok(named),
            (Some(_), Some(_)) => Err(ServiceError::TenantNotFound),
        }
    }

    /// The tenant that a user has, to whose members the search is bound; `None` for all tenants.
    pub(super) fn bound_to(&self) -> Option<TenantId> {
        self.user.map(|user| user.holder.tenant_id)
    }

    /// Whom the caller's access token names, when the caller is a user.
    pub(super) fn holder(&self) -> Option<TokenHolder> {
        self.user.map(|user| user.holder)
    }

    /// Whether this is a user, who is not trusted as a service is.
    pub(super) fn is_user(&self) -> bool {
        self.user.is_some()
    }

    /// The session that a change of `target`'s spares: the one that the call is made in, when it is theirs.
    pub(super) fn own_session(&self, target: UserId) -> Option<SessionId> {
        let holder = self.user.map(|user| user.holder)?;
        (holder.user_id == target).then_some(holder.session_id)
    }

    /// Whom page tokens are good for.
    pub(super) fn scope(&self) -> String {
        match &self.user {
            Some(CallingUser { holder, .. }) => format!("user {} {}", holder.tenant_id, holder.user_id),
            None => format!("{} {}", self.actor.kind(), self.actor.name().unwrap_or_default()),
        }
    }

    /// Lets a user of `role` be touched, or given that role.
    ///
    /// # Errors
    /// [`ServiceError::RoleTooLow`] when that is above the caller's own.
    pub(super) fn require_role(&self, role: Role) -> Result<(), ServiceError> {
        let is_above = self.user.is_some_and(|user| role > user.role);
        if is_above { Err(ServiceError::RoleTooLow) } else { Ok(()) }
    }

    /// Lets the user `target` of the caller's tenant be touched.
    ///
    /// # Errors
    /// [`ServiceError::RoleTooLow`] when the caller reaches only what is their own, and that is somebody else.
    pub(super) fn require_reach(&self, target: UserId) -> Result<(), ServiceError> {
        self.user.map_or(Ok(()), |user| user.require_reach(target))
    }

    /// Lets more be done than what everybody may do with what is their own.
    ///
    /// # Errors
    /// [`ServiceError::RoleTooLow`] when the caller reaches only what is their own.
    pub(super) fn require_more_than_own(&self) -> Result<(), ServiceError> {
        let is_bound = self.user.is_some_and(|user| user.reach == Reach::Own);
        if is_bound { Err(ServiceError::RoleTooLow) } else { Ok(()) }
    }
}

impl Service {
    /// What the caller may do, by the session, state and role that the database has now.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended;
    /// [`ServiceError::RoleTooLow`] when their role may not call this.
    pub(super) async fn authorize(&self, conn: &mut Conn, call: &Call) -> Result<Authority, ServiceError> {
        if let Caller::Service(name) = call.caller() {
            let actor = Actor::Service { name: name.as_str().to_owned() };
            return Ok(Authority { actor, origin: call.origin(), user: None });
        }
        let TokenHolder { tenant_id, user_id, session_id } = *call.holder()?;
        let standing = storage::sessions::find_standing(conn, tenant_id, session_id, user_id).await?;
        self.authority(call, standing.as_ref())
    }

    /// As [`Service::authorize`] of a user, whose session and role stay as they are until the transaction ends.
    ///
    /// # Errors
    /// Those of [`Service::authorize`].
    pub(super) async fn authorize_kept(&self, tx: &mut Tx, call: &Call) -> Result<Authority, ServiceError> {
        let TokenHolder { tenant_id, user_id, session_id } = *call.holder()?;
        let standing = storage::sessions::ask_standing_kept(tx, tenant_id, session_id, user_id).await?;
        self.authority(call, standing.receive(tx).await?.as_ref())
    }

    /// As [`Service::authorize`], for a change: what a user's authority rests on, and what the change is about,
    /// stays as it is until the transaction ends. So nobody changes anything with what was taken away before.
    ///
    /// All changes lock in one order: the tenant, its users by id, then sessions by id, and each row once, in the
    /// strongest mode that the change needs. So they do not deadlock. Services stand outside of all tenants; what
    /// they change is locked where it is found.
    ///
    /// # Errors
    /// Those of [`Service::authorize`].
    pub(super) async fn authorize_change(
        &self,
        tx: &mut Tx,
        call: &Call,
        stake: Stake,
    ) -> Result<Authority, ServiceError> {
        // First without locks: whoever may not call this keeps nobody waiting.
        let by = self.authorize(tx, call).await?;
        let Some(TokenHolder { tenant_id, user_id, session_id }) = by.holder() else { return Ok(by) };
        let tenant = storage::tenants::ask_locked(tx, tenant_id, stake.tenant).await?;
        if let Some((target, lock)) = stake.user {
            if user_id < target {
                storage::users::lock(tx, tenant_id, user_id, UserLock::Keep).await?;
            }
            storage::users::lock(tx, tenant_id, target, lock).await?;
        }
        let standing = storage::sessions::ask_standing_kept(tx, tenant_id, session_id, user_id).await?;
        tenant.receive(tx).await?.ok_or(ServiceError::TokenInvalid)?;
        self.authority(call, standing.receive(tx).await?.as_ref())
    }

    fn authority(&self, call: &Call, standing: Option<&SessionStanding>) -> Result<Authority, ServiceError> {
        let user = self.calling_user_of(call, standing)?;
        let actor = Actor::User { id: user.holder.user_id, via: call.via() };
        Ok(Authority { actor, origin: call.origin(), user: Some(user) })
    }

    /// The one place where a user's session, state and role are held against the access table.
    ///
    /// # Errors
    /// Those of [`Service::authorize`].
    pub(super) fn calling_user_of(
        &self,
        call: &Call,
        standing: Option<&SessionStanding>,
    ) -> Result<CallingUser, ServiceError> {
        let holder = *call.holder()?;
        let standing = standing.filter(|standing| self.is_open_now(standing));
        let role = standing.ok_or(ServiceError::TokenInvalid)?.role;
        let reach = self.0.access.of(call.rpc()).of_role(role);
        if reach == Reach::Denied {
            return Err(ServiceError::RoleTooLow);
        }
        Ok(CallingUser { holder, role, reach })
    }

    /// Whether a session is open, and its user may use it.
    fn is_open_now(&self, standing: &SessionStanding) -> bool {
        let SessionStanding { state, last_used_at, expires_at, revoked_at, .. } = *standing;
        let rules = self.0.session_rules;
        rules.is_open(last_used_at, expires_at, revoked_at, self.0.clock.now()) && state == UserState::Active
    }
}
