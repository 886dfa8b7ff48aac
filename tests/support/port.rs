//! Loopback ports that stay free while the server behind them is away.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ports that Linux and macOS hand out to outgoing connections, so that none of those
/// takes the port of a server that a test has stopped for a while.
const PORTS: Range<u16> = 15_000..32_000;

/// A port of 127.0.0.1 on which nothing listens. Another process may take it before the caller does:
/// be ready to try again.
pub(crate) fn free() -> u16 {
    bind().local_addr().expect("a bound listener has an address").port()
}

/// Listens on a port of 127.0.0.1 that no outgoing connection will take while it is closed.
pub(crate) fn bind() -> TcpListener {
    let span = u64::from(PORTS.end - PORTS.start);
    for _ in 0..1_000 {
        let offset = u16::try_from(RandomState::new().build_hasher().finish() % span)
            .expect("the span of the ports fits a port");
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + offset)) {
            return listener;
        }
    }
    panic!("no free port between {} and {} on 127.0.0.1", PORTS.start, PORTS.end);
}
