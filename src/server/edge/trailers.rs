//! Ends requests with their last message. gRPC knows no trailers of requests ("gRPC over HTTP2", Requests).
//!
//! tonic merges them into the metadata, where they would count as credentials and as statements about the
//! end user. A proxy that removes such headers does not look for them there.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

/// Hands requests to `S` without their trailers.
#[derive(Clone)]
pub(super) struct IgnoreTrailers<S> {
    inner: S,
}

impl<S> IgnoreTrailers<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for IgnoreTrailers<S>
where
    S: Service<Request<WithoutTrailers<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.inner.call(request.map(|inner| WithoutTrailers { inner }))
    }
}

pin_project! {
    /// A body that ends where its trailers begin.
    pub(super) struct WithoutTrailers<B> {
        #[pin]
        inner: B,
    }
}

impl<B: Body> Body for WithoutTrailers<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = self.project().inner.poll_frame(cx);
        // Trailers are the last frame.
        frame.map(|frame| frame.filter(|frame| !frame.as_ref().is_ok_and(Frame::is_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
