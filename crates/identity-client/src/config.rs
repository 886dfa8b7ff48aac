//! How to reach the service.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// As long as a look-up takes when the service has to reconnect to its database.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Passwords may have to queue for their hash; the service itself lets them wait for ten seconds.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection that says nothing for this long is asked whether it still is one, and has
/// [`KEEP_ALIVE_TIMEOUT`] to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach the service, and as whom. `Debug` shows no secret.
///
/// ```
/// use std::time::Duration;
///
/// use identity_client::ClientConfig;
///
/// let config = ClientConfig::new("https://identity.internal:50051")
///     .ca_file("/etc/identity/ca.pem")
///     .client_certificate_files("/etc/identity/tls.crt", "/etc/identity/tls.key")
///     .service_token("the text that `identity service-token create` printed")
///     .timeout(Duration::from_secs(2));
/// assert!(!format!("{config:?}").contains("the text"));
/// ```
#[derive(Clone)]
pub struct ClientConfig {
    uri: String,
    ca_file: Option<PathBuf>,
    client_certificate: Option<ClientCertificate>,
    server_name: Option<String>,
    service_token: Option<String>,
    timeouts: Timeouts,
}

#[derive(Clone, Debug)]
struct ClientCertificate {
    chain_file: PathBuf,
    key_file: PathBuf,
}

/// How long calls may take, a repetition included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) usual: Duration,
    pub(crate) password: Duration,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a URI that a service can be reached at.
    #[error("{uri:?} is no URI of the form http://HOST:PORT or https://HOST:PORT")]
    InvalidUri {
        /// What was given.
        uri: String,
    },
    /// A certificate was given for a connection without TLS.
    #[error("certificates are given, but the URI does not begin with https")]
    CertificatesWithoutTls,
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    UnreadableFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the files cannot be used for TLS.
    #[error("the certificates cannot be used")]
    InvalidCertificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The service token has characters that no token has.
    #[error("the service token is malformed")]
    MalformedServiceToken,
    /// The shared secret has less than 32 bytes (RFC 7518, 3.2).
    #[error("the shared secret has less than 32 bytes")]
    ShortSecret,
}

impl ClientConfig {
    /// The service at `uri`: `https://HOST:PORT`, or `http://HOST:PORT` where nobody can listen in.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            ca_file: None,
            client_certificate: None,
            server_name: None,
            service_token: None,
            timeouts: Timeouts { usual: TIMEOUT, password: PASSWORD_TIMEOUT },
        }
    }

    /// Trusts the authorities in this PEM file, and no others. Without it: those that the machine trusts.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Proves with this certificate who calls; PEM files of the chain and of its key. They are read once:
    /// make another client when they change.
    #[must_use]
    pub fn client_certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some(ClientCertificate { chain_file: chain.into(), key_file: key.into() });
        self
    }

    /// Expects this name in the service's certificate instead of the URI's host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Says with this token, in every call, which service calls.
    #[must_use]
    pub fn service_token(mut self, token: impl Into<String>) -> Self {
        self.service_token = Some(token.into());
        self
    }

    /// How long a call may take, a repetition included: 5 seconds unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.usual = timeout;
        self
    }

    /// The same for calls with passwords (register, login, change_password): 15 seconds unless set.
    #[must_use]
    pub fn password_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.password = timeout;
        self
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    pub(crate) fn service_token_value(&self) -> Result<Option<MetadataValue<Ascii>>, ConfigError> {
        let Some(token) = &self.service_token else { return Ok(None) };
        let mut value =
            MetadataValue::try_from(token.trim()).map_err(|_| ConfigError::MalformedServiceToken)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// A channel that connects when it is first used, and again whenever it has to.
    pub(crate) fn channel(&self) -> Result<Channel, ConfigError> {
        let invalid_uri = || ConfigError::InvalidUri { uri: self.uri.clone() };
        let mut endpoint = Endpoint::from_shared(self.uri.clone()).map_err(|_| invalid_uri())?;
        if endpoint.uri().authority().is_none() {
            return Err(invalid_uri());
        }
        match endpoint.uri().scheme_str() {
            Some("https") => {
                let tls = self.tls()?;
                endpoint = endpoint
                    .tls_config(tls)
                    .map_err(|error| ConfigError::InvalidCertificates(error.into()))?;
            }
            Some("http") if self.ca_file.is_none() && self.client_certificate.is_none() => {}
            Some("http") => return Err(ConfigError::CertificatesWithoutTls),
            _ => return Err(invalid_uri()),
        }
        Ok(endpoint
            .connect_timeout(self.timeouts.usual)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_lazy())
    }

    fn tls(&self) -> Result<ClientTlsConfig, ConfigError> {
        let mut tls = match &self.ca_file {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some(ClientCertificate { chain_file, key_file }) = &self.client_certificate {
            tls = tls.identity(Identity::from_pem(read(chain_file)?, read(key_file)?));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Ok(tls)
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| ConfigError::UnreadableFile { path: path.to_owned(), source })
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("uri", &self.uri)
            .field("ca_file", &self.ca_file)
            .field("client_certificate", &self.client_certificate)
            .field("server_name", &self.server_name)
            .field("service_token", &self.service_token.as_ref().map(|_| "…"))
            .field("timeouts", &self.timeouts)
            .finish()
    }
}
