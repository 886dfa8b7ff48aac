//! Opens connections to PostgreSQL, with or without TLS.
//!
//! The driver limits the time to reach a host, and nothing after that; it knows three TLS modes, and leaves
//! certificates to its connector; and it hides the codes of errors. So streams are opened here: one limit for
//! each host over the whole handshake, libpq's five TLS modes, and every reply read along. Pools and sessions'
//! settings are left to their callers.

mod endpoint;
mod error;
mod pooling;
mod sqlstate;
mod stream;
mod tls;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use tokio::time::timeout;
use tokio_postgres::config::{LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::ConnectError;
pub use sqlstate::{ServerError, ServerErrors, SqlState};

use super::url::{PostgresTarget, TlsMode};
use endpoint::Endpoint;
use sqlstate::Replies;
use stream::{Negotiated, SessionStream};

/// How short the time for one of several hosts may become.
const MIN_ATTEMPT: Duration = Duration::from_millis(400);

/// Opens connections to one target; the trusted certificates are read once, when it is made. All clones
/// begin with the host that was found last.
#[derive(Clone)]
pub struct Connector {
    target: PostgresTarget,
    /// As the driver is told: whether a stream is encrypted is none of its business.
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// The number of the host to try first.
    first: Arc<AtomicUsize>,
}

/// An open connection, and what belongs to it.
pub struct Session {
    /// For queries. A task on the runtime drives it until it is dropped.
    pub connection: AsyncPgConnection,
    /// The errors that the server sends on it.
    pub errors: ServerErrors,
    /// Ends its statements.
    pub interrupt: Interrupt,
}

/// Asks a server to end the statement that a session is busy with.
#[derive(Clone)]
pub struct Interrupt {
    connector: Connector,
    endpoint: Endpoint,
    token: CancelToken,
}

impl Interrupt {
    /// Opens a connection of its own for that, and returns when the server has told the session.
    ///
    /// # Errors
    /// [`ConnectError`] when it could not be.
    pub async fn send(&self) -> Result<(), ConnectError> {
        let Connector { target, tls, .. } = &self.connector;
        let transport = self.endpoint.open(target, tls.as_ref()).await?;
        let stream = SessionStream::for_cancelling(transport);
        self.token.cancel_query_raw(stream, Negotiated).await.map_err(ConnectError::from_driver)
    }
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
        let mut config = target.config().clone();
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        Ok(Self { target: target.clone(), config, tls, first: Arc::default() })
    }

    /// Opens a connection; each host has the target's connect timeout for everything until the session can be
    /// used. Dropping the future gives the attempt up.
    ///
    /// Of several hosts, or addresses of one, the first that accepts the wanted kind of session is taken. Where
    /// any kind will do, that is one that can be written to, if there is one.
    ///
    /// # Errors
    /// [`ConnectError`] names the cause; of several hosts, that of the last one tried.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        self.try_all(|_| self.target.connect_timeout()).await
    }

    /// As [`Connector::connect`], within `limit` if that leaves every host enough time. The next attempt
    /// begins where one that is given up ends.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_within(&self, limit: Duration) -> Result<Session, ConnectError> {
        self.try_all(|endpoints| {
            let share = limit / u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
            share.max(MIN_ATTEMPT).min(self.target.connect_timeout())
        })
        .await
    }

    async fn try_all(&self, limit: impl Fn(usize) -> Duration) -> Result<Session, ConnectError> {
        let resolving = endpoint::resolve(&self.target);
        let endpoints =
            timeout(self.target.connect_timeout(), resolving).await.unwrap_or(Err(ConnectError::Timeout))?;
        let limit = limit(endpoints.len());
        let first = self.first_of(endpoints.len());
        let wanted = Wanted::of(&self.target, endpoints.len());
        let (mut spare, mut failure) = (None, ConnectError::Timeout);
        for index in (first..endpoints.len()).chain(0..first) {
            let attempt = timeout(limit, self.attempt(&endpoints[index], wanted)).await;
            match attempt.unwrap_or(Err(ConnectError::Timeout)) {
                Ok((session, Fit::Good)) => {
                    self.first.store(index, Relaxed);
                    return Ok(session);
                }
                Ok((session, Fit::Poor)) => spare = spare.or(Some(session)),
                Err(error) => {
                    self.first.store(index + 1, Relaxed);
                    failure = error;
                }
            }
        }
        spare.ok_or(failure)
    }

    fn first_of(&self, endpoints: usize) -> usize {
        let first = if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            usize::try_from(RandomState::new().hash_one(()) >> 33).unwrap_or(0)
        } else {
            self.first.load(Relaxed)
        };
        first.checked_rem(endpoints).unwrap_or(0)
    }

    async fn attempt(&self, endpoint: &Endpoint, wanted: Wanted) -> Result<(Session, Fit), ConnectError> {
        let errors = ServerErrors::default();
        let client = self.log_in(endpoint, &errors).await?;
        if let Some(schema) = self.target.schema() {
            // Not as a start-up parameter, which PgBouncer refuses. Quoted, since PostgreSQL folds a bare name to
            // lower case.
            let set = client.batch_execute(&format!("SET search_path = \"{schema}\"")).await;
            set.map_err(ConnectError::from_driver)?;
        }
        let fit = wanted.check(&client).await?;
        let token = client.cancel_token();
        let connection = AsyncPgConnection::try_from(client).await.map_err(|_| ConnectError::Session)?;
        let interrupt = Interrupt { connector: self.clone(), endpoint: endpoint.clone(), token };
        Ok((Session { connection, errors, interrupt }, fit))
    }

    async fn log_in(&self, endpoint: &Endpoint, errors: &ServerErrors) -> Result<Client, ConnectError> {
        let transport = endpoint.open(&self.target, self.tls.as_ref()).await?;
        let stream = SessionStream::new(transport, Replies::new(errors.clone()));
        let (client, connection) =
            self.config.connect_raw(stream, Negotiated).await.map_err(ConnectError::from_driver)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection to PostgreSQL ended");
            }
        });
        Ok(client)
    }
}

/// Which servers will do.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    /// One that can be written to before one that cannot.
    Writable,
    OnlyWritable,
    OnlyReadable,
}

/// How well a server does.
enum Fit {
    Good,
    Poor,
}

impl Wanted {
    fn of(target: &PostgresTarget, endpoints: usize) -> Self {
        let wanted = target.config().get_target_session_attrs();
        if wanted == TargetSessionAttrs::ReadWrite {
            Self::OnlyWritable
        } else if wanted == TargetSessionAttrs::ReadOnly {
            Self::OnlyReadable
        } else if endpoints > 1 {
            Self::Writable
        } else {
            Self::Any
        }
    }

    async fn check(self, client: &Client) -> Result<Fit, ConnectError> {
        if matches!(self, Self::Any) {
            return Ok(Fit::Good);
        }
        let answer = client.simple_query("SHOW transaction_read_only").await;
        let answer = answer.map_err(ConnectError::from_driver)?;
        let is_writable = answer
            .iter()
            .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("off")));
        match (self, is_writable) {
            (Self::OnlyWritable, false) | (Self::OnlyReadable, true) => Err(ConnectError::SessionAttributes),
            (Self::Writable, false) => Ok(Fit::Poor),
            _ => Ok(Fit::Good),
        }
    }
}

/// Opens one connection to `target`, as [`Connector::new`] and [`Connector::connect`] do.
///
/// # Errors
/// Theirs.
pub async fn connect(target: &PostgresTarget) -> Result<AsyncPgConnection, ConnectError> {
    Ok(Connector::new(target)?.connect().await?.connection)
}
