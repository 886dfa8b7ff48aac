//! A gRPC service that only users with an access token may call. It knows them without asking anybody:
//! `SayHello` of `hello.proto` greets the user in the token's claims.
//!
//! ```sh
//! cargo run --release                                 # the identity service, in one terminal
//! cargo run -p identity-client --example guarded      # this one, in another
//! ```

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use identity_client::{Claims, RequireToken, Verifier, VerifierConfig};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic_prost::ProstCodec;
use tower_service::Service;

const LISTEN: &str = "127.0.0.1:50052";
const KEYS: &str = "http://127.0.0.1:8081/.well-known/jwks.json";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = env::args().nth(1).unwrap_or_else(|| KEYS.to_owned());
    let verifier = Verifier::new(VerifierConfig::with_jwks(&keys))?;
    println!("listening on {LISTEN}, with keys of {keys}");
    Server::builder()
        .layer(RequireToken::new(verifier).except_health())
        .add_service(Greeter)
        .serve(LISTEN.parse()?)
        .await?;
    Ok(())
}

/// The method. All that stands below is what tonic's code generator writes for a service.
async fn say_hello(request: tonic::Request<()>) -> Result<tonic::Response<String>, Status> {
    let claims = request.extensions().get::<Claims>();
    let claims = claims.ok_or_else(|| Status::internal("the layer is missing"))?;
    Ok(tonic::Response::new(format!("Hello, {:?} {}!", claims.role, claims.user_id)))
}

#[derive(Clone)]
struct Greeter;

struct SayHello;

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl UnaryService<()> for SayHello {
    type Response = String;
    type Future = Answer<tonic::Response<String>, Status>;

    fn call(&mut self, request: tonic::Request<()>) -> Self::Future {
        Box::pin(say_hello(request))
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = "hello.v1.Greeter";
}

impl Service<Request<Body>> for Greeter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != "/hello.v1.Greeter/SayHello" {
                return Ok(Status::unimplemented("There is no such method.").into_http());
            }
            Ok(Grpc::new(ProstCodec::<String, ()>::default()).unary(SayHello, request).await)
        })
    }
}
