//! The addresses behind a URL's hosts, and how a stream to one of them is opened.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect as _};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ConnectError;
use super::stream::{Duplex, Transport};
use crate::storage::url::{PostgresTarget, TlsMode};

/// PostgreSQL's registered port.
const DEFAULT_PORT: u16 = 5432;

/// The code that asks for TLS in place of a protocol version (PostgreSQL 17, 53.2.11), with its length.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// One place where a server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp {
        /// The host's name, which its certificate is checked against.
        name: String,
        address: SocketAddr,
    },
    Unix(PathBuf),
}

/// The places behind the hosts of `target`, in its order. A name that cannot be resolved has none.
///
/// # Errors
/// [`ConnectError::Unreachable`] when there is none at all.
pub(super) async fn resolve(target: &PostgresTarget) -> Result<Vec<Endpoint>, ConnectError> {
    let config = target.config();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| resolve_host(config, index, host));
    let mut endpoints = Vec::new();
    let mut failure = None;
    for resolved in join_all(hosts).await {
        match resolved {
            Ok(found) => endpoints.extend(found),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if endpoints.is_empty() => Err(ConnectError::from_io(error)),
        _ => Ok(endpoints),
    }
}

async fn resolve_host(config: &Config, index: usize, host: &Host) -> io::Result<Vec<Endpoint>> {
    let ports = config.get_ports();
    let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    match host {
        Host::Unix(folder) => Ok(vec![Endpoint::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
        Host::Tcp(name) => {
            let addresses = match config.get_hostaddrs().get(index) {
                Some(address) => vec![(*address, port).into()],
                None => lookup_host((name.as_str(), port)).await?.collect(),
            };
            let endpoint = |address| Endpoint::Tcp { name: name.clone(), address };
            Ok(addresses.into_iter().map(endpoint).collect())
        }
    }
}

impl Endpoint {
    /// Opens a stream, and encrypts it as `target` wants.
    pub(super) async fn open(
        &self,
        target: &PostgresTarget,
        tls: Option<&MakeRustlsConnect>,
    ) -> Result<Transport, ConnectError> {
        match self {
            Self::Unix(path) => open_unix(path).await,
            Self::Tcp { name, address } => {
                let socket = open_tcp(*address, target.config()).await.map_err(ConnectError::from_io)?;
                match tls {
                    Some(tls) => encrypt(Box::new(socket), name, target, tls.clone()).await,
                    None => Ok(Transport::Plain(Box::new(socket))),
                }
            }
        }
    }
}

async fn open_tcp(address: SocketAddr, config: &Config) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())?;
    if config.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
        if let Some(interval) = config.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = config.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(stream)
}

async fn open_unix(path: &Path) -> Result<Transport, ConnectError> {
    let socket = UnixStream::connect(path).await.map_err(ConnectError::from_io)?;
    Ok(Transport::Plain(Box::new(socket)))
}

async fn encrypt(
    mut socket: Box<dyn Duplex>,
    name: &str,
    target: &PostgresTarget,
    mut tls: MakeRustlsConnect,
) -> Result<Transport, ConnectError> {
    if !target.negotiates_directly() {
        socket.write_all(&SSL_REQUEST).await.map_err(ConnectError::from_io)?;
        let answer = socket.read_u8().await.map_err(ConnectError::from_io)?;
        if answer != b'S' {
            return match target.tls() {
                TlsMode::Disable | TlsMode::Prefer => Ok(Transport::Plain(socket)),
                TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                    Err(ConnectError::Tls("the server offers none".into()))
                }
            };
        }
    }
    let refused = |error: io::Error| ConnectError::Tls(error.to_string());
    let connect = MakeTlsConnect::<Box<dyn Duplex>>::make_tls_connect(&mut tls, name);
    let connect = connect.map_err(|error| ConnectError::Tls(error.to_string()))?;
    let stream = connect.connect(socket).await.map_err(refused)?;
    Ok(Transport::Tls(Box::new(stream)))
}
