//! TLS: who is trusted, and how the client says who it is.

use std::fs;
use std::path::{Path, PathBuf};

use identity_client::{Client, ClientConfig, ConfigError, ErrorKind};
use tempfile::TempDir;

use crate::certificates::{Authority, SERVER};
use crate::service::{Service, patient, register};

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
