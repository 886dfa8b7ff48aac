//! One connection, from the handshake of TLS, if there is one, to the goodbye.
//!
//! It ends when its client wants, and when the server does: it is idle or old, its client's certificate is
//! valid no longer, its client resets too many streams or reads nothing, somebody else needs the place, or
//! the server stops. Then the client is told with a GOAWAY and has a time to leave.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::admission::{Admission, Closed, OpenConnection, Slot};
use super::drain::InFlight;
use super::http2::{self, Calls};
use super::listener_settings::ListenerSettings;
use super::malformed::WatchResets;
use super::preface::{self, AfterPreface, NoPreface};
use super::stall::Stall;
use super::stream_task::StreamExecutor;
use super::tls::{NoTls, Peer, Tls};
use crate::rpc::call::CertifiedPeer;
use crate::telemetry::metrics::Label as _;

/// How long a connection may take to go that nobody is to wait for: a round trip over a slow link, and what
/// calls usually take.
const SHORT_GRACE: Duration = Duration::from_secs(1);

/// Longer than any process runs, and within what timers can do.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Serves connections, all alike.
#[derive(Clone)]
pub(super) struct Connections<S> {
    service: S,
    tls: Option<Tls>,
    settings: Arc<ListenerSettings>,
    in_flight: InFlight,
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) fn new(service: S, tls: Option<Tls>, settings: ListenerSettings, in_flight: InFlight) -> Self {
        Self { service, tls, settings: Arc::new(settings), in_flight }
    }

    /// Serves one connection until it ends, whoever ends it, and then gives up its place.
    pub(super) async fn run(self, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        // Small replies go out at once instead of waiting for an acknowledgement of the last.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer.address = %peer, error = %error, "connection closed: cannot set TCP_NODELAY");
            return;
        }
        let begun = match self.tls.clone() {
            None => self.serve_when(preface_of(stream), peer, &slot).await,
            Some(tls) => self.serve_when(preface_over(tls, stream), peer, &slot).await,
        };
        match begun {
            Ok(()) => {}
            Err(NotBegun::Tls(NoTls::Svid(error))) => {
                tracing::warn!(peer.address = %peer, %error, "connection closed: its client certificate names no service as SPIFFE asks for");
            }
            Err(error) => tracing::debug!(peer.address = %peer, %error, "connection closed: no HTTP/2"),
        }
    }

    /// Waits for a connection to begin, within the limit and as long as it may stay, and serves it.
    async fn serve_when<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        beginning: impl Future<Output = Result<(T, Peer), NotBegun>>,
        address: SocketAddr,
        slot: &Slot,
    ) -> Result<(), NotBegun> {
        let in_time = timeout(self.settings.preface_timeout, beginning);
        let (stream, peer) = tokio::select! {
            biased;
            () = self.in_flight.finish.cancelled() => return Err(NotBegun::Stopping),
            () = slot.connection().noticed() => return Err(NotBegun::Displaced),
            begun = in_time => begun.map_err(|_| NotBegun::TooLate)??,
        };
        // On the heap: most connections are beyond this, and need not carry the room for it.
        Box::pin(self.serve(stream, address, peer, slot)).await;
        Ok(())
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: T,
        address: SocketAddr,
        peer: Peer,
        slot: &Slot,
    ) {
        let Self { service, settings, in_flight, .. } = self;
        let open = slot.connection();
        let life = Life::begin(&settings, peer.valid_for);
        let streams = StreamExecutor::new(settings.write_timeout);
        let calls = Calls {
            service,
            peer: address,
            certified: peer.service.map(CertifiedPeer),
            connection: Arc::clone(open),
            streams: streams.clone(),
            in_flight: in_flight.clone(),
        };
        let stream = WatchResets::new(stream, on_malformed(slot.admission().clone(), address));
        let connection = http2::builder(&settings, streams).serve_connection(TokioIo::new(stream), calls);
        let mut connection = pin!(connection);
        let mut stall = Stall::new(settings.write_timeout);
        let mut timer = pin!(sleep_until(life.next_look(open)));
        let mut is_stopping = false;
        let mut is_leaving = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer.address = %address, error = %error, "connection broke");
                    }
                    return;
                }
                () = in_flight.finish.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Comes after the other.
                () = in_flight.close.cancelled(), if is_stopping => return,
                () = open.noticed() => {
                    if !open.has_resets_to_spare() {
                        slot.close(Closed::Resets);
                    }
                }
                () = poll_fn(|cx| stall.poll(open, cx)), if !is_leaving => slot.close(Closed::Stalled),
                () = timer.as_mut() => {
                    if is_leaving {
                        return;
                    }
                    life.due(open).into_iter().for_each(|reason| slot.close(reason));
                    timer.as_mut().reset(life.next_look(open));
                }
            }
            match open.told() {
                None => {}
                Some(told) if told.at_once => return,
                Some(told) if !is_leaving => {
                    tracing::debug!(peer.address = %address, reason = told.reason.name(), "closing a connection");
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + life.time_to_leave(told.reason));
                }
                Some(_) => {}
            }
        }
    }
}

/// Counts the requests of a connection that break a rule of HTTP/2, and logs the first one: a client that sends
/// one sends more, which would fill the log.
fn on_malformed(admission: Admission, peer: SocketAddr) -> impl FnMut() + Send + Unpin {
    let mut is_logged = false;
    move || {
        admission.count_malformed();
        if !is_logged {
            is_logged = true;
            tracing::warn!(
                peer.address = %peer,
                "the server reset a stream whose request breaks a rule of HTTP/2, most often by an :authority \
                 that is no host name: set the client's authority (in gRPC C-core, grpc.default_authority)"
            );
        }
    }
}

/// How long a connection lasts.
struct Life {
    idle: Duration,
    aged: Option<Instant>,
    certificate_ends: Option<Instant>,
    grace: Duration,
}

impl Life {
    fn begin(settings: &ListenerSettings, certificate_valid_for: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            idle: settings.max_idle.unwrap_or(FOR_EVER),
            aged: settings.max_age.map(|max_age| now + jittered(max_age)),
            certificate_ends: certificate_valid_for.map(|valid| now + valid.min(FOR_EVER)),
            grace: settings.drain_timeout,
        }
    }

    /// Why the connection should be closed now, if it should.
    fn due(&self, open: &OpenConnection) -> Option<Closed> {
        let now = Instant::now();
        let has_passed = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        if has_passed(self.certificate_ends) {
            Some(Closed::Certificate)
        } else if has_passed(self.aged) {
            Some(Closed::Age)
        } else {
            has_passed(open.idle_since().map(|since| since + self.idle)).then_some(Closed::Idle)
        }
    }

    /// When to look at the connection again. One in use is not idle before `idle` has passed.
    fn next_look(&self, open: &OpenConnection) -> Instant {
        let idle = open.idle_since().unwrap_or_else(Instant::now) + self.idle;
        [self.aged, self.certificate_ends].into_iter().flatten().fold(idle, Instant::min)
    }

    /// How long a connection may take to end after its client was told.
    fn time_to_leave(&self, reason: Closed) -> Duration {
        match reason {
            // Calls in flight may end, and those that were on their way when the client was told.
            Closed::Age | Closed::Certificate | Closed::Idle => self.grace,
            Closed::Limit | Closed::Share | Closed::Resets | Closed::Stalled => SHORT_GRACE.min(self.grace),
        }
    }
}

/// `age`, a tenth more or less, so that connections that were opened together end one after the other.
fn jittered(age: Duration) -> Duration {
    // A number nobody can foresee is more than is needed, and the standard library has none that is less.
    let part = RandomState::new().hash_one(()) % 1_000;
    age.mul_f64(0.9 + 0.2 * part as f64 / 999.0)
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error("HTTP/2 had not begun when the time was up")]
    TooLate,
    #[error("the server stops")]
    Stopping,
    #[error("another client needs the place")]
    Displaced,
    #[error(transparent)]
    Tls(#[from] NoTls),
    #[error(transparent)]
    Preface(#[from] NoPreface),
}

/// The stream with its preface read.
async fn preface_of<T: AsyncRead + Unpin>(stream: T) -> Result<(AfterPreface<T>, Peer), NotBegun> {
    Ok((preface::expect(stream).await?, Peer::default()))
}

/// As [`preface_of`], over TLS, and with what the client's certificate says.
async fn preface_over(
    tls: Tls,
    stream: TcpStream,
) -> Result<(AfterPreface<TlsStream<TcpStream>>, Peer), NotBegun> {
    let (stream, peer) = tls.accept(stream).await?;
    Ok((preface::expect(stream).await?, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_up_to_a_tenth() {
        let ages: Vec<_> = (0..1_000).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        assert!(ages.iter().all(|age| (90.0..=110.0).contains(age)));
        assert!(ages.iter().any(|age| *age < 95.0) && ages.iter().any(|age| *age > 105.0));
    }
}
