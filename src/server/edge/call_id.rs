//! Gives every call an id, which its log lines and its reply carry.

use std::pin::Pin;
use std::str;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::Span;
use uuid::{NoContext, Uuid};

use super::method::Method;
use crate::domain::{Clock, Timestamp};

/// Identifies one call in the log: what its client sent as `x-request-id`, or a UUIDv7.
///
/// Never trusted to be unique, since a client may choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallId(HeaderValue);

impl CallId {
    /// The metadata that carries the id, in requests and in replies.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// The most bytes of an id that a client chooses: enough for the hexadecimal of 256 bits.
    pub const MAX_BYTES: usize = 64;

    /// The id: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    pub fn as_str(&self) -> &str {
        // Both ways to make an id leave nothing but ASCII.
        str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }

    /// The id that a client chose, unless it could forge or flood a log line.
    fn from_client(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=Self::MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(permitted))
            .then(|| Self(value.clone()))
    }

    fn generate(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_unix_seconds()).unwrap_or(0);
        let uuid = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, now.subsecond_nanos()));
        let mut buffer = Uuid::encode_buffer();
        let text = uuid.as_hyphenated().encode_lower(&mut buffer);
        Self(HeaderValue::from_str(text).expect("hexadecimal digits and hyphens make a header value"))
    }
}

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
        if let Some(CallId(value)) = this.id.take() {
            response.headers_mut().insert(CallId::HEADER, value);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_client(text: &str) -> Option<String> {
        CallId::from_client(&HeaderValue::from_str(text).unwrap()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn an_id_that_a_client_chose_is_kept_when_it_cannot_harm_a_log() {
        for text in ["a", "A-z_0.9", "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e", &"x".repeat(64)] {
            assert_eq!(from_client(text).as_deref(), Some(text));
        }
        for text in ["", " ", "a b", "a\"b", "a,b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(from_client(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_id_of_our_own_is_a_uuid_that_carries_the_time_given() {
        let id = CallId::generate(Timestamp::from_unix_micros(1_700_000_000_123_456));
        let uuid = Uuid::parse_str(id.as_str()).unwrap();
        assert_eq!(uuid.get_timestamp().unwrap().to_unix(), (1_700_000_000, 123_000_000));
        assert_eq!(from_client(id.as_str()).as_deref(), Some(id.as_str()));
    }
}
