//! The real service in this process, on SQLite and free ports.

use std::sync::Arc;
use std::time::Duration;

use identity::config::{Flags, MapEnvironment, Settings};
use identity::crypto::KeyAlgorithm;
use identity::crypto::MasterKey;
use identity::domain::{AllowedRpcs, ServiceName, SystemClock};
use identity::server::{Server, Sockets, listener};
use identity::service::access::Rpc;
use identity::service::keys::{Custody, Propagation};
use identity::service::{Authority, service_tokens};
use identity::storage::url::DatabaseUrl;
use identity::storage::{LaneSizes, Storage, StorageSettings};
use identity::telemetry::lines::DroppedLines;
use identity_client::{Client, ClientConfig, Login, Registration};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// 32 bytes, base64.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running service. Ends when dropped.
pub(crate) struct Service {
    pub(crate) server: Server,
    database_url: String,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Service {
    /// A service with the cheapest passwords, and further environment variables.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite:{}", folder.path().join("identity.db").display());
        let shared = [
            ("DATABASE_URL", database_url.as_str()),
            ("IDENTITY_BCRYPT_COST", "4"),
            ("IDENTITY_MASTER_KEY", MASTER_KEY),
            // On a busy machine a statement may take longer than operation allows.
            ("IDENTITY_STATEMENT_TIMEOUT", "1m"),
        ];
        let environment: MapEnvironment = shared.into_iter().chain(variables.iter().copied()).collect();
        let settings = Settings::resolve(&Flags::default(), &environment).unwrap().settings;
        let bind = || listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sockets = Sockets { grpc: bind(), http: Some(bind()), health: None };
        let stop = CancellationToken::new();
        let server =
            Server::start(settings, sockets, Arc::new(SystemClock), DroppedLines::default(), stop.clone())
                .unwrap();
        assert!(server.ready().await, "the server did not come up");
        Self { server, database_url, _folder: folder, _stop: stop.drop_guard() }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        patient(&format!("http://{}", self.server.address()))
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.config()).unwrap()
    }

    /// Where the keys are that it publishes.
    pub(crate) fn jwks_uri(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.server.http_address().unwrap())
    }

    /// What changes the keys from outside, as `identity keys` does.
    pub(crate) fn custody(&self, algorithm: KeyAlgorithm) -> Custody {
        Custody {
            storage: self.storage(),
            master_keys: MasterKey::from_base64(MASTER_KEY).unwrap().into(),
            algorithm: Some(algorithm),
            propagation: Propagation::new(Duration::from_secs(1)),
            clock: Arc::new(SystemClock),
            by: Authority::operator(None),
        }
    }

    fn storage(&self) -> Storage {
        let (url, _) = DatabaseUrl::parse(&self.database_url).unwrap();
        let statement_limit = Duration::from_secs(60);
        Storage::new(&StorageSettings {
            url,
            connections: LaneSizes::MIN,
            statement_limit,
            queue_limit: statement_limit,
        })
        .unwrap()
    }

    /// A new token of the service `billing`, for these methods.
    pub(crate) async fn service_token(&self, methods: &[&str]) -> String {
        let storage = self.storage();
        let allowed = methods.iter().map(|name| Rpc::find(name).unwrap().name().to_owned()).collect();
        let (name, allowed) = (ServiceName::parse("billing").unwrap(), AllowedRpcs::Only(allowed));
        let by = Authority::operator(None);
        let keys = MasterKey::from_base64(MASTER_KEY).unwrap().into();
        let made =
            service_tokens::create(&storage, &keys, &SystemClock, &by, name, allowed, None).await.unwrap();
        storage.close().await;
        made.text.to_string()
    }
}

/// A configuration for a busy machine.
pub(crate) fn patient(uri: &str) -> ClientConfig {
    let minute = Duration::from_secs(60);
    ClientConfig::new(uri).timeout(minute).password_timeout(minute)
}

pub(crate) fn registration(email: &str) -> Registration {
    Registration {
        email: email.into(),
        password: PASSWORD.into(),
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        tenant_name: "Analytical Engines".into(),
        request_id: None,
    }
}

pub(crate) async fn register(client: &Client, email: &str) -> Login {
    client.register(registration(email)).await.unwrap()
}
