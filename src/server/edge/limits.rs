//! Takes the budgets of a call's connection, source and process: its headers, its stream if that stays open,
//! and its reply. A call that finds no room is refused, and nothing of it is held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response, Uri};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;

use super::deadline::DeadlineBody;
use super::method::stream_kind;
use super::reply_body::ReplyBody;
use crate::rpc::status;
use crate::server::budgets::{Exhausted, StreamSlot};
use crate::server::call::{Call, CallHandle};

/// The most bytes of a request's headers, counted as HPACK does (RFC 7541, 4.1): a few access
/// tokens' worth. What is beyond the limit of the connection, which is larger, h2 deals with.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What a header counts beside its name and its value (RFC 7541, 4.1).
const HEADER_OVERHEAD: usize = 32;

/// Lets calls through to `S` for which there is room.
#[derive(Clone)]
pub(super) struct Limits<S> {
    inner: S,
}

impl<S> Limits<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, A> Service<Request<A>> for Limits<S>
where
    S: Service<Request<A>, Response = Response<DeadlineBody>>,
{
    type Response = Response<ReplyBody>;
    type Error = S::Error;
    type Future = LimitsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let call = request.extensions().get::<CallHandle>().map(|CallHandle(call)| Arc::clone(call));
        match admit(&request, call.as_ref()) {
            Ok(slot) => LimitsFuture::Going { inner: self.inner.call(request), call, slot },
            Err(exhausted) => LimitsFuture::Refused { status: Some(Box::new(refusal(exhausted))) },
        }
    }
}

/// Takes what the call needs before its handler begins.
fn admit<A>(request: &Request<A>, call: Option<&Arc<Call>>) -> Result<Option<StreamSlot>, Exhausted> {
    let Some(call) = call else { return Ok(None) };
    let bytes = size(request.uri(), request.headers());
    if bytes > MAX_HEADER_BYTES {
        call.connection().bytes().budgets().count_refused(Exhausted::Headers);
        return Err(Exhausted::Headers);
    }
    call.charge_headers(bytes)?;
    stream_kind(request.uri()).map(|kind| call.open_stream(kind)).transpose()
}

/// The bytes of headers, as HPACK counts them.
fn size(uri: &Uri, headers: &HeaderMap) -> usize {
    let pseudo = uri.path_and_query().map_or(0, |path| path.as_str().len() + HEADER_OVERHEAD)
        + uri.authority().map_or(0, |authority| authority.as_str().len() + HEADER_OVERHEAD);
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD
    };
    pseudo + headers.iter().map(size).sum::<usize>()
}

fn refusal(exhausted: Exhausted) -> Status {
    match exhausted {
        Exhausted::Headers => status::headers_too_large(),
        Exhausted::ConnectionBytes
        | Exhausted::SourceBytes
        | Exhausted::ProcessBytes
        | Exhausted::Watches
        | Exhausted::Reflections => status::overloaded(status::RETRY_SOON),
    }
}

pin_project! {
    #[project = LimitsProjection]
    pub(super) enum LimitsFuture<F> {
        Going {
            #[pin]
            inner: F,
            call: Option<Arc<Call>>,
            slot: Option<StreamSlot>,
        },
        Refused {
            status: Option<Box<Status>>,
        },
    }
}

impl<F, E> Future for LimitsFuture<F>
where
    F: Future<Output = Result<Response<DeadlineBody>, E>>,
{
    type Output = Result<Response<ReplyBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project() {
            LimitsProjection::Refused { status } => {
                let status = status.take().expect("a future is not polled after it has ended");
                status.into_http()
            }
            LimitsProjection::Going { inner, call, slot } => {
                let (head, body) = ready!(inner.poll(cx))?.into_parts();
                match ReplyBody::of_ready(body, call.take(), slot.take(), cx) {
                    Ok(body) => Response::from_parts(head, body),
                    Err(exhausted) => refusal(exhausted).into_http(),
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_counted_as_hpack_does() {
        let mut headers = HeaderMap::new();
        assert_eq!(size(&Uri::from_static("/a"), &headers), 2 + 32);
        headers.append("x", "yz".parse().unwrap());
        headers.append("x", "yz".parse().unwrap());
        assert_eq!(size(&Uri::from_static("http://h/a"), &headers), 2 + 32 + 1 + 32 + 2 * (1 + 2 + 32));
    }
}
