//! What TLS asks of the server's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::ConnectError;
use crate::storage::url::{MinTlsVersion, PostgresTarget, TlsMode};

/// The protocol's name in ALPN, which a server that negotiates directly insists on
/// (PostgreSQL 17, 53.2.11).
const ALPN: &[u8] = b"postgresql";

/// The TLS client for `target`.
///
/// # Errors
/// [`ConnectError::RootCertificates`] when certificates are to be checked and none is trusted.
pub(super) fn client_config(target: &PostgresTarget) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(target, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(target.min_tls()))
        .map_err(|error| ConnectError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if target.negotiates_directly() {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}

fn versions(min: MinTlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match min {
        MinTlsVersion::Tls12 => DEFAULT_VERSIONS,
        MinTlsVersion::Tls13 => &ONLY_1_3,
    }
}

fn verifier(
    target: &PostgresTarget,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    match target.tls() {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
            Ok(Arc::new(NamelessVerifier { roots: None, provider: Arc::clone(provider) }))
        }
        TlsMode::VerifyCa => {
            let roots = Some(roots(target.root_certificates())?);
            Ok(Arc::new(NamelessVerifier { roots, provider: Arc::clone(provider) }))
        }
        TlsMode::VerifyFull => {
            let roots = Arc::new(roots(target.root_certificates())?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| ConnectError::RootCertificates(error.to_string()))?;
            Ok(verifier)
        }
    }
}

/// The certificates of `file`, or of the system's store: at least one.
fn roots(file: Option<&Path>) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in read_pem(file)? {
                roots.add(certificate).map_err(|error| unusable(file, error))?;
            }
        }
        // A system's store may hold some that are not understood; the others still count.
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if roots.is_empty() {
        return Err(ConnectError::RootCertificates(file.map_or_else(
            || "the system's store is empty, and the URL has no sslrootcert".to_owned(),
            |file| format!("{} holds no certificate", file.display()),
        )));
    }
    Ok(roots)
}

fn read_pem(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(file, error))?;
    certificates.collect::<Result<_, _>>().map_err(|error| unusable(file, error))
}

fn unusable(file: &Path, error: impl std::fmt::Display) -> ConnectError {
    ConnectError::RootCertificates(format!("{}: {error}", file.display()))
}

/// Takes a certificate for whatever name: from one of `roots`, or, without them, from anyone.
///
/// That the server holds the certificate's key is checked in every case.
#[derive(Debug)]
struct NamelessVerifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NamelessVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
