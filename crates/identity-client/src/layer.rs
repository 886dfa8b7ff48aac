//! Lets only those call a service who have a valid access token.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::model::Claims;
use crate::verifier::{Verifier, VerifyError};

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// A [tower layer](Layer) for services of HTTP requests, such as those of tonic and axum: whoever has a valid
/// access token in `authorization: Bearer` gets through, with [`Claims`] in the request's extensions.
/// Everybody else is answered here: UNAUTHENTICATED in gRPC, 401 in other HTTP; UNAVAILABLE or 503 as long as
/// no keys could be fetched.
///
/// ```no_run
/// use identity_client::{Claims, RequireToken, Verifier, VerifierConfig};
/// use tonic::{Request, Status};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(VerifierConfig::with_jwks("http://127.0.0.1:8081/.well-known/jwks.json"))?;
/// let server = tonic::transport::Server::builder().layer(RequireToken::new(verifier).except_health());
/// # Ok(())
/// # }
///
/// // In a method of a service behind it:
/// fn caller<T>(request: &Request<T>) -> Result<Claims, Status> {
///     let claims = request.extensions().get::<Claims>().copied();
///     claims.ok_or_else(|| Status::internal("the layer is missing"))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RequireToken {
    verifier: Verifier,
    open: Arc<Vec<String>>,
}

impl RequireToken {
    /// Accepts the tokens that `verifier` does.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, open: Arc::default() }
    }

    /// Lets everybody call this gRPC service, by its full name, without claims.
    #[must_use]
    pub fn except(mut self, service: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.open).push(service.into());
        self
    }

    /// Lets everybody ask for the service's health.
    #[must_use]
    pub fn except_health(self) -> Self {
        self.except(HEALTH)
    }

    /// Lets everybody ask for the service's contract.
    #[must_use]
    pub fn except_reflection(self) -> Self {
        REFLECTION.into_iter().fold(self, Self::except)
    }

    fn is_open(&self, path: &str) -> bool {
        let service =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        service.is_some_and(|service| self.open.iter().any(|open| open == service))
    }

    async fn claims(&self, headers: &HeaderMap) -> Result<Claims, Refusal> {
        let token = bearer(headers).ok_or(Refusal::Unauthenticated)?;
        Ok(self.verifier.verify(token).await?)
    }
}

/// The one access token of a request (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// What callers are told: not which check failed.
#[derive(Clone, Copy)]
enum Refusal {
    Unauthenticated,
    Unavailable,
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Invalid(_) => Self::Unauthenticated,
            VerifyError::KeysUnavailable => Self::Unavailable,
        }
    }
}

impl Refusal {
    fn answer<B: Default>(self, headers: &HeaderMap) -> Response<B> {
        if headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            return self.status().into_http();
        }
        let mut answer = Response::new(B::default());
        match self {
            Self::Unauthenticated => {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        }
        answer
    }

    fn status(self) -> Status {
        match self {
            Self::Unauthenticated => Status::unauthenticated("A valid access token is required."),
            Self::Unavailable => {
                Status::unavailable("Access tokens cannot be verified yet. Try again later.")
            }
        }
    }
}

impl<S> Layer<S> for RequireToken {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// What [`RequireToken`] makes of a service.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    guard: RequireToken,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The clone that stays has not been asked whether it is ready; the one that was asked is used.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let guard = self.guard.clone();
        Box::pin(async move {
            // Nobody in front of this layer says who calls.
            request.extensions_mut().remove::<Claims>();
            if !guard.is_open(request.uri().path()) {
                match guard.claims(request.headers()).await {
                    Ok(claims) => _ = request.extensions_mut().insert(claims),
                    Err(refusal) => return Ok(refusal.answer(request.headers())),
                }
            }
            inner.call(request).await
        })
    }
}
