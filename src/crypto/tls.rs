//! The files that TLS is served with: certificate, key, and the authorities of client certificates.
//!
//! Reads them and makes them a configuration of rustls; when that is done again, and what is spoken over
//! it, is left to the server. No error quotes what a file holds.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

/// HTTP/2 in ALPN (RFC 9113, 3.2).
const ALPN: &[u8] = b"h2";

/// Far more than a bundle of all public authorities; nobody means a file that is longer.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate in PEM, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// The private key of that certificate, in PEM.
    pub key: PathBuf,
    /// Authorities in PEM, one of which must have issued the certificate that a client shows. Without
    /// them, none is asked for.
    pub client_authorities: Option<PathBuf>,
}

/// Which of the files is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The server's certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of client certificates.
    ClientAuthorities,
}

impl TlsFile {
    const fn named(self) -> &'static str {
        match self {
            Self::Certificate => "the TLS certificate",
            Self::Key => "the TLS key",
            Self::ClientAuthorities => "the client certificates' authorities",
        }
    }
}

/// What is wrong with one of the files. The problem follows "must name a file" and quotes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: must name a file {problem}", file.named())]
pub struct TlsFileError {
    /// The file.
    pub file: TlsFile,
    /// What it must be, and is not.
    pub problem: String,
}

impl TlsFileError {
    fn new(file: TlsFile, problem: impl Into<String>) -> Self {
        Self { file, problem: problem.into() }
    }
}

/// What the files held at one moment.
pub struct TlsMaterial {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_authorities: Option<Vec<u8>>,
}

/// Tells one content of the files from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFileError`] for the first that cannot be read.
    pub fn read(&self) -> Result<TlsMaterial, TlsFileError> {
        let authorities = self.client_authorities.as_deref();
        Ok(TlsMaterial {
            certificate: read(&self.certificate, TlsFile::Certificate)?.to_vec(),
            key: read(&self.key, TlsFile::Key)?,
            client_authorities: authorities
                .map(|path| read(path, TlsFile::ClientAuthorities).map(|bytes| bytes.to_vec()))
                .transpose()?,
        })
    }

    /// Whether users that are neither the owner of the key's file nor of its group may read it.
    pub fn key_is_exposed(&self) -> bool {
        is_readable_by_others(&self.key)
    }
}

fn is_readable_by_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn read(path: &Path, file: TlsFile) -> Result<Zeroizing<Vec<u8>>, TlsFileError> {
    let read = |bytes: &mut Vec<u8>| -> io::Result<usize> {
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(bytes)
    };
    let mut bytes = Zeroizing::new(Vec::new());
    match read(&mut bytes) {
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(TlsFileError::new(file, "of at most 4 MiB")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(TlsFileError::new(file, format!("that can be read: {error}"))),
    }
}

impl TlsMaterial {
    /// The same for the same content, and for no other.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut whole = digest::Context::new(&digest::SHA256);
        let authorities = self.client_authorities.as_deref();
        for part in [Some(&*self.certificate), Some(&*self.key), authorities].into_iter().flatten() {
            whole.update(digest::digest(&digest::SHA256, part).as_ref());
        }
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(whole.finish().as_ref());
        Fingerprint(bytes)
    }

    /// TLS 1.2 and 1.3 with this certificate, for HTTP/2.
    ///
    /// # Errors
    /// [`TlsFileError`] for the first file that is of no use.
    pub fn server_config(&self) -> Result<ServerConfig, TlsFileError> {
        // One provider is named wherever TLS is spoken, so that none has to be installed.
        let provider = Arc::new(provider::default_provider());
        let certified = self.certified_key(&provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFileError::new(TlsFile::Certificate, error.to_string()))?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(roots(authorities)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(|_| {
                        TlsFileError::new(TlsFile::ClientAuthorities, "with a certificate in PEM")
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if self.client_authorities.is_some() {
            // Each connection shows its certificate: whoever resumed a session would be let in by one
            // that was checked earlier, and may have expired or lost its authority since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsFileError> {
        let chain = certificates(&self.certificate, TlsFile::Certificate)?;
        let no_key = || TlsFileError::new(TlsFile::Key, "with a private key in PEM (not an encrypted one)");
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| no_key())?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| no_key())?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // A kind of key that does not tell its public part cannot be compared.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsFileError::new(
                TlsFile::Key,
                "with the private key of the certificate, the first one of its file",
            )),
            Err(_) => Err(TlsFileError::new(
                TlsFile::Certificate,
                "whose first certificate is an X.509 one of version 3",
            )),
        }
    }
}

fn certificates(pem: &[u8], file: TlsFile) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsFileError::new(file, "in which every certificate is whole PEM"))?;
    if certificates.is_empty() {
        return Err(TlsFileError::new(file, "with a certificate in PEM"));
    }
    Ok(certificates)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, TlsFile::ClientAuthorities)? {
        roots.add(certificate).map_err(|_| {
            TlsFileError::new(
                TlsFile::ClientAuthorities,
                "in which every certificate is an X.509 one of version 3",
            )
        })?;
    }
    Ok(roots)
}
