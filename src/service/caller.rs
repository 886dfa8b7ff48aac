//! Who is calling, and under which terms.

use std::net::IpAddr;
use std::time::Instant;

use crate::crypto::hasher::Terms;
use crate::domain::{
    Action, Actor, AllowedRpcs, AuditEvent, AuditOrigin, EndUser, Party, ServiceName, SessionId, SpiffeId,
    TenantId, Timestamp, UserId,
};

use super::{Service, ServiceError};

/// Who is calling, as far as the caller's credentials tell. Whether the session behind them is
/// still open is the database's to say: each use case asks it in the query that it makes anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// The holder of an access token whose signature and claims hold.
    User(TokenHolder),
    /// Another service of the company, on nobody's behalf in particular.
    Service(ServiceName),
}

/// A service whose credential was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// What it is called.
    pub name: ServiceName,
    /// What it may call, of what services may call at all.
    pub allowed: AllowedRpcs,
}

/// Whom an access token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHolder {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// The session that the token belongs to.
    pub session_id: SessionId,
}

impl ServiceIdentity {
    /// The service that a certificate names. It may call whatever services may.
    pub fn certified(id: &SpiffeId) -> Self {
        Self { name: id.into(), allowed: AllowedRpcs::All }
    }
}

impl Caller {
    /// The user behind the call.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when there is none.
    pub(super) fn holder(&self) -> Result<&TokenHolder, ServiceError> {
        match self {
            Self::Anonymous | Self::Service(_) => Err(ServiceError::TokenInvalid),
            Self::User(holder) => Ok(holder),
        }
    }

    /// Whether this is the user `id` of their own tenant.
    pub(super) fn is_user(&self, id: UserId) -> bool {
        matches!(self, Self::User(holder) if holder.user_id == id)
    }
}

/// What a use case is told about the call that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    /// When the caller stops waiting, if that is known. Work that cannot end by then is refused at
    /// once.
    pub deadline: Option<Instant>,
    /// The address that the call came from, if that is known: the end user's where a service states it.
    pub source: Option<IpAddr>,
    /// Whose share of each budget the call takes.
    pub party: Party,
    /// On whose behalf a service calls. Nobody else is believed.
    pub end_user: EndUser,
    /// The service that calls, be it for itself or for a user.
    pub service: Option<ServiceName>,
    /// The call's `x-request-id`, if it has one.
    pub request_id: Option<String>,
}

impl CallContext {
    /// What the audit log says of the call.
    pub(super) fn origin(&self) -> AuditOrigin {
        AuditOrigin {
            request_id: self.request_id.clone(),
            source: self.source.map(|address| address.to_string()),
        }
    }

    /// What the service that calls is called.
    pub(super) fn via(&self) -> Option<String> {
        self.service.as_ref().map(|name| name.as_str().to_owned())
    }

    /// An event of now in this call, by nobody in particular.
    pub(super) fn event(&self, now: Timestamp, tenant_id: Option<TenantId>, action: Action) -> AuditEvent {
        let event = AuditEvent::new(now, tenant_id, Actor::Anonymous { via: self.via() }, action);
        AuditEvent { origin: self.origin(), ..event }
    }

    /// An event of now in this call, by a user.
    pub(super) fn event_by(
        &self,
        (tenant_id, id): (TenantId, UserId),
        now: Timestamp,
        action: Action,
    ) -> AuditEvent {
        let actor = Actor::User { id, via: self.via() };
        AuditEvent { actor, ..self.event(now, Some(tenant_id), action) }
    }

    /// The terms of hashing a password in this call.
    pub(super) fn terms(&self) -> Terms {
        Terms { deadline: self.deadline, party: self.party }
    }
}

impl Service {
    /// Who holds this access token.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] for any text that is not a token of this service, in force now.
    pub(super) fn authenticate(&self, access_token: &str) -> Result<TokenHolder, ServiceError> {
        let claims = self
            .0
            .access_tokens
            .verify(access_token, self.0.clock.now())
            .map_err(|_| ServiceError::TokenInvalid)?;
        Ok(TokenHolder {
            tenant_id: claims.tenant_id,
            user_id: claims.user_id,
            session_id: claims.session_id,
        })
    }
}
