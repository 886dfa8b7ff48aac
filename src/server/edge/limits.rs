//! Takes the budgets of a call's connection, source and process: its headers, its stream if that stays open,
//! and its reply. A call that finds no room is refused, and nothing of it is held. Where a source is refused too
//! often, by this or by what is further in, refusals are held back for a moment.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response, Uri};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
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
            Err(exhausted) => LimitsFuture::Refused { status: refusal(exhausted).into_http(), call },
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

/// Whether a response is RESOURCE_EXHAUSTED: by a budget, or by a limit on attempts or changes.
fn is_refusal<B>(response: &Response<B>) -> bool {
    let status = response.headers().get(Status::GRPC_STATUS);
    status.is_some_and(|status| status.as_bytes() == EXHAUSTED)
}

/// RESOURCE_EXHAUSTED as `grpc-status` has it.
const EXHAUSTED: &[u8] = b"8";

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
            status: Response<ReplyBody>,
            call: Option<Arc<Call>>,
        },
        HeldBack {
            status: Response<ReplyBody>,
            // What the call holds until then.
            call: Option<Arc<Call>>,
            #[pin]
            until: Sleep,
        },
    }
}

impl<F, E> Future for LimitsFuture<F>
where
    F: Future<Output = Result<Response<DeadlineBody>, E>>,
{
    type Output = Result<Response<ReplyBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (response, call) = match self.as_mut().project() {
                LimitsProjection::HeldBack { status, until, .. } => {
                    ready!(until.poll(cx));
                    return Poll::Ready(Ok(std::mem::take(status)));
                }
                LimitsProjection::Refused { status, call } => (std::mem::take(status), call.take()),
                LimitsProjection::Going { inner, call, slot } => {
                    let (head, body) = ready!(inner.poll(cx))?.into_parts();
                    let response = match ReplyBody::of_ready(body, call.clone(), slot.take(), cx) {
                        Ok(body) => Response::from_parts(head, body),
                        Err(exhausted) => refusal(exhausted).into_http(),
                    };
                    (response, call.take())
                }
            };
            let delay = call.as_ref().filter(|_| is_refusal(&response)).and_then(|call| call.hold_refusal());
            let Some(delay) = delay else { return Poll::Ready(Ok(response)) };
            self.set(Self::HeldBack { status: response, call, until: sleep(delay) });
        }
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
