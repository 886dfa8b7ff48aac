//! Which service a client certificate names: X509-SVID, 5.2 (github.com/spiffe/spiffe, standards).
//!
//! That the certificate is in force and from one of the authorities was verified before, and so was its
//! extended key usage (RFC 5280, 4.2.1.12), if it has one.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::domain::SpiffeId;
use crate::domain::spiffe::SpiffeIdError;

/// Why a certificate that claims to name a service does not. Says nothing of what the certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum BrokenSvid {
    /// It cannot be read, or has an extension twice.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// X509-SVID, 2: there must be exactly one.
    #[error("the client certificate has more than one URI among its alternative names")]
    SeveralUris,
    /// The URI is meant to be a SPIFFE ID.
    #[error("the client certificate's SPIFFE ID breaks a rule: {0}")]
    Id(#[from] SpiffeIdError),
    /// X509-SVID, 3.1: the ID of a leaf has a path.
    #[error("the client certificate's SPIFFE ID has no path")]
    NoPath,
    /// X509-SVID, 4.1: a leaf is no authority.
    #[error("the client certificate is an authority's")]
    Authority,
    /// X509-SVID, 4.3: a leaf signs, and neither certificates nor revocations.
    #[error(
        "the client certificate's key usage must have digitalSignature, and neither keyCertSign nor cRLSign"
    )]
    KeyUsage,
}

/// The service that a verified certificate names. `None` for one without a URI, or with one of another
/// scheme: it is no SVID.
///
/// # Errors
/// [`BrokenSvid`] when it is meant to be one and breaks a rule.
pub(super) fn service(certificate: &CertificateDer<'_>) -> Result<Option<SpiffeId>, BrokenSvid> {
    let certificate = Certificate::from_der(certificate).map_err(|_| BrokenSvid::Unreadable)?.tbs_certificate;
    let names = certificate.get::<SubjectAltName>().map_err(|_| BrokenSvid::Unreadable)?;
    let names = names.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
    let mut uris = names.iter().filter_map(uri);
    let Some(uri) = uris.next() else { return Ok(None) };
    if uris.next().is_some() {
        return Err(BrokenSvid::SeveralUris);
    }
    // Schemes are the same in upper case (RFC 3986, 3.1); in a SPIFFE ID that is a fault.
    if !uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) {
        return Ok(None);
    }
    let id = SpiffeId::parse(uri)?;
    if id.path().is_empty() {
        return Err(BrokenSvid::NoPath);
    }
    let constraints = certificate.get::<BasicConstraints>().map_err(|_| BrokenSvid::Unreadable)?;
    if constraints.is_some_and(|(_, constraints)| constraints.ca) {
        return Err(BrokenSvid::Authority);
    }
    let usage = certificate.get::<KeyUsage>().map_err(|_| BrokenSvid::Unreadable)?;
    let signs_only =
        |usage: &KeyUsage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign();
    if !usage.is_some_and(|(_, usage)| signs_only(&usage)) {
        return Err(BrokenSvid::KeyUsage);
    }
    Ok(Some(id))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all kinds of names, this one counts")]
fn uri(name: &GeneralName) -> Option<&str> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    }
}
