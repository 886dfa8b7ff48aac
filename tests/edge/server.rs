//! A server made of the edge, the health service and a handler that does what a test asks of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::domain::SystemClock;
use identity::proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use identity::proto::v1::{
    GetUserRequest, GetUserResponse, LoginRequest, LoginResponse, RegisterRequest, RegisterResponse, User,
};
use identity::rpc::call::{Deadline, PeerAddress};
use identity::rpc::status;
use identity::server::drain::Drained;
use identity::server::edge::{CallId, EdgeSettings};
use identity::server::health::HealthHandle;
use identity::server::listener::ListenerSettings;
use identity::server::{edge, health, listener, reflection};
use prost::Message;
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

pub(crate) const SERVICE: &str = "identity.v1.IdentityService";
pub(crate) const GET_USER: &str = "/identity.v1.IdentityService/GetUser";

/// What the handler has come to, told to the test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Entered,
    Dropped,
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) health: HealthHandle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    /// A permit lets one waiting call go on.
    pub(crate) gate: Arc<Semaphore>,
    served: JoinHandle<Drained>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(ListenerSettings::default(), EdgeSettings::default())
    }

    pub(crate) fn with(listener_settings: ListenerSettings, edge_settings: EdgeSettings) -> Self {
        let listener = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr = listener.local_addr().unwrap();
        let (told, events) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let (health, health_service) = health::service([SERVICE]);
        let handler = Handler { told, gate: Arc::clone(&gate) };

        let mut routes = RoutesBuilder::default();
        routes.add_service(IdentityServiceServer::new(handler).max_decoding_message_size(64 * 1024));
        routes.add_service(health_service);
        reflection::register(&mut routes).unwrap();
        let service = edge::layer(routes.routes(), edge_settings, Arc::new(SystemClock));

        let shutdown = CancellationToken::new();
        let served = tokio::spawn(listener::serve(listener, service, listener_settings, shutdown.clone()));
        Self { addr, health, shutdown, events, gate, served }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.addr)).unwrap().connect().await.unwrap()
    }

    /// Waits for the server to stop, after `shutdown` has been cancelled.
    pub(crate) async fn drained(mut self) -> Drained {
        (&mut self.served).await.unwrap()
    }

    /// Stops the server.
    pub(crate) async fn stop(mut self) -> Drained {
        self.shut_down().await
    }

    /// Stops the server; what its handlers told can still be read, up to its end.
    pub(crate) async fn shut_down(&mut self) -> Drained {
        self.shutdown.cancel();
        (&mut self.served).await.unwrap()
    }
}

struct Handler {
    told: mpsc::UnboundedSender<Event>,
    gate: Arc<Semaphore>,
}

/// Tells the test when the handler's future goes.
struct TellDrop<'a>(&'a Handler);

impl Drop for TellDrop<'_> {
    fn drop(&mut self) {
        let _ = self.0.told.send(Event::Dropped);
    }
}

#[tonic::async_trait]
impl IdentityService for Handler {
    async fn register(
        &self,
        _: tonic::Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Err(status::email_taken())
    }

    async fn login(&self, _: tonic::Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Err(status::login_failed())
    }

    /// Does what the `user_id` names; the user returned has what the edge put into the extensions.
    async fn get_user(
        &self,
        request: tonic::Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let _tell = TellDrop(self);
        let _ = self.told.send(Event::Entered);
        match request.get_ref().user_id.as_str() {
            "panic" => panic!("secret text"),
            "wait" => self.gate.acquire().await.unwrap().forget(),
            _ => {}
        }
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().unwrap().at();
        let user = User {
            id: extensions.get::<CallId>().unwrap().as_str().to_owned(),
            email: extensions.get::<PeerAddress>().unwrap().0.to_string(),
            etag: deadline.duration_since(tokio::time::Instant::now()).as_secs_f64().to_string(),
            ..User::default()
        };
        Ok(Response::new(GetUserResponse { user: Some(user) }))
    }
}

/// A client that sends what no gRPC library would.
pub(crate) struct RawClient(SendRequest<Full<Bytes>>);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) http_status: StatusCode,
    /// Headers and trailers.
    pub(crate) metadata: HeaderMap,
    pub(crate) body: Bytes,
}

impl RawClient {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
        let collected = body.collect().await.unwrap();
        let mut metadata = head.headers;
        metadata.extend(collected.trailers().cloned().unwrap_or_default());
        Reply { http_status: head.status, metadata, body: collected.to_bytes() }
    }

    /// Calls GetUser with `headers` on top of those that gRPC demands.
    pub(crate) async fn get_user(&mut self, user_id: &str, headers: &[(&'static str, &str)]) -> Reply {
        let message = GetUserRequest { user_id: user_id.to_owned() };
        self.send(grpc(GET_USER, headers, frame(&message.encode_to_vec()))).await
    }
}

/// A gRPC request to `path` with `body` as it is.
pub(crate) fn grpc(path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://identity{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// `message` as gRPC frames it: not compressed, its length, itself.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

impl Reply {
    pub(crate) fn request_id(&self) -> &str {
        self.metadata["x-request-id"].to_str().unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        Status::from_header_map(&self.metadata).expect("a reply has a gRPC status")
    }

    /// The code and the reason of a refusal.
    pub(crate) fn refusal(&self) -> (Code, String) {
        refusal(&self.status())
    }

    pub(crate) fn user(&self) -> User {
        assert_eq!(self.status().code(), Code::Ok, "{self:?}");
        GetUserResponse::decode(&self.body[5..]).unwrap().user.unwrap()
    }
}

/// The code and the reason of a refusal.
pub(crate) fn refusal(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("a refusal has a reason");
    assert_eq!((info.domain.as_str(), info.metadata), ("identity", HashMap::new()));
    (status.code(), info.reason)
}
