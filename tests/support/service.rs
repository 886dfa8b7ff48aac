//! The real server in this process, on a free port and a database of its own.

use std::sync::Arc;
use std::time::Duration;

use identity::config::{Flags, MapEnvironment, Settings};
use identity::domain::{Clock, SystemClock};
use identity::proto::v1::audit_service_client::AuditServiceClient;
use identity::proto::v1::directory_service_client::DirectoryServiceClient;
use identity::proto::v1::identity_service_client::IdentityServiceClient;
use identity::proto::v1::{
    ChangePasswordRequest, GetUserRequest, GetUserResponse, ListSessionsRequest, ListSessionsResponse,
    LoginRequest, LoginResponse, LogoutRequest, RefreshSessionRequest, RefreshSessionResponse,
    RegisterRequest, RegisterResponse, RevokeSessionRequest, VerifyTokenRequest, VerifyTokenResponse,
};
use identity::server::{Server, Sockets, Stopped, listener};
use identity::service::access::AccessTable;
use identity::storage::{DatabaseUrl, migrate};
use identity::telemetry::lines::DroppedLines;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::postgres::{Cluster, Database};

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Defines each of the named tests, `async fn name(engine: Engine)`, once for either database.
macro_rules! on_both_databases {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::support::service::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::support::service::Engine::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;

/// A database that exists for one test; a SQLite file goes with it.
pub(crate) struct TestDatabase {
    /// For DATABASE_URL.
    pub(crate) url: String,
    /// Where SQLite's file is, and where a test may put others.
    pub(crate) folder: TempDir,
    /// PostgreSQL's database, for SQL from outside.
    pub(crate) postgres: Option<Database>,
}

impl TestDatabase {
    /// A database without tables.
    pub(crate) fn empty(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        match engine {
            Engine::Sqlite => {
                let url = format!("sqlite:{}", folder.path().join("identity.db").display());
                Self { url, folder, postgres: None }
            }
            Engine::Postgres => {
                let database = block_in_place(|| Cluster::shared().create_database());
                Self { url: database.url.clone(), folder, postgres: Some(database) }
            }
        }
    }

    /// A database with all tables.
    pub(crate) async fn migrated(engine: Engine) -> Self {
        if engine == Engine::Sqlite {
            let database = Self::empty(engine);
            migrate::run(&database.parsed(), MIGRATION_WAIT).await.unwrap();
            return database;
        }
        let template = template().await;
        let database = block_in_place(|| Cluster::shared().create_database_from(template));
        Self { url: database.url.clone(), folder: tempfile::tempdir().unwrap(), postgres: Some(database) }
    }

    /// The same database for a second server. It exists as long as this value.
    pub(crate) fn again(&self) -> Self {
        Self { url: self.url.clone(), folder: tempfile::tempdir().unwrap(), postgres: None }
    }

    /// The URL as the program reads it.
    pub(crate) fn parsed(&self) -> DatabaseUrl {
        DatabaseUrl::parse(&self.url).unwrap().0
    }
}

/// The name of a migrated PostgreSQL database that others are copied from.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
    let database = TEMPLATE
        .get_or_init(|| async {
            let database = block_in_place(|| Cluster::shared().create_database());
            let (url, _) = DatabaseUrl::parse(&database.url).unwrap();
            migrate::run(&url, MIGRATION_WAIT).await.unwrap();
            database
        })
        .await;
    database.name()
}

/// 32 bytes, base64.
pub(crate) const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A running server with its database.
pub(crate) struct TestService {
    pub(crate) database: TestDatabase,
    pub(crate) server: Server,
    stop: CancellationToken,
}

impl TestService {
    /// A server on a fresh database, with the cheapest passwords.
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(TestDatabase::migrated(engine).await, &[]).await
    }

    /// A server on `database`, with further environment variables.
    pub(crate) async fn start_with(database: TestDatabase, variables: &[(&str, &str)]) -> Self {
        Self::start_at(database, variables, Arc::new(SystemClock)).await
    }

    /// As [`TestService::start_with`], at a time that the test says.
    pub(crate) async fn start_at(
        database: TestDatabase,
        variables: &[(&str, &str)],
        clock: Arc<dyn Clock>,
    ) -> Self {
        let service = Self::launch(database, variables, clock);
        assert!(service.server.ready().await, "the server did not come up");
        service
    }

    /// As [`TestService::start_with`], where others may call than the contract says.
    pub(crate) async fn start_with_access(database: TestDatabase, access: AccessTable) -> Self {
        let service = Self::launch_with_access(database, &[], Arc::new(SystemClock), access);
        assert!(service.server.ready().await, "the server did not come up");
        service
    }

    /// Starts a server without waiting until it serves.
    pub(crate) fn launch(database: TestDatabase, variables: &[(&str, &str)], clock: Arc<dyn Clock>) -> Self {
        Self::launch_with_access(database, variables, clock, AccessTable::default())
    }

    fn launch_with_access(
        database: TestDatabase,
        variables: &[(&str, &str)],
        clock: Arc<dyn Clock>,
        access: AccessTable,
    ) -> Self {
        let settings = settings(&database.url, variables);
        let stop = CancellationToken::new();
        let grpc = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let http = Some(listener::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let sockets = Sockets { grpc, http, health: None };
        let dropped = DroppedLines::default();
        let server =
            Server::start_with_access(settings, sockets, clock, dropped, stop.clone(), access).unwrap();
        Self { database, server, stop }
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.server.address()))
    }

    /// The value of a metric, named with its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.server.http_address().unwrap()).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let value = reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name}: {reply}")).parse().unwrap()
    }

    /// Stops the server in order, and gives its database back.
    pub(crate) async fn stop(self) -> (Stopped, TestDatabase) {
        self.stop.cancel();
        (self.server.stopped().await.unwrap(), self.database)
    }
}

/// Longer than all migrations take.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);

/// On a busy machine a statement may take longer than operation allows. A test of that limit sets the
/// variable to nothing, which is the default.
pub(crate) const PATIENT_STATEMENTS: (&str, &str) = ("IDENTITY_STATEMENT_TIMEOUT", "1m");

/// The settings of a test's server: `variables` win over what all tests share.
pub(crate) fn settings(url: &str, variables: &[(&str, &str)]) -> Settings {
    let shared = [
        ("DATABASE_URL", url),
        ("IDENTITY_LISTEN", "127.0.0.1:0"),
        ("IDENTITY_BCRYPT_COST", "4"),
        ("IDENTITY_MASTER_KEY", MASTER_KEY),
        PATIENT_STATEMENTS,
        ("IDENTITY_QUEUE_TIMEOUT", "1m"),
    ];
    let environment: MapEnvironment = shared.into_iter().chain(variables.iter().copied()).collect();
    Settings::resolve(&Flags::default(), &environment).unwrap().settings
}

/// The calls, as a Rust service would make them.
#[derive(Clone)]
pub(crate) struct Client {
    /// The connection, for calls that no generated client makes.
    pub(crate) channel: Channel,
    pub(crate) service: IdentityServiceClient<Channel>,
    pub(crate) directory: DirectoryServiceClient<Channel>,
    pub(crate) audit: AuditServiceClient<Channel>,
    /// What the server is told of how long the client waits.
    deadline: Option<Duration>,
}

impl Client {
    /// Waits for a minute, and leaves the deadline of its calls to the server.
    pub(crate) fn new(uri: &str) -> Self {
        Self::connecting(uri, Duration::from_secs(60), None)
    }

    /// Gives its calls the longest deadline that the server accepts.
    pub(crate) fn patient(uri: &str) -> Self {
        let deadline = Duration::from_secs(300);
        Self::connecting(uri, deadline, Some(deadline))
    }

    fn connecting(uri: &str, timeout: Duration, deadline: Option<Duration>) -> Self {
        let channel = Endpoint::from_shared(uri.to_owned()).unwrap().timeout(timeout).connect_lazy();
        Self {
            service: IdentityServiceClient::new(channel.clone()),
            directory: DirectoryServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            channel,
            deadline,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        request
    }

    pub(crate) async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Status> {
        self.service.clone().register(self.request(request)).await.map(Response::into_inner)
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<LoginResponse, Status> {
        let request = LoginRequest { email: email.into(), password: password.into() };
        self.service.clone().login(self.request(request)).await.map(Response::into_inner)
    }

    /// The user `user_id` (empty: the caller), with an access token or without one.
    pub(crate) async fn get_user(
        &self,
        token: Option<&str>,
        user_id: &str,
    ) -> Result<GetUserResponse, Status> {
        let message = GetUserRequest { user_id: user_id.into(), ..GetUserRequest::default() };
        let request = match token {
            Some(token) => self.request_by(token, message),
            None => self.request(message),
        };
        self.service.clone().get_user(request).await.map(Response::into_inner)
    }

    /// A request by the holder of an access token.
    pub(crate) fn request_by<T>(&self, token: &str, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<RefreshSessionResponse, Status> {
        let request = self.request(RefreshSessionRequest { refresh_token: refresh_token.into() });
        self.service.clone().refresh_session(request).await.map(Response::into_inner)
    }

    pub(crate) async fn logout(&self, refresh_token: &str) -> Result<(), Status> {
        let request = self.request(LogoutRequest { refresh_token: refresh_token.into() });
        self.service.clone().logout(request).await.map(drop)
    }

    pub(crate) async fn list_sessions(
        &self,
        token: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListSessionsResponse, Status> {
        let message = ListSessionsRequest { page_size, page_token: page_token.into() };
        let request = self.request_by(token, message);
        self.service.clone().list_sessions(request).await.map(Response::into_inner)
    }

    pub(crate) async fn revoke_session(&self, token: &str, session_id: &str) -> Result<(), Status> {
        let request = self.request_by(token, RevokeSessionRequest { session_id: session_id.into() });
        self.service.clone().revoke_session(request).await.map(drop)
    }

    pub(crate) async fn change_password(&self, token: &str, current: &str, new: &str) -> Result<(), Status> {
        let message = ChangePasswordRequest { current_password: current.into(), new_password: new.into() };
        self.service.clone().change_password(self.request_by(token, message)).await.map(drop)
    }

    pub(crate) async fn verify_token(&self, access_token: &str) -> Result<VerifyTokenResponse, Status> {
        let request = self.request(VerifyTokenRequest { access_token: access_token.into() });
        self.service.clone().verify_token(request).await.map(Response::into_inner)
    }
}

/// A password that the policy accepts.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A registration that is in order.
pub(crate) fn registration(email: &str) -> RegisterRequest {
    RegisterRequest {
        email: email.into(),
        password: PASSWORD.into(),
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        tenant_name: "Analytical Engines".into(),
        request_id: String::new(),
    }
}

/// The reason in a status's ErrorInfo.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The fields that a status complains of, in its order.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
