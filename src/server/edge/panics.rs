//! Keeps a panic in a handler to the call that it happened in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower::Service;

use crate::rpc::status;

/// Answers INTERNAL where a handler of `S` panics.
///
/// The panic's text may quote what the handler worked on, so neither the reply nor the line here
/// has it.
#[derive(Clone)]
pub(super) struct CatchPanics<S> {
    inner: S,
}

impl<S> CatchPanics<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, A> Service<Request<A>> for CatchPanics<S>
where
    S: Service<Request<A>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CatchPanic<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        CatchPanic { inner: self.inner.call(request) }
    }
}

pin_project! {
    pub(super) struct CatchPanic<F> {
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for CatchPanic<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let inner = self.project().inner;
        // Unwind safe: the future is not polled again, and what it shared guards itself with locks
        // that notice.
        catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).unwrap_or_else(|_| {
            // The call's id comes from the span around this.
            tracing::error!("a handler panicked: its caller was answered INTERNAL");
            Poll::Ready(Ok(status::internal().into_http()))
        })
    }
}
