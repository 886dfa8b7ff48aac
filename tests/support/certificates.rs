//! Certificates made for one test, and clients that show them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in every server's certificate.
pub(crate) const SERVER: &str = "identity.example.com";

/// Who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Certified {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certified { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// A server's certificate for [`SERVER`] and 127.0.0.1.
    pub(crate) fn server(&self) -> Certified {
        let mut params = CertificateParams::new([SERVER.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A service's certificate with these URIs.
    pub(crate) fn service(&self, uris: &[&str]) -> Certified {
        self.issue(&svid(uris))
    }

    /// What a client is set up with that trusts this authority, and shows `certificate`.
    pub(crate) fn client(&self, certificate: Option<&Certified>) -> ClientConfig {
        self.client_of(certificate, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_of(
        &self,
        certificate: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certified) => {
                let key = PrivateKeyDer::try_from(certified.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certified.der.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

impl Certified {
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes `tls.crt` and `tls.key` into `folder`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.pem).unwrap();
        std::fs::write(folder.join("tls.key"), self.key_pem()).unwrap();
    }
}

/// A leaf as X509-SVID asks for, with these URIs.
pub(crate) fn svid(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

/// Connects and shakes hands. With TLS 1.3, a client hears that its certificate is refused only later.
pub(crate) async fn connect(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(SERVER).unwrap(), stream).await
}
