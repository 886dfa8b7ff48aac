//! A PostgreSQL server as a URL describes it.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use super::{InvalidDatabaseUrl, refuse_white_space_around};

mod parameters;

use parameters::Draft;
pub(super) use parameters::parameter_name;

/// How the connection to PostgreSQL is encrypted: libpq's `sslmode`.
///
/// libpq's `allow` (plaintext first) is read as [`TlsMode::Prefer`], which is never weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// TLS without checking the certificate; plaintext when the server offers no TLS.
    Prefer,
    /// TLS without checking the certificate, or nothing.
    Require,
    /// TLS with a certificate from a trusted authority, for whatever host name.
    VerifyCa,
    /// TLS with a certificate from a trusted authority for the host's name.
    VerifyFull,
}

/// The oldest version of TLS that is spoken: libpq's `ssl_min_protocol_version`. None older than 1.2 ever is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// One PostgreSQL server, or several that are tried in turn, and how to reach it.
///
/// `Debug` and `Display` show user, hosts, ports and database only.
#[derive(Clone)]
pub struct PostgresTarget {
    config: Config,
    tls: TlsMode,
    min_tls: MinTlsVersion,
    root_certificates: Option<PathBuf>,
    schema: Option<String>,
    connection_limit: Option<NonZeroU32>,
}

impl PostgresTarget {
    /// The name under which the service appears in `pg_stat_activity`, unless the URL gives one.
    const APPLICATION_NAME: &str = "identity";
    /// Short, because a caller that waits for a connection gets its refusal within two seconds.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// The system's two hours would leave dead connections in the pool for as long.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
    /// Linux checks `tcp_user_timeout` of an idle connection only when the next probe is due.
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
    /// How long sent bytes may stay unacknowledged (RFC 5482) before the connection counts as dead.
    const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

    /// Reads what follows `postgres://`.
    pub(super) fn parse(rest: &str) -> Result<(Self, Vec<String>), InvalidDatabaseUrl> {
        let parts = Parts::split(rest)?;
        let mut config = Config::new();
        config
            .application_name(Self::APPLICATION_NAME)
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .keepalives_idle(Self::KEEPALIVE_IDLE)
            .keepalives_interval(Self::KEEPALIVE_INTERVAL)
            .tcp_user_timeout(Self::TCP_USER_TIMEOUT);
        let mut draft = Draft::new(config);
        parts.apply(&mut draft)?;
        draft.apply_query(parts.query)?;
        draft.finish()
    }

    /// What the driver needs to know. Its own TLS mode is set to the nearest of the three it has;
    /// certificates are checked, or not, by the connector that is handed to it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How the connection is encrypted.
    pub fn tls(&self) -> TlsMode {
        self.tls
    }

    /// The oldest version of TLS that is spoken.
    pub fn min_tls(&self) -> MinTlsVersion {
        self.min_tls
    }

    /// A PEM file of the authorities to trust; the system's when `None`.
    pub fn root_certificates(&self) -> Option<&Path> {
        self.root_certificates.as_deref()
    }

    /// The schema that holds the tables, when the URL names one. The session's `search_path` is
    /// set to it when the connection starts.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// How many connections the URL wants in a pool (Prisma's `connection_limit`).
    pub fn connection_limit(&self) -> Option<NonZeroU32> {
        self.connection_limit
    }

    /// How long reaching one host may take.
    pub fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(Self::CONNECT_TIMEOUT)
    }

    fn from_draft(draft: Draft, tls: TlsMode) -> Self {
        let Draft { mut config, min_tls, root_certificates, schema, connection_limit, .. } = draft;
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Self {
            config,
            tls,
            min_tls: min_tls.unwrap_or_default(),
            root_certificates,
            schema,
            connection_limit,
        }
    }

    /// Whether TLS starts without asking the server in clear text first (PostgreSQL 17).
    pub fn negotiates_directly(&self) -> bool {
        self.config.get_ssl_negotiation() == SslNegotiation::Direct
    }
}

impl fmt::Display for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "{separator}[{name}]:{port}")?,
                Host::Tcp(name) => write!(f, "{separator}{name}:{port}")?,
                Host::Unix(folder) => write!(f, "{separator}{}:{port}", folder.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresTarget({self}, {:?})", self.tls)
    }
}

/// PostgreSQL's registered port.
const DEFAULT_PORT: u16 = 5432;

/// The parts of a URL, still percent-encoded.
struct Parts<'a> {
    credentials: Option<&'a str>,
    hosts: &'a str,
    database: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self, InvalidDatabaseUrl> {
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // Here the reserved characters of a password that was not encoded turn up: going on would
        // show pieces of it as a host, a database or a parameter.
        if rest.contains('#') || tail.contains('@') {
            return Err(InvalidDatabaseUrl::Reserved);
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let database = path.strip_prefix('/').unwrap_or(path);
        if database.contains('/') {
            return Err(InvalidDatabaseUrl::Reserved);
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        Ok(Self { credentials, hosts, database, query })
    }

    fn apply(&self, draft: &mut Draft) -> Result<(), InvalidDatabaseUrl> {
        if let Some(credentials) = self.credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                draft.config.user(decode_name(user)?);
            }
            if let Some(password) = password {
                draft.password(&decode_password(password));
            }
        }
        if !self.hosts.is_empty() {
            for chunk in self.hosts.split(',') {
                let (host, port) = split_port(chunk)?;
                draft.hosts.push(parse_host(&decode_name(host)?)?);
                draft.ports.push(port.map_or(Ok(DEFAULT_PORT), |port| parse_port(&decode(port)?))?);
            }
        }
        if !self.database.is_empty() {
            draft.config.dbname(decode_name(self.database)?);
        }
        Ok(())
    }
}

/// Splits `host:port`, where the host may be an IPv6 address in brackets.
fn split_port(chunk: &str) -> Result<(&str, Option<&str>), InvalidDatabaseUrl> {
    let Some(bracketed) = chunk.strip_prefix('[') else {
        return Ok(match chunk.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (chunk, None),
        });
    };
    let (host, tail) = bracketed.split_once(']').ok_or(InvalidDatabaseUrl::Malformed)?;
    match tail.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if tail.is_empty() => Ok((host, None)),
        None => Err(InvalidDatabaseUrl::Malformed),
    }
}

/// A host name, an address, or the folder of a Unix socket.
fn parse_host(text: &str) -> Result<Host, InvalidDatabaseUrl> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(InvalidDatabaseUrl::Malformed);
    }
    Ok(if text.starts_with('/') { Host::Unix(PathBuf::from(text)) } else { Host::Tcp(text.to_owned()) })
}

fn parse_port(text: &str) -> Result<u16, InvalidDatabaseUrl> {
    match text.parse() {
        Ok(0) | Err(_) => Err(InvalidDatabaseUrl::Malformed),
        Ok(port) => Ok(port),
    }
}

/// Undoes percent-encoding; a `%` that starts no escape stands for itself.
fn decode(text: &str) -> Result<String, InvalidDatabaseUrl> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidDatabaseUrl::Malformed)?;
    // A NUL would end the value in the start-up message; no other belongs there either.
    if decoded.contains(char::is_control) {
        Err(InvalidDatabaseUrl::Control)
    } else {
        Ok(decoded.into_owned())
    }
}

/// Undoes percent-encoding of a user, a host or a database, which white space would turn into another one.
fn decode_name(text: &str) -> Result<String, InvalidDatabaseUrl> {
    let name = decode(text)?;
    refuse_white_space_around(&name)?;
    Ok(name)
}

/// Undoes percent-encoding of a password, which may be any bytes.
fn decode_password(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}
