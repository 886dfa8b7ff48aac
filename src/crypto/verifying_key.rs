//! The keys that access tokens are verified with, and their algorithms.
//!
//! Each key has one algorithm and one `kid`, and is never tried with another algorithm. All are read once, when
//! they are made or loaded.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Header};

/// The media type that keeps other JWTs from passing for access tokens (RFC 9068, 2.1).
pub(super) const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// Characters of a modulus of 2,048 bits in base64url (RFC 7518, 3.3).
const MIN_MODULUS_CHARS: usize = (2048 / 8 * 4_usize).div_ceil(3);

/// The bytes are no key of the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key for {}", .0.as_str())]
pub struct UnreadableKey(pub KeyAlgorithm);

/// An algorithm for which the service makes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256, for verifiers that know nothing newer.
    Rs256,
}

impl KeyAlgorithm {
    /// Its name in JOSE.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of that name in JOSE.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Rs256].into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// A key that verifies. `Debug` shows nothing secret.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: String,
    pub(super) algorithm: Algorithm,
    verifier: Verifier,
    header: String,
    jwk: Option<Jwk>,
}

#[derive(Clone)]
pub(super) enum Verifier {
    Public(ParsedPublicKey),
    Hmac(Box<hmac::Key>),
}

impl VerifyingKey {
    /// A public key, under its RFC 7638 thumbprint. For EdDSA it is the 32 bytes of RFC 8032, 5.1.5; for
    /// RS256 a `SubjectPublicKeyInfo` (RFC 5280, 4.1) or an `RSAPublicKey` (RFC 8017, A.1.1) in DER, with a
    /// modulus of 2,048 bits or more.
    ///
    /// # Errors
    /// [`UnreadableKey`] for anything else.
    pub fn from_public_key(algorithm: KeyAlgorithm, public_key: &[u8]) -> Result<Self, UnreadableKey> {
        let unreadable = UnreadableKey(algorithm);
        let (jose, parsed, decoding) = match algorithm {
            // AWS-LC would take other forms as well; stored is this one.
            KeyAlgorithm::EdDsa if public_key.len() != 32 => return Err(unreadable),
            KeyAlgorithm::EdDsa => {
                let parsed = ParsedPublicKey::new(&ED25519, public_key);
                (Algorithm::EdDSA, parsed, DecodingKey::from_ed_der(public_key))
            }
            KeyAlgorithm::Rs256 => {
                let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key);
                (Algorithm::RS256, parsed, DecodingKey::from_rsa_der(public_key))
            }
        };
        let parsed = parsed.map_err(|_| unreadable)?;
        let mut jwk = Jwk::from_decoding_key(&decoding, Some(jose)).map_err(|_| unreadable)?;
        if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm
            && rsa.n.len() < MIN_MODULUS_CHARS
        {
            return Err(unreadable);
        }
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| unreadable)?;
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_id = Some(kid.clone());
        Ok(Self::new(kid, jose, Verifier::Public(parsed), Some(jwk)))
    }

    pub(super) fn new(kid: String, algorithm: Algorithm, verifier: Verifier, jwk: Option<Jwk>) -> Self {
        let header = header(ACCESS_TOKEN_TYPE, algorithm, &kid);
        let header = serde_json::to_vec(&header).expect("a header is strings, which are JSON");
        Self { kid, algorithm, verifier, header: URL_SAFE_NO_PAD.encode(header), jwk }
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm's name in JOSE: `EdDSA`, `RS256` or `HS256`.
    pub fn algorithm(&self) -> &'static str {
        // Keys are made by this module only, and it makes no fourth kind.
        if self.algorithm == Algorithm::HS256 {
            "HS256"
        } else if self.algorithm == Algorithm::RS256 {
            KeyAlgorithm::Rs256.as_str()
        } else {
            KeyAlgorithm::EdDsa.as_str()
        }
    }

    /// Whether `signature` is this key's for `message`. For an HMAC, in a time that does not depend on
    /// where it differs.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    /// The key for others to verify with; `None` for a secret.
    pub(super) fn jwk(&self) -> Option<&Jwk> {
        self.jwk.as_ref()
    }

    /// The header of the tokens that are signed with this key, encoded.
    pub(super) fn header(&self) -> &str {
        &self.header
    }
}

/// The one header of an access token: `alg`, `kid` and `typ`, nothing else.
pub(super) fn header(typ: &str, algorithm: Algorithm, kid: &str) -> Header {
    Header { typ: Some(typ.to_owned()), kid: Some(kid.to_owned()), ..Header::new(algorithm) }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
