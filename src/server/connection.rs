//! One connection: HTTP/2 with its limits, from the handshake of TLS, if there is one, to the goodbye.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

use super::drain::{Counted, InFlight, OpenEnded};
use super::listener::ListenerSettings;
use super::preface::{self, AfterPreface, NoPreface};
use super::tls::{NoTls, Tls};
use crate::domain::SpiffeId;
use crate::rpc::call::{CertifiedPeer, PeerAddress};

/// The most bytes of a request's headers, counted as HPACK does (RFC 7541, 4.1): a few access
/// tokens' worth.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;

/// How much a client may send ahead on one stream: the largest message that is read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// How much a client may send ahead on one connection: what it can make the server hold.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How much of one reply waits for a client that does not read.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How many streams a client may make the server reset before its connection is closed
/// (RUSTSEC-2024-0003); hyper's default, stated because its absence would switch the limit off.
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

/// Serves connections, all alike.
#[derive(Clone)]
pub(super) struct Connections<S> {
    service: S,
    tls: Option<Tls>,
    http2: http2::Builder<TokioExecutor>,
    preface_timeout: Duration,
    max_age: Option<Duration>,
    goodbye_timeout: Duration,
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
    pub(super) fn new(
        service: S,
        tls: Option<Tls>,
        settings: &ListenerSettings,
        in_flight: InFlight,
    ) -> Self {
        Self {
            service,
            tls,
            http2: http2(settings),
            preface_timeout: settings.preface_timeout,
            max_age: settings.max_age,
            goodbye_timeout: settings.drain_timeout,
            in_flight,
        }
    }

    /// Serves one connection until it ends, whoever ends it.
    pub(super) async fn run(self, stream: TcpStream, peer: SocketAddr) {
        // Small replies go out at once instead of waiting for an acknowledgement of the last.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer.address = %peer, error = %error, "connection closed: cannot set TCP_NODELAY");
            return;
        }
        let begun = match self.tls.clone() {
            None => self.serve_when(preface_of(stream), peer).await,
            Some(tls) => self.serve_when(preface_over(tls, stream), peer).await,
        };
        match begun {
            Ok(()) => {}
            Err(NotBegun::Tls(NoTls::Svid(error))) => {
                tracing::warn!(peer.address = %peer, %error, "connection closed: its client certificate names no service as SPIFFE asks for");
            }
            Err(error) => tracing::debug!(peer.address = %peer, %error, "connection closed: no HTTP/2"),
        }
    }

    /// Waits for a connection to begin, within the limit and until the server stops, and serves it.
    async fn serve_when<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        beginning: impl Future<Output = Result<(T, Option<SpiffeId>), NotBegun>>,
        peer: SocketAddr,
    ) -> Result<(), NotBegun> {
        let in_time = timeout(self.preface_timeout, beginning);
        let Some(begun) = self.in_flight.finish.run_until_cancelled(in_time).await else {
            return Err(NotBegun::Stopping);
        };
        let (stream, service) = begun.map_err(|_| NotBegun::TooLate)??;
        self.serve(stream, peer, service).await;
        Ok(())
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: T,
        peer: SocketAddr,
        certified: Option<SpiffeId>,
    ) {
        let certified = certified.map(CertifiedPeer);
        let calls = Calls { service: self.service, peer, certified, in_flight: self.in_flight.clone() };
        let mut connection = pin!(self.http2.serve_connection(TokioIo::new(stream), calls));
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = self.in_flight.finish.cancelled() => {
                connection.as_mut().graceful_shutdown();
                self.in_flight.close.run_until_cancelled(connection).await
            }
            () = of_age(self.max_age) => {
                connection.as_mut().graceful_shutdown();
                // A Watch never ends by itself, nor a client that does not answer.
                let goodbye = timeout(self.goodbye_timeout, connection);
                self.in_flight.close.run_until_cancelled(goodbye).await.and_then(Result::ok)
            }
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(peer.address = %peer, error = %error, "connection broke");
        }
    }
}

/// Waits until a connection that has just begun is too old; for ever without a limit.
async fn of_age(max_age: Option<Duration>) {
    match max_age {
        Some(max_age) => sleep(max_age).await,
        None => std::future::pending().await,
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error("HTTP/2 had not begun when the time was up")]
    TooLate,
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Tls(#[from] NoTls),
    #[error(transparent)]
    Preface(#[from] NoPreface),
}

/// The stream with its preface read.
async fn preface_of<T: AsyncRead + Unpin>(
    stream: T,
) -> Result<(AfterPreface<T>, Option<SpiffeId>), NotBegun> {
    Ok((preface::expect(stream).await?, None))
}

/// As [`preface_of`], over TLS, and with the service that the client's certificate names.
async fn preface_over(
    tls: Tls,
    stream: TcpStream,
) -> Result<(AfterPreface<TlsStream<TcpStream>>, Option<SpiffeId>), NotBegun> {
    let (stream, service) = tls.accept(stream).await?;
    Ok((preface::expect(stream).await?, service))
}

fn http2(settings: &ListenerSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout);
    builder
}

/// The calls of one connection, as hyper sees them.
struct Calls<S> {
    service: S,
    peer: SocketAddr,
    certified: Option<CertifiedPeer>,
    in_flight: InFlight,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<Counted<B>>;
    type Error = Infallible;
    type Future = Call<Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let extensions = request.extensions_mut();
        extensions.insert(PeerAddress(self.peer));
        if let Some(certified) = &self.certified {
            extensions.insert(certified.clone());
        }
        Call { inner: self.service.clone().oneshot(request), token: Some(self.in_flight.call()) }
    }
}

pin_project! {
    /// One call, which counts as in flight until its response body is dropped.
    struct Call<F> {
        #[pin]
        inner: F,
        token: Option<TaskTrackerToken>,
    }
}

impl<F, B> Future for Call<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Counted<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        let token = this.token.take().filter(|_| response.extensions().get::<OpenEnded>().is_none());
        Poll::Ready(Ok(response.map(|body| Counted::new(body, token))))
    }
}
