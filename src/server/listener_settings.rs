//! The limits that [`super::listener`] and [`super::connection`] keep to.

use std::time::Duration;

/// Limits of a listener and its connections.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// How many calls may be in flight on one connection; a client keeps further ones back.
    pub max_concurrent_streams: u32,
    /// How long a client may take to begin HTTP/2 after connecting, the handshake of TLS included.
    pub preface_timeout: Duration,
    /// How often an open connection is asked whether its peer is still there.
    pub keep_alive_interval: Duration,
    /// How long a peer may take to answer that before its connection is closed.
    pub keep_alive_timeout: Duration,
    /// How long a client may take nothing of what waits for it. Then its stream is reset, and its connection
    /// closed when that does not help.
    pub write_timeout: Duration,
    /// How long a connection may stay open on which nothing is called. An open Watch is a call, a ping is
    /// none. No limit when absent.
    pub max_idle: Option<Duration>,
    /// How old a connection may become, a tenth more or less, before its client is told to open another: with
    /// a GOAWAY, after which the calls in flight have [`ListenerSettings::drain_timeout`] to end. No limit
    /// when absent.
    pub max_age: Option<Duration>,
    /// How long stopping may take altogether, and saying goodbye to a connection that is too old.
    pub drain_timeout: Duration,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 256,
            preface_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(20),
            // Longer than a client that lives pauses, and far shorter than draining may take.
            write_timeout: Duration::from_secs(5),
            // Several times the interval at which clients ping.
            max_idle: Some(Duration::from_secs(5 * 60)),
            // New processes get their share of calls within the hour, and hands are seldom shaken.
            max_age: Some(Duration::from_secs(30 * 60)),
            drain_timeout: Duration::from_secs(20),
        }
    }
}
