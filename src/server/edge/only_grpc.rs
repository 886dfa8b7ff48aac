//! Refuses what is not gRPC, in HTTP's terms, since its sender would not read a gRPC status.
//!
//! Rules: "gRPC over HTTP2", the sections Requests and Responses.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower::Service;

/// Lets only gRPC through to `S`.
#[derive(Clone)]
pub(super) struct OnlyGrpc<S> {
    inner: S,
}

impl<S> OnlyGrpc<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, A, B> Service<Request<A>> for OnlyGrpc<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<B>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        match refusal(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(response) => Either::Right(ready(Ok(response))),
        }
    }
}

fn refusal<A, B: Default>(request: &Request<A>) -> Option<Response<B>> {
    if request.method() != Method::POST {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED);
        // RFC 9110, 15.5.6: a 405 has to say what is allowed.
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|value| is_grpc(value.as_bytes()));
    (!is_grpc).then(|| answer(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

fn answer<B: Default>(status: StatusCode) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = status;
    response
}

/// `application/grpc`, with or without a subtype and parameters, but not `application/grpc-web`.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";

    // Media types know no case (RFC 9110, 8.3.1).
    content_type.split_at_checked(GRPC.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';', ..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_of_grpc_has_a_subtype_a_parameter_or_neither() {
        for text in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
            assert!(is_grpc(text.as_bytes()), "{text}");
        }
        for text in ["", "application/json", "application/grpc-web", "application/grpcs", "application/grp"] {
            assert!(!is_grpc(text.as_bytes()), "{text}");
        }
    }
}
