//! Fetches the keys: one GET on a connection of its own, bounded in time and size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::{ConfigError, read};

/// Within a data centre, far longer than a document of a kilobyte takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Some dozens of keys.
const MAX_BYTES: usize = 64 * 1024;
/// What counts where the service does not say how long its keys may be kept.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(300);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What was fetched.
pub(super) enum Fetched {
    /// The document of before counts for `max_age` more.
    Same { max_age: Duration },
    /// Another document.
    New { document: Bytes, tag: Option<HeaderValue>, max_age: Duration },
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Exchange(#[source] BoxError),
}

/// Where the keys are.
pub(super) struct Fetcher {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Fetcher {
    pub(super) fn new(text: &str, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::InvalidUri { uri: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let host = uri.host().ok_or_else(invalid)?.trim_matches(['[', ']']).to_owned();
        let (default_port, tls) = match uri.scheme_str() {
            Some("http") if ca_file.is_some() => return Err(ConfigError::CertificatesWithoutTls),
            Some("http") => (80, None),
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
                (443, Some((connector(ca_file)?, name)))
            }
            _ => return Err(invalid()),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        Ok(Self { uri, host, port, tls })
    }

    /// The document, unless it still is the one that `tag` stands for.
    pub(super) async fn fetch(&self, tag: Option<&HeaderValue>) -> Result<Fetched, FetchError> {
        timeout(TIMEOUT, self.fetch_now(tag)).await.map_err(|_| FetchError::Timeout)?
    }

    async fn fetch_now(&self, tag: Option<&HeaderValue>) -> Result<Fetched, FetchError> {
        let (head, document) = self.get(tag).await.map_err(FetchError::Exchange)?;
        let max_age = max_age(&head.headers);
        match head.status {
            StatusCode::OK => Ok(Fetched::New { document, tag: head.headers.get(ETAG).cloned(), max_age }),
            StatusCode::NOT_MODIFIED if tag.is_some() => Ok(Fetched::Same { max_age }),
            status => Err(FetchError::Status(status)),
        }
    }

    async fn get(&self, tag: Option<&HeaderValue>) -> Result<(http::response::Parts, Bytes), BoxError> {
        let mut request = Request::get(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, self.uri.authority().map_or(self.host.as_str(), |authority| authority.as_str()))
            .header(ACCEPT, "application/json, application/jwk-set+json");
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request.body(Empty::new())?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            Some((connector, name)) => {
                exchange(connector.connect(name.clone(), stream).await?, request).await
            }
            None => exchange(stream, request).await,
        }
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(http::response::Parts, Bytes), BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends when the sender and the answer are gone.
    let answer = async move { read_answer(sender.send_request(request).await?).await };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

async fn read_answer(answer: Response<Incoming>) -> Result<(http::response::Parts, Bytes), BoxError> {
    let (head, body) = answer.into_parts();
    Ok((head, Limited::new(body, MAX_BYTES).collect().await?.to_bytes()))
}

/// How long an answer may be kept (RFC 9111, 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(DEFAULT_MAX_AGE, Duration::from_secs)
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::InvalidCertificates(error.into()))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|error| ConfigError::InvalidCertificates(error.into()))?;
        roots.add(certificate).map_err(|error| ConfigError::InvalidCertificates(error.into()))?;
    }
    Ok(roots)
}
