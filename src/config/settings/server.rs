//! Where the server listens, and how it stops.

use std::net::SocketAddr;
use std::time::Duration;

use super::connections::{self, ConnectionSettings};
use super::tls;
use crate::config::declared::{
    IDENTITY_DRAIN_DELAY, IDENTITY_DRAIN_TIMEOUT, IDENTITY_HEALTH_LISTEN, IDENTITY_HTTP_LISTEN,
    IDENTITY_LISTEN, IDENTITY_REFLECTION,
};
use crate::config::read::Reader;
use crate::crypto::tls::TlsFiles;

/// Where the server listens, and how it stops.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address and port for gRPC; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address and port of the side port over HTTP; `None` switches it off.
    pub http_listen: Option<SocketAddr>,
    /// The files of TLS; `None` serves gRPC in plaintext.
    pub tls: Option<TlsFiles>,
    /// Address and port for health alone, in plaintext; `None` for nowhere.
    pub health_listen: Option<SocketAddr>,
    /// Whether the reflection service is offered.
    pub reflection: bool,
    /// How many connections there may be, and for how long.
    pub connections: ConnectionSettings,
    /// How long requests are still served normally after a signal to stop.
    pub drain_delay: Duration,
    /// How long running requests may take to finish after that.
    pub drain_timeout: Duration,
}

pub(super) fn read(reader: &mut Reader<'_>) -> ServerSettings {
    let listen = reader.get(&IDENTITY_LISTEN);
    ServerSettings {
        listen,
        tls: tls::read(reader, listen),
        http_listen: reader.get(&IDENTITY_HTTP_LISTEN),
        health_listen: reader.get(&IDENTITY_HEALTH_LISTEN),
        reflection: reader.get(&IDENTITY_REFLECTION),
        connections: connections::read(reader),
        drain_delay: reader.get(&IDENTITY_DRAIN_DELAY),
        drain_timeout: reader.get(&IDENTITY_DRAIN_TIMEOUT),
    }
}
