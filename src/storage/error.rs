//! Why storage could not do what it was asked. That a row is absent, or taken, is no error: queries
//! say so in what they return.

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::postgres::{ConnectError, ServerError, SqlState};
use crate::budget::Refused;

/// A failure of the database, or of what it holds.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The database cannot be reached, is too slow, or refuses work for now; whether a statement
    /// that was under way took effect is unknown. Trying again later helps.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A migration changed the columns that a prepared statement returns. The unit of work did nothing; tried
    /// again, it finds the statement prepared anew.
    #[error("a prepared statement is stale: {0}")]
    Stale(String),
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
    /// wrongly: a fault of this program, of its settings or of the database's. Waiting does not help.
    #[error("the database refused a statement: {0}")]
    Refused(String),
    /// The database answers, and is not one that this program can work with. Waiting does not help.
    #[error("{0}")]
    Unsuitable(String),
}

impl StorageError {
    /// Whether trying again may help.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Stale(_) | Self::Busy { .. } => true,
            Self::Corrupt(_) | Self::Refused(_) | Self::Unsuitable(_) => false,
        }
    }

    /// What the failure of a statement means, `server` being the error that PostgreSQL sent, if it did.
    pub(super) fn of_statement(error: DieselError, server: Option<ServerError>) -> Self {
        match (&error, server) {
            (DieselError::DatabaseError(_, information), Some(ServerError { state, is_stale_plan })) => {
                let cause = format!("{} (SQLSTATE {state})", information.message());
                match (is_stale_plan, state.passes()) {
                    (true, _) => Self::Stale(cause),
                    (false, true) => Self::Unavailable(cause),
                    (false, false) => Self::Refused(cause),
                }
            }
            _ => error.into(),
        }
    }
}

impl From<ConnectError> for StorageError {
    fn from(error: ConnectError) -> Self {
        let cause = error.to_string();
        if error.passes() { Self::Unavailable(cause) } else { Self::Unsuitable(cause) }
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
                // Lost connections, a full disk and a busy SQLite file all arrive as these, without a code.
                _ if is_fault_of_sql(information.message()) => {
                    Self::Refused(information.message().to_owned())
                }
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

/// Whether SQLite says that the schema is not the one that a statement was written for.
fn is_fault_of_sql(message: &str) -> bool {
    ["no such table", "no such column", "no such function", "has no column named", "syntax error"]
        .iter()
        .any(|fault| message.contains(fault))
}

/// Whether the database refuses every write for now: it has no room, is no primary, or may only be read.
#[expect(clippy::wildcard_enum_match_arm, reason = "diesel's errors may grow; the others say nothing of it")]
pub(super) fn refuses_writes(error: &DieselError, server: Option<ServerError>) -> bool {
    let information = match error {
        DieselError::DatabaseError(_, information) => information,
        // SQLite has rolled back by itself then.
        DieselError::RollbackErrorOnCommit { commit_error, .. } => {
            return refuses_writes(commit_error, server);
        }
        _ => return false,
    };
    match server {
        Some(ServerError { state, .. }) => matches!(state, SqlState::READ_ONLY | SqlState::DISK_FULL),
        // SQLite's words. The third is for all that the system refuses but for a full disk: a quota or a limit that
        // is reached, a medium that is broken or gone.
        None => ["attempt to write a readonly database", "database or disk is full", "disk I/O error"]
            .iter()
            .any(|refusal| information.message().contains(refusal)),
    }
}
