//! Which service a client certificate names: X509-SVID, 5.2 (github.com/spiffe/spiffe, standards).
//!
//! That the certificate is in force and from one of the authorities was verified before, and so was its
//! extended key usage (RFC 5280, 4.2.1.12), if it has one.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};
use x509_cert::{Certificate, TbsCertificate};

use super::Peer;
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

/// What a verified certificate says at `now`, in Unix time. It names no service when it has no URI, or one
/// of another scheme: it is no SVID.
///
/// # Errors
/// [`BrokenSvid`] when it is meant to be one and breaks a rule.
pub(super) fn read(certificate: &CertificateDer<'_>, now: Duration) -> Result<Peer, BrokenSvid> {
    let certificate = Certificate::from_der(certificate).map_err(|_| BrokenSvid::Unreadable)?.tbs_certificate;
    // The last second is a part of it (RFC 5280, 4.1.2.5).
    let ends = certificate.validity.not_after.to_unix_duration() + Duration::from_secs(1);
    Ok(Peer { service: service(&certificate)?, valid_for: Some(ends.saturating_sub(now)) })
}

fn service(certificate: &TbsCertificate) -> Result<Option<SpiffeId>, BrokenSvid> {
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
