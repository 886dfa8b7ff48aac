//! Opens connections to PostgreSQL, with or without TLS.
//!
//! The driver knows three TLS modes and leaves certificates to its connector; libpq's five are made
//! here. Pools and sessions' settings are left to their callers.

mod error;
mod tls;

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::ConnectError;

use super::url::{PostgresTarget, TlsMode};

/// Opens connections to one target; the trusted certificates are read once, when it is made.
#[derive(Clone)]
pub struct Connector {
    target: PostgresTarget,
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    /// Reads the certificates that `target` trusts, from its file or from the system's store.
    ///
    /// Touches files, so not for a request's path.
    ///
    /// # Errors
    /// [`ConnectError::RootCertificates`] when a check is asked for and there is nothing to check
    /// with.
    pub fn new(target: &PostgresTarget) -> Result<Self, ConnectError> {
        let tls = match target.tls() {
            TlsMode::Disable => None,
            TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                Some(MakeRustlsConnect::new(tls::client_config(target)?))
            }
        };
        Ok(Self { target: target.clone(), tls })
    }

    /// Opens a connection; a task on the current runtime drives it until it is dropped.
    ///
    /// Takes at most [`Connector::time_limit`]. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// [`ConnectError`] names the cause; of several hosts, that of the last one tried.
    pub async fn connect(&self) -> Result<AsyncPgConnection, ConnectError> {
        let attempt = async {
            match &self.tls {
                None => open(&self.target, NoTls).await,
                Some(tls) => open(&self.target, tls.clone()).await,
            }
        };
        tokio::time::timeout(self.time_limit(), attempt).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// The longest that [`Connector::connect`] takes: the connect timeout once for each host, and
    /// once more for TLS, authentication and the session's start, on which the driver sets no limit.
    pub fn time_limit(&self) -> Duration {
        let hosts = u32::try_from(self.target.config().get_hosts().len()).unwrap_or(u32::MAX);
        self.target.connect_timeout().saturating_mul(hosts.saturating_add(1))
    }
}

/// Opens one connection to `target`, as [`Connector::new`] and [`Connector::connect`] do.
///
/// # Errors
/// Theirs.
pub async fn connect(target: &PostgresTarget) -> Result<AsyncPgConnection, ConnectError> {
    Connector::new(target)?.connect().await
}

async fn open<T>(target: &PostgresTarget, tls: T) -> Result<AsyncPgConnection, ConnectError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Unpin + Send + 'static,
{
    let (client, connection) = target.config().connect(tls).await.map_err(ConnectError::from_driver)?;
    AsyncPgConnection::try_from_client_and_connection(client, connection)
        .await
        .map_err(|_| ConnectError::Session)
}
