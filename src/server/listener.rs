//! Accepts connections and serves HTTP/2 on each, until told to stop.
//!
//! tonic's own transport is not used: it switches off limits that hyper sets by default, spins on
//! accept errors, stops without bound, and bounds no TLS handshake.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::admission::{Admission, Slot};
use super::connection::Connections;
use super::drain::{Drained, InFlight};
pub use super::listener_settings::ListenerSettings;
use super::tls::Tls;
use crate::domain::Source;

/// How many connections the kernel completes before they are accepted: enough for all clients of a
/// large installation to reconnect at once.
const BACKLOG: i32 = 1024;

/// The first wait after a failed accept, doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(5);

/// The longest wait after a failed accept: what a freed file descriptor may wait to be used.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A listening socket on `addr`; port 0 takes any free one. An address that a stopped process
/// listened on can be taken at once (SO_REUSEADDR).
///
/// # Errors
/// Whatever the system says, most likely that the address is in use.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves `service` on every connection to `listener` that `admission` makes room for, over TLS if `tls` is there,
/// until `shutdown`, then stops accepting,
/// tells every client with a GOAWAY, waits for the calls in flight and returns: at the latest
/// [`ListenerSettings::drain_timeout`] after `shutdown`.
///
/// Requests carry their [`PeerAddress`](crate::rpc::call::PeerAddress), and those of a service with a
/// certificate their [`CertifiedPeer`](crate::rpc::call::CertifiedPeer). Dropping the future stops accepting and leaves the open
/// connections to themselves; cancel `shutdown` instead.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Option<Tls>,
    service: S,
    settings: ListenerSettings,
    admission: Admission,
    shutdown: CancellationToken,
) -> Drained
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let in_flight = InFlight::new(shutdown.clone());
    let drain_timeout = settings.drain_timeout;
    let connections = Connections::new(service, tls, settings, in_flight.clone());
    let accepted = admit_all(listener, &admission, |stream, peer, slot| {
        in_flight.connections.spawn(connections.clone().run(stream, peer, slot));
    });
    shutdown.run_until_cancelled(accepted).await;
    in_flight.drain(drain_timeout).await
}

/// Hands every new connection to `open`, with the place that `admission` made for it. Never returns; the
/// listening socket is closed when the future is dropped.
async fn admit_all(listener: TcpListener, admission: &Admission, open: impl Fn(TcpStream, SocketAddr, Slot)) {
    let mut trouble = Trouble::default();
    loop {
        let (stream, peer) = accept(&listener, &mut trouble).await;
        let slot = admission.admit(Source::of(Some(peer.ip()))).await;
        open(stream, peer, slot);
    }
}

/// The next connection, however long accepting fails before.
pub(super) async fn accept(listener: &TcpListener, trouble: &mut Trouble) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                trouble.over();
                return accepted;
            }
            Err(error) if concerns_one_connection(&error) => {
                tracing::debug!(error = %error, "a connection broke before it was accepted");
            }
            Err(error) => sleep(trouble.met(&error)).await,
        }
    }
}

/// Whether a failed accept took a connection off the queue, so that trying again at once cannot
/// fail for the same cause.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Accept errors that last, such as too many open files: logged when they begin and when they end.
#[derive(Default)]
pub(super) struct Trouble {
    backoff: Option<Duration>,
}

impl Trouble {
    /// Notes a failed accept and says how long to wait before the next.
    fn met(&mut self, error: &io::Error) -> Duration {
        let wait = match self.backoff {
            Some(last) => (last * 2).min(MAX_BACKOFF),
            None => {
                tracing::error!(error = %error, "cannot accept connections: trying again until it works");
                MIN_BACKOFF
            }
        };
        self.backoff = Some(wait);
        wait
    }

    /// Notes an accept that worked.
    fn over(&mut self) {
        if self.backoff.take().is_some() {
            tracing::info!("accepting connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_a_failed_accept_doubles_up_to_a_second_and_starts_anew() {
        let error = io::Error::from_raw_os_error(24);
        let mut trouble = Trouble::default();
        let waits: Vec<u128> = (0..10).map(|_| trouble.met(&error).as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.over();
        assert_eq!(trouble.met(&error), MIN_BACKOFF);
    }
}
