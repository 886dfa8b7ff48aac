//! Who is calling.

use tonic::{Request, Status};

use crate::domain::FieldViolation;
use crate::service::access::{self, Rule};
use crate::service::{Caller, Service};

use super::status;

/// The caller of `rpc`, let through its door. Where everybody may call, credentials are not looked
/// at: an outdated token must not keep anyone from logging in.
///
/// # Errors
/// UNAUTHENTICATED, always the same, when the RPC wants a user and the metadata `authorization` is
/// missing, given twice, of another form than `Bearer <token>` (RFC 6750, 2.1), or holds anything
/// but a token of this service that is in force.
pub(super) fn caller<T>(service: &Service, rpc: &str, request: &Request<T>) -> Result<Caller, Status> {
    let caller = match access::rule(rpc) {
        Some(Rule::Users) => named(service, request)?,
        Some(Rule::Anyone) | None => Caller::Anonymous,
    };
    access::admit(rpc, &caller).map_err(status::from_service)?;
    Ok(caller)
}

/// What a caller of an RPC for users is told whose request breaks a rule: first of all that the session
/// has ended, when it has. A request in order needs no such look at the database, since the query that
/// does its work finds that out as well.
pub(super) async fn invalid_fields(
    service: &Service,
    caller: &Caller,
    violations: Vec<FieldViolation>,
) -> Status {
    match service.require_session(caller).await {
        Ok(()) => status::invalid_fields(violations),
        Err(error) => status::from_service(error),
    }
}

/// The caller that the request's metadata names, or nobody without any.
fn named<T>(service: &Service, request: &Request<T>) -> Result<Caller, Status> {
    let mut values = request.metadata().get_all("authorization").iter();
    let (value, second) = (values.next(), values.next());
    let Some(value) = value else { return Ok(Caller::Anonymous) };
    if second.is_some() {
        return Err(status::token_invalid());
    }
    let token = value.to_str().ok().and_then(bearer).ok_or_else(status::token_invalid)?;
    service.authenticate(token).map_err(status::from_service)
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
