//! Where the database is: reads `DATABASE_URL`.
//!
//! Takes what PostgreSQL's own library takes, and what Prisma adds to it, so that the URL of an
//! existing deployment works unchanged. What has no meaning here is dropped with a warning; what
//! would weaken the connection is refused. Connecting is left to [`super::postgres`] and the pools.

mod target;

use std::fmt;
use std::path::{Path, PathBuf};

pub use target::{PostgresTarget, TlsMode};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
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

fn parse_sqlite(rest: &str) -> Result<(PathBuf, Vec<String>), InvalidDatabaseUrl> {
    // SQLite itself would read a path that starts with `file:` as one of its own URIs.
    let rest = rest.strip_prefix("file:").unwrap_or(rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path == ":memory:" || query.split('&').any(|parameter| parameter == "mode=memory") {
        return Err(InvalidDatabaseUrl::InMemory);
    }
    // To SQLite, an empty name is a temporary database and `:name` is kept for its own use.
    if path.is_empty() || path.ends_with('/') || path.starts_with(':') || path.contains('\0') {
        return Err(InvalidDatabaseUrl::NoFile);
    }
    let names = query.split('&').filter(|parameter| !parameter.is_empty());
    let warnings = names
        .map(|parameter| parameter.split('=').next().unwrap_or_default())
        .map(|name| {
            target::parameter_name(name).map(|name| format!("parameter `{name}` is ignored on SQLite"))
        })
        .collect::<Result<_, _>>()?;
    Ok((PathBuf::from(path), warnings))
}

#[cfg(test)]
mod tests;
