//! Repeats a call whose statement a migration had made stale. The unit of work that the statement belonged to was
//! rolled back, and the statement is prepared anew.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tonic::Status;
use tower::{Service, ServiceExt as _};
use zeroize::Zeroizing;

use crate::rpc::status;

/// The longest request that is kept for a second try, in bytes. A request is kept while its call waits, so this
/// adds to what a waiting call costs. What is longer is not repeated; what clients send seldom is.
const MAX_KEPT_BYTES: usize = 4 * 1024;

/// Gives a call to `S` once more when its reply says that a statement was stale.
#[derive(Clone)]
pub(super) struct RepeatStale<S> {
    inner: S,
    is_enabled: bool,
}

impl<S> RepeatStale<S> {
    /// Where statements never become stale, `is_enabled` should be false: keeping requests has a price.
    pub(super) fn new(inner: S, is_enabled: bool) -> Self {
        Self { inner, is_enabled }
    }
}

impl<S, B> Service<Request<B>> for RepeatStale<S>
where
    S: Service<Request<Repeatable<B>>, Response = Response<tonic::body::Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.is_enabled {
            let request = request.map(|inner| Repeatable::First { inner, copy: None });
            return Either::Left(self.inner.call(request));
        }
        let (head, inner) = request.into_parts();
        let copy = Arc::<MessageCopy>::default();
        let body = Repeatable::First { inner, copy: Some(Arc::clone(&copy)) };
        let first = self.inner.call(Request::from_parts(head.clone(), body));
        let service = self.inner.clone();
        Either::Right(Box::pin(async move {
            let reply = first.await?;
            if !reply.extensions().get::<Status>().is_some_and(status::is_stale_statement) {
                return Ok(reply);
            }
            let Some(message) = copy.take_whole() else { return Ok(reply) };
            tracing::info!("a call is repeated: the columns of a prepared statement have changed");
            service.oneshot(Request::from_parts(head, Repeatable::Again { message: Some(message) })).await
        }))
    }
}

/// What was read of a request.
#[derive(Default)]
struct MessageCopy(Mutex<Read>);

#[derive(Default)]
struct Read {
    /// May contain a password.
    bytes: Zeroizing<Vec<u8>>,
    is_too_long: bool,
    has_ended: bool,
}

impl MessageCopy {
    fn add(&self, bytes: &[u8]) {
        let mut read = self.lock();
        let length = read.bytes.len() + bytes.len();
        read.is_too_long |= length > MAX_KEPT_BYTES;
        if read.is_too_long {
            read.bytes = Zeroizing::default();
            return;
        }
        // A vector that grows leaves its old contents in freed memory.
        let mut longer = Zeroizing::new(Vec::with_capacity(length));
        longer.extend_from_slice(&read.bytes);
        longer.extend_from_slice(bytes);
        read.bytes = longer;
    }

    fn end(&self) {
        self.lock().has_ended = true;
    }

    /// The request, when all of it was read and kept.
    fn take_whole(&self) -> Option<Bytes> {
        let mut read = self.lock();
        let is_whole = read.has_ended && !read.is_too_long;
        is_whole.then(|| Bytes::from_owner(std::mem::take(&mut read.bytes)))
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pin_project! {
    /// The body of a request: at the first try what the client sends, at the second one what was kept of it.
    #[project = RepeatableProjection]
    pub(super) enum Repeatable<B> {
        First {
            #[pin]
            inner: B,
            copy: Option<Arc<MessageCopy>>,
        },
        Again {
            message: Option<Bytes>,
        },
    }
}

impl<B: Body<Data = Bytes>> Body for Repeatable<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project() {
            RepeatableProjection::First { mut inner, copy } => {
                let frame = ready!(inner.as_mut().poll_frame(cx));
                if let Some(copy) = copy {
                    if let Some(Ok(frame)) = &frame {
                        frame.data_ref().into_iter().for_each(|bytes| copy.add(bytes));
                    }
                    if frame.is_none() || inner.is_end_stream() {
                        copy.end();
                    }
                }
                Poll::Ready(frame)
            }
            RepeatableProjection::Again { message } => {
                Poll::Ready(message.take().map(|message| Ok(Frame::data(message))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::First { inner, .. } => inner.is_end_stream(),
            Self::Again { message } => message.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::First { inner, .. } => inner.size_hint(),
            Self::Again { message } => SizeHint::with_exact(message.as_ref().map_or(0, |m| m.len() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::body::Body as ReplyBody;
    use tower::service_fn;

    use super::*;

    /// A body of several frames.
    struct Frames(Vec<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// Calls a service whose statements are always stale; the bodies that it was given.
    async fn tried(frames: Vec<Bytes>, is_enabled: bool) -> Vec<Vec<u8>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let stale = service_fn(move |request: Request<Repeatable<Frames>>| {
            let seen = Arc::clone(&shared);
            async move {
                let mut body = std::pin::pin!(request.into_body());
                let mut bytes = Vec::new();
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                    bytes.extend_from_slice(frame.data_ref().unwrap());
                }
                seen.lock().unwrap().push(bytes);
                Ok::<Response<ReplyBody>, Infallible>(status::stale_statement().into_http())
            }
        });
        let reply = RepeatStale::new(stale, is_enabled).oneshot(Request::new(Frames(frames))).await.unwrap();
        assert_eq!(Status::from_header_map(reply.headers()).unwrap().code(), tonic::Code::Unavailable);
        std::mem::take(&mut *seen.lock().unwrap())
    }

    #[tokio::test]
    async fn a_call_is_repeated_once_with_all_frames_of_its_request() {
        let frames = || vec![Bytes::from_static(b"half "), Bytes::from_static(b"and half")];
        assert_eq!(tried(frames(), true).await, [b"half and half", b"half and half"]);
        assert_eq!(tried(frames(), false).await, [b"half and half"]);
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_to_be_kept_is_tried_once() {
        for (length, tries) in [(MAX_KEPT_BYTES, 2), (MAX_KEPT_BYTES + 1, 1)] {
            assert_eq!(tried(vec![Bytes::from(vec![0; length])], true).await.len(), tries, "{length}");
        }
    }
}
