//! Why storage could not do what it was asked. That a row is absent, or taken, is no error: queries
//! say so in what they return.

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::budget::Refused;

/// A failure of the database, or of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database cannot be reached, is too slow, or refuses work for now; whether a statement
    /// that was under way took effect is unknown. Trying again later helps.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Too many calls want a connection of the same lane. Nothing was begun; trying again later helps.
    #[error("too many calls wait for the database")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A stored row breaks a rule that writing it should have kept.
    #[error("stored data makes no sense: {0}")]
    Corrupt(String),
    /// The database refused a statement by a rule of the schema, or a migration, or something is set up
    /// wrongly: a fault of this program or of its settings.
    #[error("the database refused a statement: {0}")]
    Refused(String),
}

impl StorageError {
    /// What happened, without what it means for the caller.
    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Unavailable(cause) | Self::Corrupt(cause) | Self::Refused(cause) => cause,
            Self::Busy { .. } => "too many calls wait",
        }
    }
}

impl From<Refused> for StorageError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy { retry_after } => Self::Busy { retry_after },
            Refused::Closed => Self::Unavailable("the database was closed".into()),
        }
    }
}

impl From<DieselError> for StorageError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "diesel's errors may grow; what is not known to pass is a refusal, or for the database to tell"
    )]
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(kind, information) => match kind {
                DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation
                | DatabaseErrorKind::RestrictViolation
                | DatabaseErrorKind::ExclusionViolation => Self::Refused(information.message().to_owned()),
                // Lost connections, shutdowns, time limits, a full disk and a busy SQLite file all
                // arrive as these; the driver keeps no code to tell them apart.
                _ => Self::Unavailable(information.message().to_owned()),
            },
            DieselError::DeserializationError(_) => Self::Corrupt(error.to_string()),
            DieselError::BrokenTransactionManager | DieselError::RollbackErrorOnCommit { .. } => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}
