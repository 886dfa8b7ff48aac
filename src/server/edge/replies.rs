//! Turns tonic's own refusals into those of the contract.
//!
//! Every status of this service is built by `rpc::status` and carries details. One without them
//! comes from tonic or a ready-made service, and blames the wrong side or names no reason.

use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::Service;

use crate::proto::v1::ErrorReason;
use crate::rpc::status;

/// Where tonic says which compressions it reads, when the caller used another.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Rewrites the replies of `S`.
#[derive(Clone)]
pub(super) struct Replies<S> {
    inner: S,
}

impl<S> Replies<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, A> Service<Request<A>> for Replies<S>
where
    S: Service<Request<A>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        self.inner.call(request).map_ok(rewrite)
    }
}

/// The reply as the contract has it. tonic refuses a call with a reply that has headers only, so a
/// reply without a status in its headers is an answer and passes untouched.
fn rewrite(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let Some(code) = headers.get(Status::GRPC_STATUS) else { return response };
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    match replacement(Code::from_bytes(code.as_bytes()), headers) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn replacement(code: Code, headers: &HeaderMap) -> Option<Status> {
    if code == Code::OutOfRange {
        return Some(status::message_too_large());
    }
    if code == Code::Unimplemented {
        return Some(match headers.get(ACCEPT_ENCODING) {
            None => status::unknown_method(),
            Some(_) => unknown_compression(headers),
        });
    }
    // Nothing but reading the request makes tonic say INTERNAL: no message, one that ends too
    // early, or a frame that cannot be.
    (code == Code::Internal).then(|| {
        if speaks_of_compression(headers) { undeclared_compression() } else { status::malformed_message() }
    })
}

fn speaks_of_compression(headers: &HeaderMap) -> bool {
    headers
        .get(Status::GRPC_MESSAGE)
        .is_some_and(|text| text.to_str().is_ok_and(|text| text.contains("compressed-flag")))
}

/// INTERNAL, though the caller is to blame, since gRPC's "Compression" demands just that.
fn undeclared_compression() -> Status {
    status::status(
        Code::Internal,
        ErrorReason::MalformedMessage,
        "The message has its compressed-flag set, but the call names no grpc-encoding.",
    )
}

/// UNIMPLEMENTED with what can be read instead, as gRPC's "Compression" demands.
fn unknown_compression(headers: &HeaderMap) -> Status {
    let mut status = status::status(
        Code::Unimplemented,
        ErrorReason::MalformedMessage,
        "The message is compressed in a way that the service does not read.",
    );
    let mut kept = HeaderMap::new();
    if let Some(value) = headers.get(ACCEPT_ENCODING) {
        kept.insert(ACCEPT_ENCODING, value.clone());
    }
    *status.metadata_mut() = MetadataMap::from_headers(kept);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(status: Status) -> (Code, String) {
        let response = rewrite(status.into_http());
        let status = Status::from_header_map(response.headers()).unwrap();
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn what_tonic_says_of_a_request_gets_the_code_and_text_of_the_contract() {
        for (theirs, ours) in [
            (Status::out_of_range("found 70000 bytes"), status::message_too_large()),
            (Status::unimplemented(""), status::unknown_method()),
            (Status::internal("Missing request message."), status::malformed_message()),
        ] {
            assert_eq!(rewritten(theirs), (ours.code(), ours.message().to_owned()));
        }
    }

    #[test]
    fn a_status_of_the_service_is_left_alone() {
        let internal = status::internal();
        assert_eq!(rewritten(internal.clone()), (Code::Internal, internal.message().to_owned()));
    }

    #[test]
    fn a_refused_compression_says_what_can_be_read_instead() {
        let mut refused = Status::unimplemented("gzip");
        refused.metadata_mut().insert(ACCEPT_ENCODING, "identity".parse().unwrap());
        let response = rewrite(refused.into_http());
        assert_eq!(response.headers()[ACCEPT_ENCODING], "identity");
        assert!(response.headers().contains_key(Status::GRPC_STATUS_DETAILS));
    }
}
