//! HTTP/2 on one connection: its limits, and its calls as hyper sees them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;
use pin_project_lite::pin_project;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

use super::admission::OpenConnection;
use super::call::{Call, CallHandle};
use super::drain::{Counted, InFlight, OpenEnded};
use super::listener_settings::ListenerSettings;
use super::stream_task::StreamExecutor;
use crate::rpc::call::{CertifiedPeer, PeerAddress};

/// The most bytes of a request's headers that h2 takes, counted as HPACK does (RFC 7541, 4.1). The edge
/// refuses calls with less than that, and says why. Beyond it h2 answers 431 to the call without asking
/// anybody, and ends the connection when the headers go on and on.
const MAX_HEADER_LIST_BYTES: u32 = 80 * 1024;

/// How much a client may send ahead on one stream: the largest message that is read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// How much a client may send ahead on one connection: what it can make the server hold.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How much of one reply waits in h2 for a socket that takes nothing.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How many streams a client may make the server reset before its connection is closed
/// (RUSTSEC-2024-0003); hyper's default, stated because its absence would switch the limit off.
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

/// What serves a connection whose streams `streams` runs.
pub(super) fn builder(settings: &ListenerSettings, streams: StreamExecutor) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(streams);
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

/// The calls of one connection.
pub(super) struct Calls<S> {
    pub(super) service: S,
    pub(super) peer: SocketAddr,
    pub(super) certified: Option<CertifiedPeer>,
    pub(super) connection: Arc<OpenConnection>,
    /// What runs their streams.
    pub(super) streams: StreamExecutor,
    pub(super) in_flight: InFlight,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body,
{
    type Response = Response<Counted<B>>;
    type Error = Infallible;
    type Future = Answering<Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let call = Call::begin(Arc::clone(&self.connection));
        self.streams.expect(Arc::clone(&call));
        let extensions = request.extensions_mut();
        extensions.insert(PeerAddress(self.peer));
        extensions.insert(CallHandle(Arc::clone(&call)));
        if let Some(certified) = &self.certified {
            extensions.insert(certified.clone());
        }
        let inner = self.service.clone().oneshot(request);
        Answering { inner, call: Some(call), token: Some(self.in_flight.call()) }
    }
}

pin_project! {
    /// One call, which counts as in flight until its response body is dropped.
    pub(super) struct Answering<F> {
        #[pin]
        inner: F,
        call: Option<Arc<Call>>,
        token: Option<TaskTrackerToken>,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body,
{
    type Output = Result<Response<Counted<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        let token = this.token.take().filter(|_| response.extensions().get::<OpenEnded>().is_none());
        let call = this.call.take().expect("a future is not polled after it has ended");
        Poll::Ready(Ok(response.map(|body| Counted::new(body, call, token))))
    }
}
