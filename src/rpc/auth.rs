//! Who is calling.

use std::net::IpAddr;

use tonic::{Request, Status};

use crate::domain::FieldViolation;
use crate::service::access::{self, Access};
use crate::service::{CallContext, Caller, Service, ServiceError, ServiceIdentity};

use super::call::{self, CertifiedPeer};
use super::status;

/// The metadata that carries a service's token.
const SERVICE_TOKEN: &str = "x-identity-service-token";

/// The caller of `rpc`, let through its door, and what the call is made under.
///
/// Where everybody may call, an access token is not looked at: an outdated one must not keep anyone
/// from logging in. A service's credential always is, since a service that is not known must not go on
/// unnoticed.
///
/// # Errors
/// UNAUTHENTICATED, always the same, when the RPC wants a user and the metadata `authorization` is
/// missing, given twice, of another form than `Bearer <token>` (RFC 6750, 2.1), or holds anything
/// but a token of this service that is in force; and, with a reason of its own, when a service token is
/// not in force. PERMISSION_DENIED when the caller, or the service that calls for it, may not call this.
/// INVALID_ARGUMENT when a service states what is no address or no device.
pub(super) async fn caller<T: Sync>(
    service: &Service,
    rpc: &str,
    request: &Request<T>,
) -> Result<(Caller, CallContext), Status> {
    let identity = calling_service(service, request).await?;
    if let Some(identity) = &identity {
        access::admit_service(rpc, identity).map_err(status::from_service)?;
    }
    let name = identity.map(|identity| identity.name);
    let user = match access::access(rpc).is_some_and(Access::looks_at_users) {
        true => calling_user(service, request)?,
        false => None,
    };
    let caller = user.or_else(|| name.clone().map(Caller::Service)).unwrap_or(Caller::Anonymous);
    access::admit(rpc, &caller).map_err(status::from_service)?;
    let context = call::context(request, &caller, name).map_err(status::invalid_fields)?;
    Ok((caller, context))
}

/// What a caller of an RPC for users is told whose request breaks a rule: first of all that the session
/// has ended, when it has. A request in order needs no such look at the database, since the query that
/// does its work finds that out as well.
pub(super) async fn invalid_fields(
    service: &Service,
    caller: &Caller,
    context: &CallContext,
    violations: Vec<FieldViolation>,
) -> Status {
    match service.require_session(caller, context).await {
        Ok(()) => status::invalid_fields(violations),
        Err(error) => failed(service, error),
    }
}

/// What the caller of a method that limits or the hasher may refuse is told of an error. Such refusals are
/// counted for the audit log.
pub(super) fn refused(service: &Service, source: Option<IpAddr>) -> impl FnOnce(ServiceError) -> Status {
    move |error| {
        service.note_refusal(&error, source);
        failed(service, error)
    }
}

/// What the caller is told of an error. Outages are counted for the log.
fn failed(service: &Service, error: ServiceError) -> Status {
    service.note_outage(&error);
    status::from_service(error)
}

/// The user that the request's metadata names, if it names one.
fn calling_user<T>(service: &Service, request: &Request<T>) -> Result<Option<Caller>, Status> {
    let mut values = request.metadata().get_all("authorization").iter();
    let (value, second) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if second.is_some() {
        return Err(status::token_invalid());
    }
    let token = value.to_str().ok().and_then(bearer).ok_or_else(status::token_invalid)?;
    service.authenticate(token).map(Some).map_err(status::from_service)
}

/// The service that the request's metadata names, or else the certificate of its connection, if either
/// does. A token says what it may be used for, so it goes first.
async fn calling_service<T: Sync>(
    service: &Service,
    request: &Request<T>,
) -> Result<Option<ServiceIdentity>, Status> {
    let mut values = request.metadata().get_all(SERVICE_TOKEN).iter();
    let (value, second) = (values.next(), values.next());
    let Some(value) = value else {
        return Ok(request
            .extensions()
            .get::<CertifiedPeer>()
            .map(|peer| ServiceIdentity::certified(&peer.0)));
    };
    if second.is_some() {
        return Err(status::service_credential_invalid());
    }
    let token = value.to_str().map_err(|_| status::service_credential_invalid())?;
    let identity = service.authenticate_service(token, call::peer(request)).await;
    identity.map(Some).map_err(|error| failed(service, error))
}

/// The token of `Bearer <token>`; the scheme in any case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for value in ["", "abc", "Basic abc", "Bearerabc", "Bearer\tabc"] {
            assert_eq!(bearer(value), None, "{value:?}");
        }
    }
}
