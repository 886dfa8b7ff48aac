//! Why PostgreSQL could not be reached.

use std::io;

use super::SqlState;

/// Why no connection was opened, by cause. No message holds a password or the server's own words.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there.
    #[error("the database server refuses connections")]
    Refused,
    /// The host's name leads nowhere, or the network does not reach it.
    #[error("the database server cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// No answer in time.
    #[error("the database server did not answer in time")]
    Timeout,
    /// The server hung up, or sent what is no PostgreSQL protocol.
    #[error("the database server broke off the connection")]
    BrokenOff,
    /// No TLS where it is required, or no certificate that is valid.
    #[error("no TLS connection to the database server: {0}")]
    Tls(String),
    /// The file or store of trusted certificates gives none.
    #[error("no trusted certificates for the database server: {0}")]
    RootCertificates(String),
    /// Wrong user or password, or a rule of `pg_hba.conf`.
    #[error("the database server does not let this user in")]
    Authentication,
    /// No such database.
    #[error("the database server has no database of this name")]
    NoSuchDatabase,
    /// Starting, stopping or full; trying again helps.
    #[error("the database server takes no connection now (SQLSTATE {0})")]
    NotNow(String),
    /// None of the hosts is what `target_session_attrs` asks for.
    #[error("no database server accepts the kind of session that target_session_attrs asks for")]
    SessionAttributes,
    /// A pooler does not pass on what `options` asks for.
    #[error(
        "a pooler in front of the database server refuses `options`: leave the parameter out of the URL, and make \
         such settings those of the role (ALTER ROLE ... SET ...)"
    )]
    Options,
    /// Any other refusal by the server.
    #[error("the database server refused the session (SQLSTATE {0})")]
    Server(String),
    /// The connection was opened and failed while its time zone and encoding were set.
    #[error("the database server closed the session as it started")]
    Session,
}

impl ConnectError {
    /// Sorts the driver's error, whose own message names the step only.
    pub(super) fn from_driver(error: tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            // PgBouncer has one code for all of its refusals.
            return match error.code().code() {
                "08P01" if error.message().starts_with("unsupported startup parameter") => Self::Options,
                code => Self::from_state(code),
            };
        }
        // The driver hides the kind of its errors except in their text.
        let step = error.to_string();
        let cause = error.into_source();
        match step.as_str() {
            // The latter when the server asks for a password and the URL has none.
            "authentication error" | "invalid configuration" => Self::Authentication,
            _ => cause
                .and_then(|cause| cause.downcast::<io::Error>().ok())
                .map_or(Self::BrokenOff, |error| Self::from_io(*error)),
        }
    }

    /// Whether trying again may help, as it does once a server has started or a password was rotated.
    pub(in crate::storage) fn passes(&self) -> bool {
        match self {
            Self::Refused
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::BrokenOff
            | Self::Tls(_)
            | Self::Authentication
            | Self::NotNow(_)
            | Self::SessionAttributes
            | Self::Session => true,
            Self::RootCertificates(_) | Self::NoSuchDatabase | Self::Options => false,
            Self::Server(code) => SqlState::parse(code).is_none_or(SqlState::passes),
        }
    }

    fn from_state(code: &str) -> Self {
        match code {
            "28000" | "28P01" => Self::Authentication,
            "3D000" => Self::NoSuchDatabase,
            // Too many connections, shutting down, crashed, starting up (PostgreSQL, appendix A).
            "53300" | "57P01" | "57P02" | "57P03" => Self::NotNow(code.to_owned()),
            _ => Self::Server(code.to_owned()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::BrokenOff,
            _ => Self::Unreachable(error),
        }
    }
}
