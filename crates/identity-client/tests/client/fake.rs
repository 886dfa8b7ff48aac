//! A service that answers what a test says, and remembers what it was asked.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use identity_client::{Claims, Client, ClientConfig};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower_service::Service;

/// What becomes of a call.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Success, with a message in which every field is empty.
    Empty,
    Error(Status),
    /// Nothing, ever.
    Silence,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// For the next calls; the last one for all further ones.
    answers: VecDeque<Answer>,
    seen: Vec<HeaderMap>,
    /// The methods that were called.
    methods: BTreeSet<String>,
    /// What the layer in front of the service found out.
    claims: Vec<Option<Claims>>,
}

impl Fake {
    pub(crate) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let state = State { answers: answers.into_iter().collect(), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The metadata of the calls up to now.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.0.lock().unwrap().seen.clone()
    }

    /// The methods that were called up to now.
    pub(crate) fn methods(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().methods.clone()
    }

    /// The claims that came with the calls up to now.
    pub(crate) fn claims(&self) -> Vec<Option<Claims>> {
        self.0.lock().unwrap().claims.clone()
    }

    pub(crate) async fn serve(&self) -> SocketAddr {
        let (address, incoming) = incoming().await;
        tokio::spawn(Server::builder().add_service(self.clone()).serve_with_incoming(incoming));
        address
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&ClientConfig::new(format!("http://{}", self.serve().await))).unwrap()
    }

    fn next<B>(&self, request: &Request<B>) -> Answer {
        let mut state = self.0.lock().unwrap();
        state.seen.push(request.headers().clone());
        state.methods.extend(request.uri().path().rsplit('/').next().map(str::to_owned));
        state.claims.push(request.extensions().get().copied());
        if state.answers.len() > 1 {
            state.answers.pop_front().unwrap()
        } else {
            state.answers.front().unwrap().clone()
        }
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "identity.v1.IdentityService";
}

impl Service<Request<Body>> for Fake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.next(&request);
        Box::pin(async move {
            Ok(match answer {
                Answer::Empty => empty(),
                Answer::Error(status) => status.into_http(),
                Answer::Silence => std::future::pending().await,
            })
        })
    }
}

/// One message of no bytes, and the status OK.
fn empty() -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let message = Full::new(Bytes::from_static(&[0; 5]));
    let body = message.with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

/// A free port, and who connects to it.
pub(crate) async fn incoming() -> (SocketAddr, TcpListenerStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), TcpListenerStream::new(listener))
}
