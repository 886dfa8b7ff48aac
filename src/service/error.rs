//! Why a use case did not do what it was asked.

use std::time::Duration;

use crate::crypto::hasher::HashError;
use crate::domain::FieldViolation;
use crate::storage::StorageError;

/// The refusals and failures of all use cases. Each turns into one status in `rpc`.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A request id was used before, with other content.
    #[error("the request id was used with other content")]
    RequestIdReused,
    /// The e-mail is another user's login name.
    #[error("the e-mail is taken")]
    EmailTaken,
    /// The external id is another user's of the tenant.
    #[error("the external id is taken")]
    ExternalIdTaken,
    /// The e-mail or the password is wrong, or the user may not log in.
    #[error("the login failed")]
    LoginFailed,
    /// No access token, or one that does not (or no longer) stand for an open session.
    #[error("the access token is not valid")]
    TokenInvalid,
    /// A field breaks a rule that only the stored data can tell.
    #[error("a field is invalid")]
    FieldInvalid(FieldViolation),
    /// Fields of the request break rules.
    #[error("some fields are invalid")]
    FieldsInvalid(Vec<FieldViolation>),
    /// Not the latest refresh token of an open session.
    #[error("the refresh token is not valid")]
    RefreshTokenInvalid,
    /// No service token, or one that is not (or no longer) in force.
    #[error("the service token is not valid")]
    ServiceCredentialInvalid,
    /// The caller is known, and may not do this.
    #[error("the caller may not do this")]
    PermissionDenied,
    /// The caller has no such session.
    #[error("no such session")]
    SessionNotFound,
    /// The caller's tenant has no such user.
    #[error("no such user")]
    UserNotFound,
    /// The caller's role is below what the use case, or its target, asks for.
    #[error("the caller's role is too low")]
    RoleTooLow,
    /// There is no such tenant for the caller.
    #[error("no such tenant")]
    TenantNotFound,
    /// The tenant would be left without an active owner.
    #[error("the tenant would have no owner left")]
    LastOwner,
    /// Somebody changed it since the caller read it.
    #[error("the etag is not the current one")]
    EtagStale,
    /// Too many password checks failed.
    #[error("too many password checks failed")]
    TooManyAttempts {
        /// When the oldest of them is forgotten.
        retry_after: Duration,
    },
    /// Too many service tokens of this source were looked up in vain.
    #[error("too many service tokens are not in force")]
    TooManyServiceTokens {
        /// When the oldest of them is forgotten.
        retry_after: Duration,
    },
    /// Registration is closed to this caller.
    #[error("registration is closed")]
    RegistrationClosed,
    /// Too many registrations by this source, or too many that failed on a taken e-mail.
    #[error("too many registrations")]
    TooManyRegistrations {
        /// When the oldest of them is forgotten.
        retry_after: Duration,
    },
    /// Too many passwords wait to be hashed, or too many calls wait for the database.
    #[error("too many calls wait already")]
    Overloaded {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The user, the tenant or the service has changed too much lately.
    #[error("too many changes")]
    TooManyChanges {
        /// When there is room for another change.
        retry_after: Duration,
    },
    /// Storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// A fault of this program, or stored data that it cannot read.
    #[error("{0}")]
    Fault(String),
}

impl From<StorageError> for ServiceError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Busy { retry_after } => Self::Overloaded { retry_after },
            StorageError::Unavailable(_)
            | StorageError::Stale(_)
            | StorageError::Corrupt(_)
            | StorageError::Refused(_)
            | StorageError::Unsuitable(_) => Self::Storage(error),
        }
    }
}

impl From<HashError> for ServiceError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            HashError::Stopped => Self::Stopping,
            HashError::Unreadable => Self::Fault("a stored password hash cannot be read".into()),
        }
    }
}
