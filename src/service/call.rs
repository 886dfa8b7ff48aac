//! The one way into a use case: what a request presents becomes a [`Call`], or the request is refused.

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Instant;

use super::access::{Access, Reach, Rpc};
use super::caller::{CallContext, Caller, ServiceIdentity, TokenHolder};
use super::{Service, ServiceError};
use crate::domain::{EndUser, FieldViolation, Party, Source, SpiffeId};

/// A credential in a request.
#[derive(Clone, Copy, Debug, Default)]
pub enum Credential<'r> {
    /// There is none.
    #[default]
    Absent,
    /// There are several, or one that is not of the form that it should have.
    Malformed,
    /// The text of a token.
    Text(&'r str),
}

/// What a request presents beside its message.
#[derive(Debug)]
pub struct Presented<'r> {
    /// Proves which user calls.
    pub access_token: Credential<'r>,
    /// Proves which service calls.
    pub service_token: Credential<'r>,
    /// The service that the certificate of the connection names.
    pub certificate: Option<&'r SpiffeId>,
    /// The address of the other end of the connection.
    pub peer: Option<IpAddr>,
    /// On whose behalf the call is made, if a service makes it.
    pub end_user: Result<EndUser, Vec<FieldViolation>>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The call's `x-request-id`.
    pub request_id: Option<&'r str>,
}

impl Default for Presented<'_> {
    /// Nothing at all.
    fn default() -> Self {
        Self {
            access_token: Credential::Absent,
            service_token: Credential::Absent,
            certificate: None,
            peer: None,
            end_user: Ok(EndUser::default()),
            deadline: None,
            request_id: None,
        }
    }
}

/// A call that may start a use case: which RPC, who calls, and under which terms. Only [`Service::admit`] makes one.
///
/// Which role a user has only the database knows. So a use case that is not open to everybody asks for an
/// [`Authority`](super::Authority) in the unit of work that does its job.
#[derive(Clone, Debug)]
pub struct Call {
    rpc: Rpc,
    caller: Caller,
    context: CallContext,
}

impl Call {
    /// Which RPC is called.
    pub(super) fn rpc(&self) -> Rpc {
        self.rpc
    }

    /// Who calls.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The user who calls.
    ///
    /// # Errors
    /// [`ServiceError::TokenInvalid`] when no user calls.
    pub(super) fn holder(&self) -> Result<&TokenHolder, ServiceError> {
        self.caller.holder()
    }
}

impl Deref for Call {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.context
    }
}

impl Service {
    /// Admits a request to the use case of `rpc`, as far as that can be told without the caller's role.
    ///
    /// A service's credential is always looked at, since a service that is not known must not go on unnoticed.
    ///
    /// # Errors
    /// [`ServiceError::ServiceCredentialInvalid`] and [`ServiceError::TooManyServiceTokens`] of a service's token;
    /// [`ServiceError::TokenInvalid`] when the RPC wants to know who calls, and nothing proves it;
    /// [`ServiceError::PermissionDenied`] when no caller of that kind may call it, or the service's token does not
    /// allow it; [`ServiceError::FieldsInvalid`] when a service states what is no address or no device.
    pub async fn admit(&self, rpc: Rpc, request: Presented<'_>) -> Result<Call, ServiceError> {
        let access = self.0.access.of(rpc);
        let service = self.calling_service(&request).await?;
        if service.as_ref().is_some_and(|service| !service.allowed.contain(rpc.name())) {
            return Err(ServiceError::PermissionDenied);
        }
        let service = service.map(|service| service.name);
        let user = match access {
            Access::Open => None,
            Access::Limited { .. } => self.calling_user(request.access_token)?,
        };
        let caller = match (user, &service) {
            (Some(user), _) => Caller::User(user),
            (None, Some(service)) => Caller::Service(service.clone()),
            (None, None) => Caller::Anonymous,
        };
        match &caller {
            Caller::Anonymous if access != Access::Open => return Err(ServiceError::TokenInvalid),
            Caller::User(_) if !access.admits_users() => return Err(ServiceError::PermissionDenied),
            Caller::Service(_) if access.of_services() == Reach::Denied => {
                return Err(ServiceError::PermissionDenied);
            }
            Caller::Anonymous | Caller::User(_) | Caller::Service(_) => {}
        }
        // Anybody else could state anything.
        let end_user = match service {
            Some(_) => request.end_user.map_err(ServiceError::FieldsInvalid)?,
            None => EndUser::default(),
        };
        let source = end_user.address.or(request.peer);
        let party = match &caller {
            Caller::User(user) if end_user.address.is_none() => Party::User(user.tenant_id, user.user_id),
            Caller::User(_) | Caller::Service(_) | Caller::Anonymous => Party::Address(Source::of(source)),
        };
        let (deadline, request_id) = (request.deadline, request.request_id.map(str::to_owned));
        let context = CallContext { deadline, source, party, end_user, service, request_id };
        Ok(Call { rpc, caller, context })
    }

    /// What a caller is told whose request breaks a rule: that first which the use case would find out first. A
    /// request in order needs no such look at the database.
    pub async fn fields_invalid(&self, call: &Call, violations: Vec<FieldViolation>) -> ServiceError {
        let refusal = match call.caller() {
            Caller::Anonymous | Caller::Service(_) => Ok(()),
            Caller::User(_) => self.require_authority(call).await,
        };
        refusal.err().unwrap_or(ServiceError::FieldsInvalid(violations))
    }

    async fn require_authority(&self, call: &Call) -> Result<(), ServiceError> {
        let mut conn = self.reader(call).await?;
        self.authorize(&mut conn, call).await.map(drop)
    }

    /// The service that a token names, or else the certificate of the connection. A token says what it may be used
    /// for, so it goes first.
    async fn calling_service(
        &self,
        request: &Presented<'_>,
    ) -> Result<Option<ServiceIdentity>, ServiceError> {
        match request.service_token {
            Credential::Absent => Ok(request.certificate.map(ServiceIdentity::certified)),
            Credential::Malformed => Err(ServiceError::ServiceCredentialInvalid),
            Credential::Text(token) => {
                let peer = Party::Address(Source::of(request.peer));
                self.authenticate_service(token, peer).await.map(Some)
            }
        }
    }

    fn calling_user(&self, credential: Credential<'_>) -> Result<Option<TokenHolder>, ServiceError> {
        match credential {
            Credential::Absent => Ok(None),
            Credential::Malformed => Err(ServiceError::TokenInvalid),
            Credential::Text(token) => self.authenticate(token).map(Some),
        }
    }
}
