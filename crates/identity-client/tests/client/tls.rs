//! TLS: who is trusted, and how the client says who it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use identity_client::{Client, ClientConfig, ConfigError, ErrorKind, Verifier, VerifierConfig, VerifyError};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, SERVER};
use crate::jwks::KeyServer;
use crate::service::{Service, patient, register};
use crate::tokens::{Signer, now};

/// The files of a server and a client with certificates of one authority, `ca.pem`; `other.pem` is an
/// authority that has nothing to do with them.
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new() };
        let server = files.authority.server();
        let client = files.authority.service(&["spiffe://example.com/billing"]);
        for (name, text) in [
            ("ca.pem", files.authority.pem()),
            ("other.pem", Authority::new().pem()),
            ("server.pem", server.pem.clone()),
            ("server.key", server.key_pem()),
            ("client.pem", client.pem.clone()),
            ("client.key", client.key_pem()),
        ] {
            fs::write(files.path(name), text).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A service that wants a certificate of every client.
    async fn serve(&self) -> Service {
        let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name));
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        Service::start(&[
            ("IDENTITY_TLS_CERT", &text(&cert)),
            ("IDENTITY_TLS_KEY", &text(&key)),
            ("IDENTITY_TLS_CLIENT_CA", &text(&ca)),
        ])
        .await
    }

    /// What a server of keys speaks TLS with.
    fn acceptor(&self) -> TlsAcceptor {
        let certified = self.authority.server();
        let key = PrivateKeyDer::from_pem_slice(certified.key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.der], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_reaches_a_service_that_it_trusts_and_is_known_to_it() {
    let files = Files::new();
    let service = files.serve().await;
    let anonymous = patient(&format!("https://{}", service.server.address())).ca_file(files.path("ca.pem"));
    let config =
        anonymous.clone().client_certificate_files(files.path("client.pem"), files.path("client.key"));
    let client = Client::connect(&config).unwrap();
    let ada = register(&client, "ada@example.com").await.user;
    // Without an access token, only a service may look for users.
    assert_eq!(client.get_user(ada.id).await.unwrap(), ada);
    let named = Client::connect(&config.clone().server_name(SERVER)).unwrap();
    assert_eq!(named.get_user(ada.id).await.unwrap(), ada);

    let distrusting = config.clone().ca_file(files.path("other.pem"));
    let elsewhere = config.server_name("elsewhere.example.com");
    for config in [anonymous, distrusting, elsewhere] {
        let error = Client::connect(&config).unwrap().get_user(ada.id).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{config:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let files = Files::new();
    let connect = |config: ClientConfig| Client::connect(&config).map(drop).unwrap_err();
    for uri in ["", "nonsense", "127.0.0.1:50051", "ftp://example.com", "https://"] {
        assert!(matches!(connect(ClientConfig::new(uri)), ConfigError::InvalidUri { .. }), "{uri}");
    }
    let plaintext = ClientConfig::new("http://127.0.0.1:1").ca_file(files.path("ca.pem"));
    assert!(matches!(connect(plaintext), ConfigError::CertificatesWithoutTls));
    let secure = ClientConfig::new("https://127.0.0.1:1");
    let missing = secure.clone().ca_file(Path::new("missing.pem"));
    assert!(matches!(connect(missing), ConfigError::UnreadableFile { .. }));
    let swapped = secure.clone().client_certificate_files(files.path("client.key"), files.path("client.pem"));
    assert!(matches!(connect(swapped), ConfigError::InvalidCertificates(_)));
    assert!(matches!(connect(secure.service_token("line\nbreak")), ConfigError::MalformedServiceToken));
}

#[tokio::test]
async fn keys_can_be_fetched_over_tls() {
    let files = Files::new();
    let key = Signer::ed25519("a");
    let server = KeyServer::start_with(&[&key], Some(files.acceptor())).await;
    let verifier = |authority: &str| {
        let config = VerifierConfig::with_jwks(server.uri().replace("http:", "https:"));
        Verifier::new(config.ca_file(files.path(authority))).unwrap()
    };
    verifier("ca.pem").verify_at(&key.token(), now()).await.unwrap();
    let error = verifier("other.pem").verify_at(&key.token(), now()).await.unwrap_err();
    assert_eq!(error, VerifyError::KeysUnavailable);
}
