//! Logs one line for each call when it has ended, and counts it.
//!
//! A call has ended when its response body is dropped: after the trailers, or before them when the
//! client has gone. Either way [`Record`] is dropped too, and tells what it knows.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::Service;

use super::counts::CallCounts;
use super::method::Method;
use crate::rpc::call::PeerAddress;
use crate::rpc::call_id::CallId;
use crate::rpc::status::code_name;

/// Logs and counts every call that `S` answers.
#[derive(Clone)]
pub(super) struct CallLog<S> {
    inner: S,
    counts: Arc<CallCounts>,
}

impl<S> CallLog<S> {
    pub(super) fn new(inner: S, counts: Arc<CallCounts>) -> Self {
        Self { inner, counts }
    }
}

impl<S, A, B> Service<Request<A>> for CallLog<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<LoggedBody<B>>;
    type Error = S::Error;
    type Future = LoggedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let record = Record::begin(&request, Arc::clone(&self.counts));
        LoggedFuture { inner: self.inner.call(request), record: Some(record) }
    }
}

/// A call that goes on. Dropping it is what ends the call.
struct Record {
    began: Instant,
    method: Method,
    id: Option<CallId>,
    peer: Option<SocketAddr>,
    /// How the call ended; until that is known, it has been given up.
    code: Code,
    /// The HTTP status, where it is not 200, so that the reply is not gRPC.
    http_status: Option<StatusCode>,
    counts: Arc<CallCounts>,
}

impl Record {
    fn begin<A>(request: &Request<A>, counts: Arc<CallCounts>) -> Self {
        let extensions = request.extensions();
        Self {
            began: Instant::now(),
            method: Method::of(request),
            id: extensions.get::<CallId>().cloned(),
            peer: extensions.get::<PeerAddress>().map(|&PeerAddress(peer)| peer),
            code: Code::Cancelled,
            http_status: None,
            counts,
        }
    }

    fn answered<B>(&mut self, response: &Response<B>) {
        if response.status() != StatusCode::OK {
            self.http_status = Some(response.status());
            // What a gRPC client makes of any HTTP status that the edge answers with.
            self.code = Code::Unknown;
        }
        self.status_in(response.headers());
    }

    /// Takes the code from headers (of a reply that has no body) or from trailers.
    fn status_in(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }

    /// The one place that every ended call passes, whatever became of it.
    fn ended(&self, took: Duration) {
        self.counts.ended(self.method.name(), self.code, took);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    rpc.method = self.method.name(),
                    rpc.code = code_name(self.code),
                    rpc.duration_ms = milliseconds(took),
                    request.id = self.id.as_ref().map(CallId::as_str),
                    peer.address = self.peer.map(tracing::field::display),
                    http.status = self.http_status.map(|status| status.as_u16()),
                    "call finished"
                )
            };
        }
        if self.method.is_operational() {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.ended(self.began.elapsed());
    }
}

/// Milliseconds with at most three decimals, so that the log has no spurious digits.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

pin_project! {
    pub(super) struct LoggedFuture<F> {
        #[pin]
        inner: F,
        record: Option<Record>,
    }
}

impl<F, B, E> Future for LoggedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<LoggedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let mut record = this.record.take();
        if let Some(record) = &mut record {
            record.answered(&response);
        }
        Poll::Ready(Ok(response.map(|inner| LoggedBody { inner, record })))
    }
}

pin_project! {
    /// Passes a body on, unchanged, and looks for the call's code in its trailers.
    pub(super) struct LoggedBody<B> {
        #[pin]
        inner: B,
        record: Option<Record>,
    }
}

impl<B: Body> Body for LoggedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(Ok(frame)), Some(record)) = (&frame, this.record)
            && let Some(trailers) = frame.trailers_ref()
        {
            record.status_in(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
