//! TLS of the real binary, and the port for probes without a certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::proto::v1::{GetUserRequest, RegisterResponse};
use prost::Message as _;
use rustls::ClientConfig;
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::clients::{Health, eventually, soon, variables};
use crate::support::certificates::{Authority, Certified, connect};
use crate::support::process::Process;
use crate::support::raw::{GET_USER, RawClient, frame, grpc};
use crate::support::service::{Client, Engine, TestDatabase, registration};

/// A ready server that wants client certificates and answers for its health alone elsewhere.
struct Secured {
    folder: TempDir,
    authority: Authority,
    process: Process,
    examples: Vec<String>,
    _database: TestDatabase,
}

impl Secured {
    async fn start(others: &[(&'static str, &str)]) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        authority.server().write(folder.path());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key, clients) = (path("tls.crt"), path("tls.key"), path("ca.pem"));
        let settings = [
            ("IDENTITY_TLS_CERT", certificate.as_str()),
            ("IDENTITY_TLS_KEY", &key),
            ("IDENTITY_TLS_CLIENT_CA", &clients),
            // TLS is what lets it listen everywhere.
            ("IDENTITY_LISTEN", "0.0.0.0:0"),
            ("IDENTITY_HEALTH_LISTEN", "127.0.0.1:0"),
        ];
        let database = TestDatabase::migrated(Engine::Sqlite).await;
        let mut process = Process::start(variables(&database.url, &[&settings, others].concat())).await;
        let examples = soon("the server is ready", process.examples()).await;
        Self { folder, authority, process, examples, _database: database }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.process.address.port()).into()
    }

    fn client(&self) -> Arc<ClientConfig> {
        let certificate = self.authority.service(&["spiffe://example.com/billing"]);
        Arc::new(self.authority.client(Some(&certificate)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_in_plaintext_on_a_port_of_its_own_and_nothing_else_is() {
    let secured = Secured::start(&[]).await;
    let stream = connect(secured.address(), &secured.client()).await.unwrap();
    let mut client = RawClient::over(stream).await.unwrap();
    // The call comes through: a service has to say whom it wants.
    assert_eq!(client.get_user("", &[]).await.status().code(), Code::InvalidArgument);
    for example in &secured.examples {
        assert!(example.contains("-cacert ca.pem -cert client.pem -key client.key"), "{example}");
    }
    eventually("it says that it wants certificates", async || {
        secured.process.log().contains("on, with client certificates")
    })
    .await;

    let health = Health::of(secured.process.health()).await;
    health.assert(ServingStatus::Serving).await;
    assert_eq!(health.check("nonsense").await.unwrap_err().code(), Code::NotFound);
    let other = Client::new(&format!("http://{}", secured.process.health()));
    let refusal = other.register(registration("ada@example.com")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
    assert_eq!(other.get_user(None, "").await.unwrap_err().code(), Code::Unimplemented);

    let mut watch = health.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    secured.process.signal("TERM");
    watch.becomes(ServingStatus::NotServing).await;
    watch.ends().await;
    let (status, log) = soon("the server stops", secured.process.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_makes_its_service_a_caller_and_no_certificate_makes_none() {
    let secured = Secured::start(&[]).await;
    let call = async |certificate: Certified, path: &str, message: Vec<u8>| {
        let config = Arc::new(secured.authority.client(Some(&certificate)));
        let stream = connect(secured.address(), &config).await.unwrap();
        let mut client = RawClient::over(stream).await.unwrap();
        client.send(grpc(path, &[], frame(&message))).await
    };
    let service = || secured.authority.service(&["spiffe://example.com/billing"]);
    let register = "/identity.v1.IdentityService/Register";
    let reply = call(service(), register, registration("ada@example.com").encode_to_vec()).await;
    let user = RegisterResponse::decode(&reply.body[5..]).unwrap().user.unwrap();

    let wanted = GetUserRequest { user_id: user.id.clone(), ..GetUserRequest::default() }.encode_to_vec();
    assert_eq!(call(service(), GET_USER, wanted.clone()).await.user(), user);
    let refusal = call(service(), "/identity.v1.IdentityService/ListSessions", Vec::new()).await.refusal();
    assert_eq!(refusal, (Code::PermissionDenied, "PERMISSION_DENIED".to_owned()));
    // A certificate of nobody in particular lets in and says no more.
    let refusal = call(secured.authority.service(&[]), GET_USER, wanted).await.refusal();
    assert_eq!(refusal, (Code::Unauthenticated, "TOKEN_INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_for_health_is_open_as_long_as_that_for_calls() {
    let secured = Secured::start(&[("IDENTITY_DRAIN_DELAY", "10m")]).await;
    let health = Health::of(secured.process.health()).await;
    let mut watch = health.watch("readiness").await;
    watch.becomes(ServingStatus::Serving).await;
    secured.process.signal("TERM");
    watch.becomes(ServingStatus::NotServing).await;
    Health::of(secured.process.health()).await.assert(ServingStatus::NotServing).await;
    assert!(connect(secured.address(), &secured.client()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let secured = Secured::start(&[]).await;
    let renewed = secured.authority.server();
    renewed.write(secured.folder.path());
    let client = secured.client();
    eventually("the renewed certificate is shown", async || {
        let stream = connect(secured.address(), &client).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0] == renewed.der
    })
    .await;
}
