//! Gives every call an id, which its log lines and its reply carry.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::Span;

use super::method::Method;
use crate::domain::Clock;
use crate::rpc::call_id::CallId;

/// Puts a [`CallId`] into a call's extensions, the span around it, and its reply.
#[derive(Clone)]
pub(super) struct CallIds<S> {
    inner: S,
    clock: Arc<dyn Clock>,
}

impl<S> CallIds<S> {
    pub(super) fn new(inner: S, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }
}

impl<S, A, B> Service<Request<A>> for CallIds<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = CallIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let id = request
            .headers()
            .get(&CallId::HEADER)
            .and_then(CallId::from_client)
            .unwrap_or_else(|| CallId::generate(self.clock.now()));
        // At the level `error` so that whatever is logged within has it, however little is logged.
        let span =
            tracing::error_span!("call", request.id = id.as_str(), rpc.method = Method::of(&request).name());
        request.extensions_mut().insert(id.clone());
        let inner = span.in_scope(|| self.inner.call(request));
        CallIdFuture { inner, span, id: Some(id) }
    }
}

pin_project! {
    pub(super) struct CallIdFuture<F> {
        #[pin]
        inner: F,
        span: Span,
        id: Option<CallId>,
    }
}

impl<F, B, E> Future for CallIdFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(CallId::HEADER, id.into_value());
        }
        Poll::Ready(Ok(response))
    }
}
