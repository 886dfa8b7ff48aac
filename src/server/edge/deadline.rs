//! Gives every call a deadline and keeps it.
//!
//! tonic by itself answers CANCELLED when a deadline passes, and takes any `grpc-timeout` that it
//! cannot read for none. Rules: "gRPC over HTTP2", Requests, `Timeout`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::EdgeSettings;
use super::method::is_open_ended;
use crate::rpc::call::Deadline;
use crate::rpc::status;
use crate::server::call::CallHandle;
use crate::server::drain::OpenEnded;

/// The metadata in which a client says how long it waits.
const TIMEOUT: &str = "grpc-timeout";

/// The metadata `grpc-timeout` is not 1 to 8 digits and a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MalformedTimeout;

/// Keeps the deadlines of the calls of `S`.
#[derive(Clone)]
pub(super) struct Deadlines<S> {
    inner: S,
    settings: EdgeSettings,
}

impl<S> Deadlines<S> {
    pub(super) fn new(inner: S, settings: EdgeSettings) -> Self {
        Self { inner, settings }
    }
}

impl<S, A> Service<Request<A>> for Deadlines<S>
where
    S: Service<Request<A>, Response = Response<Body>>,
{
    type Response = Response<DeadlineBody>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let open_ended = is_open_ended(request.uri());
        let allowed = match time_allowed(request.headers(), open_ended, self.settings) {
            Ok(Some(Duration::ZERO)) => return DeadlineFuture::refused(status::deadline_exceeded()),
            Ok(allowed) => allowed,
            Err(MalformedTimeout) => return DeadlineFuture::refused(status::malformed_deadline()),
        };
        let deadline = allowed.map(|allowed| Instant::now() + allowed);
        // For when the reply is not read: then nothing here is polled.
        if let Some(CallHandle(call)) = request.extensions().get::<CallHandle>() {
            deadline.into_iter().for_each(|deadline| call.set_deadline(deadline));
            if open_ended {
                call.set_open_ended();
            }
        }
        if let Some(at) = deadline {
            let is_named = request.headers().contains_key(TIMEOUT);
            let deadline = if is_named { Deadline::OfCaller(at) } else { Deadline::OfService(at) };
            request.extensions_mut().insert(deadline);
        }
        DeadlineFuture::Going { inner: self.inner.call(request), sleep: None, deadline, open_ended }
    }
}

/// How long a call may take; `None` is for ever.
fn time_allowed(
    headers: &HeaderMap,
    open_ended: bool,
    settings: EdgeSettings,
) -> Result<Option<Duration>, MalformedTimeout> {
    let mut timeouts = headers.get_all(TIMEOUT).iter();
    let asked = timeouts.next().map(parse_timeout).transpose()?;
    if timeouts.next().is_some() {
        return Err(MalformedTimeout);
    }
    Ok(match (asked, open_ended) {
        (asked, true) => asked,
        (Some(asked), false) => Some(asked.min(settings.max_deadline)),
        (None, false) => Some(settings.default_deadline),
    })
}

/// Reads `TimeoutValue TimeoutUnit`. The largest, 99,999,999 hours, does not overflow.
fn parse_timeout(value: &HeaderValue) -> Result<Duration, MalformedTimeout> {
    const MAX_DIGITS: usize = 8;

    let (unit, digits) = value.as_bytes().split_last().ok_or(MalformedTimeout)?;
    if !(1..=MAX_DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedTimeout);
    }
    let amount = digits.iter().fold(0, |amount: u64, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(MalformedTimeout),
    }
}

pin_project! {
    /// Answers as the call does, or DEADLINE_EXCEEDED when that takes too long.
    #[project = DeadlineProjection]
    pub(super) enum DeadlineFuture<F> {
        Going {
            #[pin]
            inner: F,
            // Made when the call first has to wait: one that answers at once needs no timer.
            #[pin]
            sleep: Option<Sleep>,
            deadline: Option<Instant>,
            open_ended: bool,
        },
        Refused {
            status: Option<Box<Status>>,
        },
    }
}

impl<F> DeadlineFuture<F> {
    fn refused(status: Status) -> Self {
        Self::Refused { status: Some(Box::new(status)) }
    }
}

impl<F, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<DeadlineBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            DeadlineProjection::Refused { status } => {
                let status = status.take().expect("a future is not polled after it has ended");
                Poll::Ready(Ok(status.into_http()))
            }
            DeadlineProjection::Going { inner, mut sleep, deadline, open_ended } => {
                if let Poll::Ready(response) = inner.poll(cx) {
                    return Poll::Ready(response.map(|response| with_body(response, *deadline, *open_ended)));
                }
                let Some(deadline) = *deadline else { return Poll::Pending };
                if sleep.is_none() {
                    sleep.set(Some(sleep_until(deadline)));
                }
                match sleep.as_pin_mut().map(|sleep| sleep.poll(cx)) {
                    Some(Poll::Ready(())) => Poll::Ready(Ok(status::deadline_exceeded().into_http())),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            }
        }
    }
}

fn with_body(
    response: Response<Body>,
    deadline: Option<Instant>,
    open_ended: bool,
) -> Response<DeadlineBody> {
    let mut response = response.map(|inner| DeadlineBody { inner, deadline, sleep: None });
    if open_ended {
        response.extensions_mut().insert(OpenEnded);
    }
    response
}

pin_project! {
    /// A body that ends with DEADLINE_EXCEEDED in its trailers when it does not end in time.
    #[derive(Default)]
    pub(super) struct DeadlineBody {
        #[pin]
        inner: Body,
        deadline: Option<Instant>,
        // On the heap, since only a stream ever waits here.
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.inner.as_mut().poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // What the handler still holds goes now, and the next poll finds the end.
        this.inner.set(Body::empty());
        let mut trailers = HeaderMap::new();
        let added = status::deadline_exceeded().add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, MalformedTimeout> {
        parse_timeout(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse("2H"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("2M"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("2S"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("2m"), Ok(Duration::from_millis(2)));
        assert_eq!(parse("2u"), Ok(Duration::from_micros(2)));
        assert_eq!(parse("00000002n"), Ok(Duration::from_nanos(2)));
        assert_eq!(parse("99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in
            ["", "S", "1", "1s", "1h", "-1S", "+1S", "1.5S", "1 S", " 1S", "123456789S", "1SS", "0x1S"]
        {
            assert_eq!(parse(text), Err(MalformedTimeout), "{text:?}");
        }
    }

    #[test]
    fn a_call_gets_what_it_asks_for_up_to_the_maximum_and_the_default_when_it_does_not_ask() {
        let settings = EdgeSettings { max_deadline: Duration::from_secs(60), ..EdgeSettings::default() };
        let allowed = |timeouts: &[&'static str], open_ended| {
            let mut headers = HeaderMap::new();
            for &timeout in timeouts {
                headers.append(TIMEOUT, HeaderValue::from_static(timeout));
            }
            time_allowed(&headers, open_ended, settings).map(|allowed| allowed.map(|time| time.as_secs()))
        };
        assert_eq!(allowed(&[], false), Ok(Some(30)));
        assert_eq!(allowed(&["5S"], false), Ok(Some(5)));
        assert_eq!(allowed(&["99999999H"], false), Ok(Some(60)));
        assert_eq!(allowed(&[], true), Ok(None));
        assert_eq!(allowed(&["1H"], true), Ok(Some(3600)));
        assert_eq!(allowed(&["1S", "2S"], false), Err(MalformedTimeout));
    }

    use std::convert::Infallible;
    use std::future::pending;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;
    use tower::ServiceExt as _;

    /// What becomes of a call of `handler` that waits two seconds at most.
    async fn call<F>(handler: impl FnOnce(Request<()>) -> F) -> Response<DeadlineBody>
    where
        F: Future<Output = Result<Response<Body>, Infallible>>,
    {
        let mut handler = Some(handler);
        let service = tower::service_fn(move |request| handler.take().unwrap()(request));
        let request = Request::builder().header(TIMEOUT, "2S").body(()).unwrap();
        Deadlines::new(service, EdgeSettings::default()).oneshot(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_does_not_answer_is_answered_for_when_the_time_is_up() {
        let began = Instant::now();
        let response = call(|_| pending()).await;
        assert_eq!(began.elapsed().as_secs(), 2);
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_passes_and_its_handler_knew_the_deadline() {
        let began = Instant::now();
        let response = call(|request| async move {
            let deadline = *request.extensions().get::<Deadline>().unwrap();
            assert_eq!(deadline, Deadline::OfCaller(Instant::now() + Duration::from_secs(2)));
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Response::new(Body::empty()))
        })
        .await;
        assert_eq!(began.elapsed().as_secs(), 1);
        assert!(response.headers().get(Status::GRPC_STATUS).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_ends_when_the_time_is_up_after_what_it_said_before() {
        let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"first")))]);
        let stream = stream::StreamExt::chain(first, stream::pending());
        let response = call(async |_| Ok(Response::new(Body::new(StreamBody::new(stream))))).await;
        let collected = response.into_body().collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(collected.to_bytes(), "first");
    }
}
