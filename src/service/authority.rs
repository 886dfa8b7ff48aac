//! On whose authority something is changed: how far it reaches, and what the audit log says of it.

use super::access::{self, Reach};
use super::caller::{CallContext, Caller, TokenHolder};
use super::{Service, ServiceError};
use crate::domain::{
    Action, Actor, AuditEvent, AuditOrigin, FieldViolation, Role, SessionId, TenantId, Timestamp, UserId,
};
use crate::storage;
use crate::storage::tenants::TenantLock;
use crate::storage::users::UserLock;
use crate::storage::{Conn, Tx};

/// What somebody may change, and who he is.
#[derive(Clone, Debug)]
pub struct Authority {
    actor: Actor,
    origin: AuditOrigin,
    /// `None` for services, operators and the service itself, who stand outside of all tenants.
    user: Option<CallingUser>,
}

/// A user as the database has him now.
#[derive(Clone, Copy, Debug)]
struct CallingUser {
    holder: TokenHolder,
    role: Role,
    reach: Reach,
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
    /// Whoever runs a command on the database: everything. `name` is what the machine calls him.
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

    /// The session that a change of `target`'s spares: the one that the call is made in, when it is his.
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
    /// [`ServiceError::RoleTooLow`] when the caller reaches only himself, and that is somebody else.
    pub(super) fn require_reach(&self, target: UserId) -> Result<(), ServiceError> {
        match self.user {
            Some(user) if user.reach == Reach::Own && user.holder.user_id != target => {
                Err(ServiceError::RoleTooLow)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Lets more be done than what everybody may do with himself.
    ///
    /// # Errors
    /// [`ServiceError::RoleTooLow`] when the caller reaches only himself.
    pub(super) fn require_more_than_own(&self) -> Result<(), ServiceError> {
        let is_bound = self.user.is_some_and(|user| user.reach == Reach::Own);
        if is_bound { Err(ServiceError::RoleTooLow) } else { Ok(()) }
    }
}

impl Service {
    /// What the caller may do in `rpc`, by the session, state and role that the database has now.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when the caller's session has ended;
    /// [`ServiceError::RoleTooLow`] when his role may not call this.
    pub(super) async fn authorize(
        &self,
        conn: &mut Conn,
        rpc: &str,
        caller: &Caller,
        context: &CallContext,
    ) -> Result<Authority, ServiceError> {
        let origin = context.origin();
        if let Caller::Service(name) = caller {
            let actor = Actor::Service { name: name.as_str().to_owned() };
            return Ok(Authority { actor, origin, user: None });
        }
        let holder = *caller.holder()?;
        let found = storage::users::find_standing(conn, holder.tenant_id, holder.session_id, holder.user_id);
        let standing = found.await?.ok_or(ServiceError::TokenInvalid)?;
        self.require_open(&standing)?;
        let reach = reach_of(rpc, standing.role)?;
        let actor = Actor::User { id: holder.user_id, via: context.via() };
        let user = Some(CallingUser { holder, role: standing.role, reach });
        Ok(Authority { actor, origin, user })
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
        rpc: &str,
        caller: &Caller,
        context: &CallContext,
        stake: Stake,
    ) -> Result<Authority, ServiceError> {
        // First without locks: whoever may not call this keeps nobody waiting.
        let by = self.authorize(tx, rpc, caller, context).await?;
        let Some(CallingUser { holder, .. }) = by.user else { return Ok(by) };
        let TokenHolder { tenant_id, user_id, session_id } = holder;
        let tenant = storage::tenants::ask_locked(tx, tenant_id, stake.tenant).await?;
        if let Some((target, lock)) = stake.user {
            if user_id < target {
                storage::users::lock(tx, tenant_id, user_id, UserLock::Keep).await?;
            }
            storage::users::lock(tx, tenant_id, target, lock).await?;
        }
        let standing = storage::users::ask_standing_kept(tx, tenant_id, session_id, user_id).await?;
        tenant.receive(tx).await?.ok_or(ServiceError::TokenInvalid)?;
        let standing = standing.receive(tx).await?.ok_or(ServiceError::TokenInvalid)?;
        self.require_open(&standing)?;
        let reach = reach_of(rpc, standing.role)?;
        Ok(Authority { user: Some(CallingUser { holder, role: standing.role, reach }), ..by })
    }
}

/// How far a user of `role` reaches in `rpc`.
fn reach_of(rpc: &str, role: Role) -> Result<Reach, ServiceError> {
    let reach = access::access(rpc).map_or(Reach::Denied, |access| access.of(role));
    if reach == Reach::Denied { Err(ServiceError::RoleTooLow) } else { Ok(reach) }
}
