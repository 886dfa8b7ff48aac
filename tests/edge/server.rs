//! A server made of the edge, the health service and a handler that does what a test asks of it.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::domain::SystemClock;
use identity::proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use identity::proto::v1::{
    ChangePasswordRequest, ChangePasswordResponse, GetUserRequest, GetUserResponse, ListSessionsRequest,
    ListSessionsResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshSessionRequest,
    RefreshSessionResponse, RegisterRequest, RegisterResponse, RevokeSessionRequest, RevokeSessionResponse,
    User, VerifyTokenRequest, VerifyTokenResponse,
};
use identity::rpc::call::{CertifiedPeer, Deadline, PeerAddress};
use identity::rpc::status;
use identity::server::admission::{Admission, AdmissionSettings};
use identity::server::budgets::{BudgetSettings, Budgets};
use identity::server::drain::Drained;
use identity::server::edge::{CallCounts, CallId, EdgeSettings};
use identity::server::health::HealthHandle;
use identity::server::listener::ListenerSettings;
use identity::server::tls::Tls;
use identity::server::{edge, health, listener, reflection};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) const SERVICE: &str = "identity.v1.IdentityService";

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
    pub(crate) admission: Admission,
    pub(crate) budgets: Budgets,
    served: JoinHandle<Drained>,
}

/// What a server is started with.
#[derive(Clone, Default)]
pub(crate) struct Limits {
    pub(crate) listener: ListenerSettings,
    pub(crate) edge: EdgeSettings,
    pub(crate) admission: AdmissionSettings,
    pub(crate) budgets: BudgetSettings,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(ListenerSettings::default(), EdgeSettings::default())
    }

    pub(crate) fn with(listener_settings: ListenerSettings, edge_settings: EdgeSettings) -> Self {
        Self::limited(Limits { listener: listener_settings, edge: edge_settings, ..Limits::default() })
    }

    pub(crate) fn limited(limits: Limits) -> Self {
        Self::over(None, limits)
    }

    /// A server that speaks TLS.
    pub(crate) fn over_tls(tls: Tls, listener_settings: ListenerSettings) -> Self {
        Self::over(Some(tls), Limits { listener: listener_settings, ..Limits::default() })
    }

    fn over(tls: Option<Tls>, limits: Limits) -> Self {
        let budgets = Budgets::new(limits.budgets);
        let admission = Admission::new(limits.admission, budgets.clone());
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
        let service = edge::layer(
            routes.routes(),
            limits.edge,
            Arc::new(SystemClock),
            Arc::new(CallCounts::new().unwrap()),
        );

        let shutdown = CancellationToken::new();
        let served = tokio::spawn(listener::serve(
            listener,
            tls,
            service,
            limits.listener,
            admission.clone(),
            shutdown.clone(),
        ));
        Self { addr, health, shutdown, events, gate, admission, budgets, served }
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

    /// Does what the `user_id` names; the user returned has what the edge put into the extensions. With a
    /// number, its first name is so many bytes long.
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
        let length = request.get_ref().user_id.parse().unwrap_or(0);
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().unwrap().at();
        let user = User {
            id: extensions.get::<CallId>().unwrap().as_str().to_owned(),
            last_name: extensions.get::<CertifiedPeer>().map(|peer| peer.0.to_string()).unwrap_or_default(),
            email: extensions.get::<PeerAddress>().unwrap().0.to_string(),
            etag: deadline.duration_since(tokio::time::Instant::now()).as_secs_f64().to_string(),
            first_name: "x".repeat(length),
            ..User::default()
        };
        Ok(Response::new(GetUserResponse { user: Some(user) }))
    }

    async fn refresh_session(
        &self,
        _: tonic::Request<RefreshSessionRequest>,
    ) -> Result<Response<RefreshSessionResponse>, Status> {
        Err(status::unknown_method())
    }

    async fn logout(&self, _: tonic::Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(status::unknown_method())
    }

    async fn list_sessions(
        &self,
        _: tonic::Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        Err(status::unknown_method())
    }

    async fn revoke_session(
        &self,
        _: tonic::Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        Err(status::unknown_method())
    }

    async fn change_password(
        &self,
        _: tonic::Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        Err(status::unknown_method())
    }

    async fn verify_token(
        &self,
        _: tonic::Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        Err(status::unknown_method())
    }
}
