//! Where the database is: reads `DATABASE_URL`.
//!
//! Takes what PostgreSQL's own library takes, and what Prisma adds to it, so that the URL of an
//! existing deployment works unchanged. What has no meaning here is dropped with a warning; what asks for
//! more security than there would be is refused. Connecting is left to [`super::postgres`] and the pools.

mod target;

use std::fmt;
use std::path::{Path, PathBuf};

pub use target::{MinTlsVersion, PostgresTarget, TlsMode};

/// A database that the service can use. `Debug` and `Display` never show a password.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// One file on this machine.
    Sqlite {
        /// The file, relative to the working directory unless it starts with `/`.
        path: PathBuf,
    },
    /// A PostgreSQL server, or several that are tried in turn.
    Postgres(Box<PostgresTarget>),
}

/// Why a text is not the URL of a database that the service can use. Never quotes a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// White space around the URL or a name in it, such as the end of a line: it would name another file or
    /// database.
    #[error("must not have white space or line ends around it, or around a name in it")]
    WhiteSpace,
    /// A control character.
    #[error("must not contain control characters")]
    Control,
    /// Another scheme, or none.
    #[error("must start with postgres://, postgresql:// or sqlite:")]
    Scheme,
    /// `sqlite:` without a file name, or with that of a folder.
    #[error("must name a file after sqlite:, such as sqlite:identity.db")]
    NoFile,
    /// An SQLite database in memory.
    #[error("must name a file: a database in memory would lose every user when the server stops")]
    InMemory,
    /// A reserved character where it cannot stand for itself, most likely within the password.
    #[error("must write the characters / ? # @ in a password or a name as %2F %3F %23 %40")]
    Reserved,
    /// No host in front of the path and no `host` or `hostaddr` parameter.
    #[error("must name a host, as in postgres://user:password@host/database")]
    NoHost,
    /// A host or port that is none, or bytes that are no UTF-8.
    #[error("must be of the form postgres://user:password@host:port/database?parameter=value")]
    Malformed,
    /// More or fewer of one than of the other.
    #[error("must have as many ports and hostaddr addresses as hosts")]
    Uneven,
    /// A known parameter with a value that it does not take.
    #[error("has a wrong `{name}`: it must be {rule}")]
    Parameter {
        /// The parameter's name.
        name: &'static str,
        /// What its value must be.
        rule: &'static str,
    },
    /// A parameter that asks for security that the service cannot give.
    #[error("must not have the parameter `{name}`: {reason}")]
    Unsupported {
        /// The parameter's name.
        name: String,
        /// Why it cannot be honoured.
        reason: &'static str,
    },
}

impl DatabaseUrl {
    /// Reads a URL with the scheme `postgres`, `postgresql`, `sqlite` or `file` (Prisma's SQLite),
    /// and says, one sentence each, which of its parameters are dropped or mean something else.
    ///
    /// An SQLite path is taken literally, without percent-decoding: `sqlite:PATH`,
    /// `sqlite://PATH`, so `sqlite:///var/lib/identity.db` is absolute.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`] names the rule that `text` breaks, and never quotes it.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), InvalidDatabaseUrl> {
        if text.is_empty() {
            return Err(InvalidDatabaseUrl::Empty);
        }
        refuse_white_space_around(text)?;
        if text.contains(char::is_control) {
            return Err(InvalidDatabaseUrl::Control);
        }
        let (scheme, rest) = text.split_once(':').ok_or(InvalidDatabaseUrl::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" => {
                let rest = rest.strip_prefix("//").ok_or(InvalidDatabaseUrl::Scheme)?;
                let (target, warnings) = PostgresTarget::parse(rest)?;
                Ok((Self::Postgres(Box::new(target)), warnings))
            }
            "sqlite" | "file" => {
                let (path, warnings) = parse_sqlite(rest)?;
                Ok((Self::Sqlite { path }, warnings))
            }
            _ => Err(InvalidDatabaseUrl::Scheme),
        }
    }

    /// The file of an SQLite database.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path } => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

/// Scheme, user, hosts, ports and database: enough to recognise the place, nothing secret.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(target) => target.fmt(f),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn refuse_white_space_around(text: &str) -> Result<(), InvalidDatabaseUrl> {
    if text.trim() == text { Ok(()) } else { Err(InvalidDatabaseUrl::WhiteSpace) }
}

/// Parameters by which variants of SQLite encrypt their files.
const SQLITE_KEYS: [&str; 5] = ["cipher", "hexkey", "key", "password", "textkey"];

fn parse_sqlite(rest: &str) -> Result<(PathBuf, Vec<String>), InvalidDatabaseUrl> {
    // SQLite itself would read a path that starts with `file:` as one of its own URIs.
    let rest = rest.strip_prefix("file:").unwrap_or(rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path == ":memory:" || query.split('&').any(|parameter| parameter == "mode=memory") {
        return Err(InvalidDatabaseUrl::InMemory);
    }
    // To SQLite, an empty name is a temporary database and `:name` is kept for its own use.
    if path.is_empty() || path.ends_with('/') || path.starts_with(':') {
        return Err(InvalidDatabaseUrl::NoFile);
    }
    refuse_white_space_around(path)?;
    let names = query.split('&').filter(|parameter| !parameter.is_empty());
    let warnings = names
        .map(|parameter| sqlite_warning(parameter.split('=').next().unwrap_or_default()))
        .collect::<Result<_, _>>()?;
    Ok((PathBuf::from(path), warnings))
}

fn sqlite_warning(name: &str) -> Result<String, InvalidDatabaseUrl> {
    let name = target::parameter_name(name)?;
    if SQLITE_KEYS.contains(&name.to_ascii_lowercase().as_str()) {
        let reason = "the SQLite in this service does not encrypt files";
        return Err(InvalidDatabaseUrl::Unsupported { name: name.to_owned(), reason });
    }
    Ok(format!("parameter `{name}` is ignored on SQLite"))
}

#[cfg(test)]
mod tests;
