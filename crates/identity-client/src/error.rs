//! Why a call failed.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::proto::ErrorReason;

/// The `domain` of every google.rpc.ErrorInfo that the service sends.
const DOMAIN: &str = "identity";

/// A call that failed: what for, in [`Error::kind`], and the gRPC status that says so.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    status: Status,
}

/// What a call failed for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The e-mail or the password is wrong, or the user may not log in. Which of these is not told.
    LoginFailed,
    /// No access token, or one that is not in force (any more).
    TokenInvalid,
    /// Not the latest refresh token of an open session: the user has to log in again.
    RefreshTokenInvalid,
    /// The service token of the configuration is wrong, expired or revoked.
    ServiceCredentialInvalid,
    /// The caller is known, and may not call this method.
    PermissionDenied,
    /// The caller's role is below what the method or its target asks for.
    RoleTooLow,
    /// Registration is closed, or open to services only.
    RegistrationClosed,
    /// There is no such user among those that the caller may see.
    UserNotFound,
    /// There is no such tenant among those that the caller may see.
    TenantNotFound,
    /// The tenant would be left without an active owner.
    LastOwner,
    /// The etag is not the current one: read again, then decide again.
    EtagStale,
    /// The caller has no such session.
    SessionNotFound,
    /// The e-mail belongs to a user already.
    EmailTaken,
    /// The external id belongs to a user of the tenant already.
    ExternalIdTaken,
    /// Fields that break a rule, all of them.
    InvalidFields(Vec<InvalidField>),
    /// The request id was used before with other content.
    RequestIdReused,
    /// Too many wrong passwords were given; see [`Error::retry_after`].
    TooManyAttempts,
    /// Too many registrations by this source; see [`Error::retry_after`].
    TooManyRegistrations,
    /// The user, the tenant or the calling service has changed too much lately; see [`Error::retry_after`].
    TooManyChanges,
    /// More calls wait than can be served, or this caller has had its share; see [`Error::retry_after`].
    Overloaded,
    /// The service cannot be reached, is starting or stopping, or has lost its database.
    Unavailable,
    /// There was no answer in time. What was asked for may have happened.
    DeadlineExceeded,
    /// Anything else: a fault of the service, or of this crate's use. [`Error::status`] says more.
    Other,
}

/// A field of a request that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// The field's name in the contract, such as `email`.
    pub name: String,
    /// What is wrong with it, in English.
    pub description: String,
}

impl Error {
    /// What the call failed for.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// After which time the service suggests to try again, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        self.status.get_details_retry_info()?.retry_delay
    }

    /// Names the call in the service's log; not there when the service was not reached.
    pub fn request_id(&self) -> Option<&str> {
        self.status.metadata().get("x-request-id")?.to_str().ok()
    }

    /// The status that the call ended with.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether the same call may succeed a moment later, as far as the failure tells: whether the call
    /// itself may be repeated is another question.
    pub(crate) fn may_pass(&self) -> bool {
        let code = self.status.code();
        let is_invited = code == Code::ResourceExhausted && self.retry_after().is_some();
        is_invited || code == Code::Unavailable || self.kind == ErrorKind::Unavailable
    }

    pub(crate) fn deadline_exceeded() -> Self {
        Status::deadline_exceeded("there was no answer in time").into()
    }

    /// An answer that the contract rules out.
    pub(crate) fn strange_answer(what: &str) -> Self {
        Status::internal(what).into()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self { kind: kind(&status), status }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.status.code(), self.status.message())?;
        if let ErrorKind::InvalidFields(fields) = &self.kind {
            for (index, field) in fields.iter().enumerate() {
                let separator = if index == 0 { " " } else { "; " };
                write!(f, "{separator}{} {}", field.name, field.description)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.status.source()
    }
}

fn kind(status: &Status) -> ErrorKind {
    let code = status.code();
    match reason(status) {
        Some(reason) => kind_of_reason(reason, status),
        // From a proxy, or from this side of the connection.
        None if code == Code::DeadlineExceeded || gave_up(status) => ErrorKind::DeadlineExceeded,
        None if code == Code::Unavailable || is_broken_connection(status) => ErrorKind::Unavailable,
        None => ErrorKind::Other,
    }
}

fn kind_of_reason(reason: ErrorReason, status: &Status) -> ErrorKind {
    match reason {
        ErrorReason::InvalidFields => ErrorKind::InvalidFields(invalid_fields(status)),
        ErrorReason::RequestIdReused => ErrorKind::RequestIdReused,
        ErrorReason::LoginFailed => ErrorKind::LoginFailed,
        ErrorReason::TokenInvalid => ErrorKind::TokenInvalid,
        ErrorReason::RefreshTokenInvalid => ErrorKind::RefreshTokenInvalid,
        ErrorReason::ServiceCredentialInvalid => ErrorKind::ServiceCredentialInvalid,
        ErrorReason::UserNotFound => ErrorKind::UserNotFound,
        ErrorReason::SessionNotFound => ErrorKind::SessionNotFound,
        ErrorReason::EmailTaken => ErrorKind::EmailTaken,
        ErrorReason::ExternalIdTaken => ErrorKind::ExternalIdTaken,
        ErrorReason::PermissionDenied => ErrorKind::PermissionDenied,
        ErrorReason::RoleTooLow => ErrorKind::RoleTooLow,
        ErrorReason::TenantNotFound => ErrorKind::TenantNotFound,
        ErrorReason::LastOwner => ErrorKind::LastOwner,
        ErrorReason::EtagStale => ErrorKind::EtagStale,
        ErrorReason::RegistrationClosed => ErrorKind::RegistrationClosed,
        ErrorReason::TooManyAttempts => ErrorKind::TooManyAttempts,
        ErrorReason::TooManyRegistrations => ErrorKind::TooManyRegistrations,
        ErrorReason::TooManyChanges => ErrorKind::TooManyChanges,
        ErrorReason::Overloaded => ErrorKind::Overloaded,
        ErrorReason::Unavailable => ErrorKind::Unavailable,
        ErrorReason::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        ErrorReason::Unspecified
        | ErrorReason::MalformedMessage
        | ErrorReason::MalformedDeadline
        | ErrorReason::MessageTooLarge
        | ErrorReason::HeadersTooLarge
        | ErrorReason::UnknownMethod
        | ErrorReason::Internal => ErrorKind::Other,
    }
}

/// The service's own word; `None` for one that this version does not know, too.
fn reason(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}

fn invalid_fields(status: &Status) -> Vec<InvalidField> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let field = |violation: tonic_types::FieldViolation| InvalidField {
        name: violation.field,
        description: violation.description,
    };
    violations.into_iter().map(field).collect()
}

/// Whether the connection failed: what a server sends has no source, and so has no message that cannot be
/// decoded.
fn is_broken_connection(status: &Status) -> bool {
    status.source().is_some() && !gave_up(status)
}

/// Whether tonic ended the call at its deadline, which it calls CANCELLED.
fn gave_up(status: &Status) -> bool {
    let mut causes = std::iter::successors(status.source(), |&error| error.source());
    causes.any(|error| error.is::<TimeoutExpired>())
}
