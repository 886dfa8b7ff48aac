//! The parameters of a PostgreSQL URL: libpq's, and those that Prisma adds.
//!
//! Sources: PostgreSQL 17, 32.1.2 "Parameter Key Words" and 32.19 "SSL Support"; Prisma's page
//! "PostgreSQL database connector", section "Arguments".

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};

use super::super::{InvalidDatabaseUrl, refuse_white_space_around};
use super::{
    MinTlsVersion, PostgresTarget, TlsMode, decode, decode_name, decode_password, parse_host, parse_port,
};

mod security;

use security::is_about_security;

/// A target in the making: what a later parameter can still change.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) hosts: Vec<Host>,
    pub(super) ports: Vec<u16>,
    pub(super) min_tls: Option<MinTlsVersion>,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) schema: Option<String>,
    pub(super) connection_limit: Option<NonZeroU32>,
    addresses: Vec<IpAddr>,
    tls: Option<TlsMode>,
    /// Whether a parameter beside `sslmode` asks for TLS: `ssl=true` or `requiressl=1`.
    is_tls_required: bool,
    /// The last parameter that has a meaning with TLS only.
    needs_tls: Option<String>,
    system_roots: bool,
    /// Prisma's `sslaccept=strict` (true) or `accept_invalid_certs` (false).
    strict: Option<bool>,
    /// libpq's client certificate, or Prisma's server certificate.
    ssl_cert: Option<String>,
    warnings: Vec<String>,
}

impl Draft {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            hosts: Vec::new(),
            ports: Vec::new(),
            min_tls: None,
            root_certificates: None,
            schema: None,
            connection_limit: None,
            addresses: Vec::new(),
            tls: None,
            is_tls_required: false,
            needs_tls: None,
            system_roots: false,
            strict: None,
            ssl_cert: None,
            warnings: Vec::new(),
        }
    }

    /// Sets the password, which may be any bytes.
    pub(super) fn password(&mut self, password: &[u8]) {
        if password.ends_with(b"\n") {
            self.warn("the password ends with a line end, which is sent as a part of it");
        }
        self.config.password(password);
    }

    /// Applies `name=value&…`; of a name given twice, the last counts. Names are read in either case, since
    /// drivers spell them as `sslMode`.
    pub(super) fn apply_query(&mut self, query: &str) -> Result<(), InvalidDatabaseUrl> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(InvalidDatabaseUrl::Malformed)?;
            let name = decode(name)?.to_ascii_lowercase();
            match parameter_name(&name)? {
                "password" => self.password(&decode_password(value)),
                "user" => _ = self.config.user(decode_name(value)?),
                "dbname" => _ = self.config.dbname(decode_name(value)?),
                "host" => self.hosts = hosts(&decode(value)?)?,
                name if is_about_security(name) => self.apply_security(name, &decode(value)?)?,
                name => self.apply(name, &decode(value)?)?,
            }
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), InvalidDatabaseUrl> {
        match name {
            "port" => self.ports = value.split(',').map(parse_port).collect::<Result<_, _>>()?,
            "hostaddr" => self.addresses = addresses(value)?,
            "application_name" => _ = self.config.application_name(value),
            "options" => _ = self.config.options(value),
            "connect_timeout" => self.connect_timeout(value)?,
            "tcp_user_timeout" => {
                _ = self
                    .config
                    .tcp_user_timeout(Duration::from_millis(number("tcp_user_timeout", value)?.into()));
            }
            "keepalives" => _ = self.config.keepalives(number("keepalives", value)? != 0),
            "keepalives_idle" => {
                if let Some(idle) = seconds("keepalives_idle", value)? {
                    self.config.keepalives_idle(idle);
                }
            }
            "keepalives_interval" => {
                if let Some(interval) = seconds("keepalives_interval", value)? {
                    self.config.keepalives_interval(interval);
                }
            }
            "keepalives_count" | "keepalives_retries" => {
                _ = self.config.keepalives_retries(number("keepalives_count", value)?);
            }
            "target_session_attrs" => _ = self.config.target_session_attrs(session_attributes(value)?),
            "load_balance_hosts" => _ = self.config.load_balance_hosts(load_balancing(value)?),
            "schema" => self.schema = Some(schema(value)?),
            "connection_limit" => self.connection_limit = Some(connection_limit(value)?),
            _ => self.drop_parameter(name),
        }
        Ok(())
    }

    fn connect_timeout(&mut self, value: &str) -> Result<(), InvalidDatabaseUrl> {
        match seconds("connect_timeout", value)? {
            Some(timeout) => _ = self.config.connect_timeout(timeout),
            None => self.warn("parameter `connect_timeout` is ignored: waiting without limit is not offered"),
        }
        Ok(())
    }

    fn drop_parameter(&mut self, name: &str) {
        let reason = match name {
            "pool_timeout" => "the deadline of each request bounds its wait for a connection",
            "socket_timeout" => "the server sets time limits for its statements itself",
            "statement_cache_size" => "statements are always cached",
            "pgbouncer" => "behind PgBouncer, use its session mode",
            _ => "it is not known",
        };
        self.warn(format!("parameter `{name}` is ignored: {reason}"));
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Brings the parameters together, now that all are known.
    pub(super) fn finish(mut self) -> Result<(PostgresTarget, Vec<String>), InvalidDatabaseUrl> {
        self.settle_hosts()?;
        self.settle_roots();
        let tls = self.settle_tls()?;
        let warnings = std::mem::take(&mut self.warnings);
        Ok((PostgresTarget::from_draft(self, tls), warnings))
    }

    fn settle_hosts(&mut self) -> Result<(), InvalidDatabaseUrl> {
        if self.hosts.is_empty() {
            // The driver takes the name for TLS from the host alone, so an address needs one too.
            self.hosts = self.addresses.iter().map(|address| Host::Tcp(address.to_string())).collect();
        }
        if self.hosts.is_empty() {
            return Err(InvalidDatabaseUrl::NoHost);
        }
        let count = self.hosts.len();
        let fits = |length: usize, absent: usize| length == absent || length == count;
        if !fits(self.ports.len(), 1) && !self.ports.is_empty() || !fits(self.addresses.len(), 0) {
            return Err(InvalidDatabaseUrl::Uneven);
        }
        for host in &self.hosts {
            match host {
                Host::Tcp(name) => _ = self.config.host(name),
                Host::Unix(folder) => _ = self.config.host_path(folder),
            }
        }
        for port in &self.ports {
            self.config.port(*port);
        }
        for address in &self.addresses {
            self.config.hostaddr(*address);
        }
        Ok(())
    }
}

/// A parameter's name if it looks like one, so that it can be shown.
///
/// # Errors
/// [`InvalidDatabaseUrl::Reserved`]: what is no name may be a piece of a password.
pub(crate) fn parameter_name(name: &str) -> Result<&str, InvalidDatabaseUrl> {
    let is_name =
        (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name { Ok(name) } else { Err(InvalidDatabaseUrl::Reserved) }
}

fn hosts(value: &str) -> Result<Vec<Host>, InvalidDatabaseUrl> {
    let host = |host| refuse_white_space_around(host).and_then(|()| parse_host(host));
    value.split(',').map(host).collect()
}

fn wrong<T>(name: &'static str, rule: &'static str) -> Result<T, InvalidDatabaseUrl> {
    Err(InvalidDatabaseUrl::Parameter { name, rule })
}

fn number(name: &'static str, value: &str) -> Result<u32, InvalidDatabaseUrl> {
    value.parse().or(wrong(name, "a whole number"))
}

/// Seconds; zero is libpq's way to leave the choice to the system.
fn seconds(name: &'static str, value: &str) -> Result<Option<Duration>, InvalidDatabaseUrl> {
    let seconds = value.parse::<u32>().or(wrong(name, "a whole number of seconds"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, InvalidDatabaseUrl> {
    value
        .split(',')
        .map(|address| address.parse().or(wrong("hostaddr", "IP addresses, separated by commas")))
        .collect()
}

fn connection_limit(value: &str) -> Result<NonZeroU32, InvalidDatabaseUrl> {
    match value.parse::<NonZeroU32>() {
        Ok(limit) if limit.get() <= 1000 => Ok(limit),
        Ok(_) | Err(_) => wrong("connection_limit", "a number from 1 to 1000"),
    }
}

fn schema(value: &str) -> Result<String, InvalidDatabaseUrl> {
    // 63 bytes are all that PostgreSQL keeps of a name (NAMEDATALEN).
    let is_name = (1..=63).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'));
    if is_name { Ok(value.to_owned()) } else { wrong("schema", "1 to 63 letters, digits, _, - or $") }
}

fn session_attributes(value: &str) -> Result<TargetSessionAttrs, InvalidDatabaseUrl> {
    match value {
        "any" => Ok(TargetSessionAttrs::Any),
        "read-write" | "primary" => Ok(TargetSessionAttrs::ReadWrite),
        "read-only" => Ok(TargetSessionAttrs::ReadOnly),
        _ => wrong("target_session_attrs", "any, read-write, primary or read-only"),
    }
}

fn load_balancing(value: &str) -> Result<LoadBalanceHosts, InvalidDatabaseUrl> {
    match value {
        "disable" => Ok(LoadBalanceHosts::Disable),
        "random" => Ok(LoadBalanceHosts::Random),
        _ => wrong("load_balance_hosts", "disable or random"),
    }
}
