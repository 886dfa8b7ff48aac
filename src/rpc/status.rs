//! The one place that builds error statuses.
//!
//! Each carries google.rpc.ErrorInfo with the domain `identity` and a reason of
//! `error_reason.proto`, whose comments say which code belongs to which reason. The texts are fixed
//! sentences: nothing of a request, of storage or of a cause gets into them.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetail, ErrorInfo, RetryInfo, StatusExt as _};

use crate::domain::FieldViolation;
use crate::proto::v1::ErrorReason;
use crate::service::{ServiceError, StorageError};

/// The `domain` of every ErrorInfo that this service sends.
pub const DOMAIN: &str = "identity";

pub use crate::domain::RETRY_SOON;

/// What a caller is told of `error`. Failures of the service itself are logged here; the caller
/// learns that there was one, and its request id leads to the line.
pub fn from_service(error: ServiceError) -> Status {
    match error {
        ServiceError::RequestIdReused => request_id_reused(),
        ServiceError::EmailTaken => email_taken(),
        ServiceError::ExternalIdTaken => external_id_taken(),
        ServiceError::LoginFailed => login_failed(),
        ServiceError::TokenInvalid => token_invalid(),
        ServiceError::FieldInvalid(violation) => invalid_fields(vec![violation]),
        ServiceError::FieldsInvalid(violations) => invalid_fields(violations),
        ServiceError::RefreshTokenInvalid => refresh_token_invalid(),
        ServiceError::ServiceCredentialInvalid => service_credential_invalid(),
        ServiceError::PermissionDenied => permission_denied(),
        ServiceError::SessionNotFound => session_not_found(),
        ServiceError::UserNotFound => user_not_found(),
        ServiceError::RoleTooLow => role_too_low(),
        ServiceError::TenantNotFound => tenant_not_found(),
        ServiceError::LastOwner => last_owner(),
        ServiceError::EtagStale => etag_stale(),
        ServiceError::TooManyAttempts { retry_after } => too_many_attempts(retry_after),
        ServiceError::TooManyServiceTokens { retry_after } => too_many_service_tokens(retry_after),
        ServiceError::RegistrationClosed => registration_closed(),
        ServiceError::TooManyRegistrations { retry_after } => too_many_registrations(retry_after),
        ServiceError::Overloaded { retry_after } => overloaded(retry_after),
        ServiceError::TooManyChanges { retry_after } => too_many_changes(retry_after),
        ServiceError::Storage(StorageError::Busy { retry_after }) => overloaded(retry_after),
        ServiceError::Stopping => unavailable(RETRY_SOON),
        // Counted and logged by `Service::note_outage`.
        ServiceError::Storage(StorageError::Unavailable(_)) => unavailable(RETRY_SOON),
        ServiceError::Storage(StorageError::Stale(_)) => stale_statement(),
        ServiceError::Storage(
            StorageError::Corrupt(cause) | StorageError::Refused(cause) | StorageError::Unsuitable(cause),
        )
        | ServiceError::Fault(cause) => {
            tracing::error!(error = %cause, "a call failed by a fault of this service");
            internal()
        }
    }
}

/// A status with `reason` in its ErrorInfo and nothing else.
pub fn status(code: Code, reason: ErrorReason, message: &'static str) -> Status {
    build(code, reason, message, None)
}

/// INVALID_ARGUMENT: every field that breaks a rule is named in google.rpc.BadRequest.
pub fn invalid_fields(violations: Vec<FieldViolation>) -> Status {
    let violations = violations
        .into_iter()
        .map(|violation| tonic_types::FieldViolation::new(violation.field, violation.description))
        .collect::<Vec<_>>();
    build(
        Code::InvalidArgument,
        ErrorReason::InvalidFields,
        "Some fields of the request are invalid.",
        Some(BadRequest::new(violations).into()),
    )
}

/// INVALID_ARGUMENT: the message is broken protobuf, or a text in it is not UTF-8.
pub fn malformed_message() -> Status {
    status(Code::InvalidArgument, ErrorReason::MalformedMessage, "The message cannot be decoded.")
}

/// RESOURCE_EXHAUSTED without RetryInfo: the message is larger than the service reads.
pub fn message_too_large() -> Status {
    status(Code::ResourceExhausted, ErrorReason::MessageTooLarge, "The message is too large.")
}

/// RESOURCE_EXHAUSTED without RetryInfo: the headers of the call are larger than the service reads.
pub fn headers_too_large() -> Status {
    status(Code::ResourceExhausted, ErrorReason::HeadersTooLarge, "The headers of the call are too large.")
}

/// INVALID_ARGUMENT: the `request_id` was used before with other content.
pub fn request_id_reused() -> Status {
    status(
        Code::InvalidArgument,
        ErrorReason::RequestIdReused,
        "The request_id was used before with other content.",
    )
}

/// UNAUTHENTICATED: the one reply to every login that fails, whatever did not match.
pub fn login_failed() -> Status {
    status(Code::Unauthenticated, ErrorReason::LoginFailed, "The e-mail or the password is wrong.")
}

/// UNAUTHENTICATED: no access token, or one that is not valid (any more).
pub fn token_invalid() -> Status {
    status(Code::Unauthenticated, ErrorReason::TokenInvalid, "A valid access token is required.")
}

/// UNAUTHENTICATED: not the latest refresh token of an open session.
pub fn refresh_token_invalid() -> Status {
    status(
        Code::Unauthenticated,
        ErrorReason::RefreshTokenInvalid,
        "The refresh token is not valid. The user has to log in again.",
    )
}

/// UNAUTHENTICATED: the metadata `x-identity-service-token` holds no service token in force.
pub fn service_credential_invalid() -> Status {
    status(
        Code::Unauthenticated,
        ErrorReason::ServiceCredentialInvalid,
        "The metadata x-identity-service-token holds no service token in force.",
    )
}

/// PERMISSION_DENIED: the caller is known, and may not call this method.
pub fn permission_denied() -> Status {
    status(Code::PermissionDenied, ErrorReason::PermissionDenied, "The caller may not call this method.")
}

/// NOT_FOUND: the caller has no such session.
pub fn session_not_found() -> Status {
    status(Code::NotFound, ErrorReason::SessionNotFound, "There is no such session.")
}

/// NOT_FOUND: no such user among those that the caller may see.
pub fn user_not_found() -> Status {
    status(Code::NotFound, ErrorReason::UserNotFound, "There is no such user.")
}

/// PERMISSION_DENIED: the caller's role is below what the method or its target asks for.
pub fn role_too_low() -> Status {
    status(Code::PermissionDenied, ErrorReason::RoleTooLow, "The caller's role is too low for this.")
}

/// NOT_FOUND: no such tenant among those that the caller may see.
pub fn tenant_not_found() -> Status {
    status(Code::NotFound, ErrorReason::TenantNotFound, "There is no such tenant.")
}

/// FAILED_PRECONDITION: the tenant would be left without an active owner.
pub fn last_owner() -> Status {
    status(
        Code::FailedPrecondition,
        ErrorReason::LastOwner,
        "The tenant would be left without an active owner.",
    )
}

/// ABORTED: somebody changed it since the caller read it.
pub fn etag_stale() -> Status {
    status(Code::Aborted, ErrorReason::EtagStale, "The etag is not the current one. Read again first.")
}

/// ALREADY_EXISTS: the e-mail belongs to a user already.
pub fn email_taken() -> Status {
    status(Code::AlreadyExists, ErrorReason::EmailTaken, "The e-mail belongs to a user already.")
}

/// ALREADY_EXISTS: the external id belongs to a user of the tenant already.
pub fn external_id_taken() -> Status {
    status(
        Code::AlreadyExists,
        ErrorReason::ExternalIdTaken,
        "The external_id belongs to a user of the tenant already.",
    )
}

/// RESOURCE_EXHAUSTED: too many wrong passwords were given; trying again after `retry_after` may help.
pub fn too_many_attempts(retry_after: Duration) -> Status {
    build(
        Code::ResourceExhausted,
        ErrorReason::TooManyAttempts,
        "Too many wrong passwords were given. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// RESOURCE_EXHAUSTED: too many service tokens that are not in force came from this source; trying again after
/// `retry_after` may help.
pub fn too_many_service_tokens(retry_after: Duration) -> Status {
    build(
        Code::ResourceExhausted,
        ErrorReason::TooManyAttempts,
        "Too many service tokens that are not in force were given. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// PERMISSION_DENIED: registration is closed, or open to services only.
pub fn registration_closed() -> Status {
    status(Code::PermissionDenied, ErrorReason::RegistrationClosed, "Registration is closed.")
}

/// RESOURCE_EXHAUSTED: too many registrations by this source; trying again after `retry_after` may help.
pub fn too_many_registrations(retry_after: Duration) -> Status {
    build(
        Code::ResourceExhausted,
        ErrorReason::TooManyRegistrations,
        "Too many registrations. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// RESOURCE_EXHAUSTED: the user, the tenant or the service has changed too much; trying again after
/// `retry_after` may help.
pub fn too_many_changes(retry_after: Duration) -> Status {
    build(
        Code::ResourceExhausted,
        ErrorReason::TooManyChanges,
        "Too many changes. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// RESOURCE_EXHAUSTED: too many calls wait already, or the caller has had their share; trying again after
/// `retry_after` may help.
pub fn overloaded(retry_after: Duration) -> Status {
    build(
        Code::ResourceExhausted,
        ErrorReason::Overloaded,
        "The service is busy. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// DEADLINE_EXCEEDED: the deadline passed before the answer was ready. A write may have happened.
pub fn deadline_exceeded() -> Status {
    status(
        Code::DeadlineExceeded,
        ErrorReason::DeadlineExceeded,
        "The deadline passed before the answer was ready.",
    )
}

/// UNAVAILABLE: the database is away, or the service starts or stops; trying again after
/// `retry_after` may help.
pub fn unavailable(retry_after: Duration) -> Status {
    build(
        Code::Unavailable,
        ErrorReason::Unavailable,
        "The service is unavailable. Try again later.",
        Some(RetryInfo::new(Some(retry_after)).into()),
    )
}

/// UNAVAILABLE, marked for [`is_stale_statement`].
pub fn stale_statement() -> Status {
    let mut status = unavailable(RETRY_SOON);
    status.set_source(Arc::new(StaleStatement));
    status
}

/// Whether the call was answered so because a prepared statement was stale: repeating it at once helps.
pub fn is_stale_statement(status: &Status) -> bool {
    status.source().is_some_and(|source| source.is::<StaleStatement>())
}

#[derive(Debug, thiserror::Error)]
#[error("a prepared statement was stale")]
struct StaleStatement;

/// INTERNAL: a fault of the service, about which the caller learns nothing but that.
pub fn internal() -> Status {
    status(Code::Internal, ErrorReason::Internal, "The service failed to handle the call.")
}

/// INVALID_ARGUMENT: the metadata `grpc-timeout` is not of the form that gRPC defines.
pub fn malformed_deadline() -> Status {
    status(
        Code::InvalidArgument,
        ErrorReason::MalformedDeadline,
        "The metadata grpc-timeout must be 1 to 8 digits and a unit of H, M, S, m, u or n.",
    )
}

/// UNIMPLEMENTED: no such method, or no such service.
pub fn unknown_method() -> Status {
    status(Code::Unimplemented, ErrorReason::UnknownMethod, "There is no such method.")
}

/// The name of `code` in the gRPC specification, such as `NOT_FOUND`.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn build(code: Code, reason: ErrorReason, message: &str, detail: Option<ErrorDetail>) -> Status {
    let info = ErrorInfo::new(reason_name(reason), DOMAIN, HashMap::new());
    let details = [Some(info.into()), detail].into_iter().flatten();
    Status::with_error_details_vec(code, message, details)
}

/// The reason as ErrorInfo carries it: without the prefix that protobuf's scoping demands.
fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(status: &Status) -> (String, String) {
        let info = status.get_details_error_info().unwrap();
        (info.domain, info.reason)
    }

    #[test]
    fn the_reason_has_the_name_of_the_contract_without_its_prefix() {
        assert_eq!(info(&login_failed()), ("identity".to_owned(), "LOGIN_FAILED".to_owned()));
    }

    #[test]
    fn every_bad_field_is_named_in_the_order_given() {
        let status = invalid_fields(vec![
            FieldViolation { field: "email", description: "must not be empty".to_owned() },
            FieldViolation { field: "password", description: "must be longer".to_owned() },
        ]);
        assert_eq!(status.code(), Code::InvalidArgument);
        let named = status.get_details_bad_request().unwrap().field_violations;
        let named: Vec<_> = named.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
        assert_eq!(named, [("email", "must not be empty"), ("password", "must be longer")]);
        assert_eq!(info(&status).1, "INVALID_FIELDS");
    }

    #[test]
    fn only_what_may_pass_by_itself_invites_a_retry() {
        let delay = Duration::from_millis(1500);
        for status in [overloaded(delay), unavailable(delay)] {
            assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(delay));
        }
        for status in
            [message_too_large(), headers_too_large(), internal(), deadline_exceeded(), login_failed()]
        {
            assert!(status.get_details_retry_info().is_none(), "{status:?}");
        }
    }
}
