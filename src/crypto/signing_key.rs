//! The keys that access tokens are signed and verified with.
//!
//! Each key has one algorithm and one `kid`, and is never tried with another algorithm: Ed25519
//! (RFC 8037), or HMAC-SHA256 with the secret of the system that this service replaces. When a key
//! is published, used and retired is decided elsewhere.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use zeroize::Zeroizing;

use super::master_key;

/// The secret is shorter than the output of SHA-256 (RFC 7518, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token secret must have at least {} bytes", SigningKey::MIN_SECRET_BYTES)]
pub struct ShortSecret;

/// The bytes are no Ed25519 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key")]
pub struct UnreadableKey;

/// An Ed25519 key in the form in which it is stored.
pub struct NewSigningKey {
    /// The key's RFC 7638 thumbprint.
    pub kid: String,
    /// The public key (RFC 8032, 5.1.5).
    pub public_key: [u8; 32],
    /// The private key in PKCS#8 (RFC 8410, 7); to be sealed before it leaves the process.
    pub private_key_pkcs8: Zeroizing<Vec<u8>>,
}

/// A key that signs, and verifies what it signed. `Debug` shows nothing secret.
pub struct SigningKey {
    pub(super) encoding: EncodingKey,
    verifying: VerifyingKey,
    /// What [`SigningKey::to_stored`] gives; not there for a secret that the operator keeps.
    stored: Option<([u8; 32], Zeroizing<Vec<u8>>)>,
}

impl SigningKey {
    /// The least length of a secret for HMAC-SHA256 (RFC 7518, 3.2).
    pub const MIN_SECRET_BYTES: usize = 32;

    /// A new Ed25519 key.
    pub fn generate_ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate()
            .and_then(|pair| pair.to_pkcs8v1())
            .expect("any 32 random bytes are an Ed25519 key");
        Self::from_ed25519_pkcs8(pkcs8.as_ref()).expect("what AWS-LC wrote it can read")
    }

    /// The Ed25519 key that [`NewSigningKey::private_key_pkcs8`] holds.
    ///
    /// # Errors
    /// [`UnreadableKey`] for anything else.
    pub fn from_ed25519_pkcs8(pkcs8: &[u8]) -> Result<Self, UnreadableKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| UnreadableKey)?;
        let public_key: [u8; 32] =
            pair.public_key().as_ref().try_into().expect("Ed25519 public keys have 32 bytes");
        Ok(Self {
            encoding: EncodingKey::from_ed_der(pkcs8),
            verifying: VerifyingKey::ed25519(public_key),
            stored: Some((public_key, Zeroizing::new(pkcs8.to_vec()))),
        })
    }

    /// The HMAC-SHA256 key that `secret` is. Its `kid` is derived from the secret through HKDF, so
    /// that tokens do not carry what a guess of the secret could be compared with any faster than
    /// with a signature.
    ///
    /// # Errors
    /// [`ShortSecret`] below [`SigningKey::MIN_SECRET_BYTES`].
    pub fn hs256(secret: &[u8]) -> Result<Self, ShortSecret> {
        if secret.len() < Self::MIN_SECRET_BYTES {
            return Err(ShortSecret);
        }
        let mut kid = [0; 16];
        master_key::derive(secret, "identity kid of an HS256 secret", &mut kid);
        Ok(Self {
            encoding: EncodingKey::from_secret(secret),
            verifying: VerifyingKey {
                kid: URL_SAFE_NO_PAD.encode(kid),
                algorithm: Algorithm::HS256,
                decoding: DecodingKey::from_secret(secret),
            },
            stored: None,
        })
    }

    /// The key's id, which every token it signs carries.
    pub fn kid(&self) -> &str {
        &self.verifying.kid
    }

    /// The algorithm's name in JOSE: `EdDSA` or `HS256`.
    pub fn algorithm(&self) -> &'static str {
        self.verifying.algorithm()
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.verifying.clone()
    }

    /// The key in the form in which it is stored; `None` for an HMAC secret, which is not ours to
    /// keep.
    pub fn to_stored(&self) -> Option<NewSigningKey> {
        self.stored.as_ref().map(|(public_key, private_key)| NewSigningKey {
            kid: self.kid().to_owned(),
            public_key: *public_key,
            private_key_pkcs8: private_key.clone(),
        })
    }

    pub(super) fn jose_algorithm(&self) -> Algorithm {
        self.verifying.algorithm
    }
}

/// A key that verifies. `Debug` shows nothing secret.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl VerifyingKey {
    /// The Ed25519 public key (RFC 8032, 5.1.5), under its RFC 7638 thumbprint.
    pub fn ed25519(public_key: [u8; 32]) -> Self {
        Self {
            kid: thumbprint(&public_key),
            algorithm: Algorithm::EdDSA,
            decoding: DecodingKey::from_ed_der(&public_key),
        }
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm's name in JOSE: `EdDSA` or `HS256`.
    pub fn algorithm(&self) -> &'static str {
        // Keys are made by this module only, and it makes no third kind.
        if self.algorithm == Algorithm::HS256 { "HS256" } else { "EdDSA" }
    }
}

/// SHA-256 over the key's JWK, reduced to its required members in alphabetical order (RFC 7638, 3;
/// RFC 8037, 2 for the members), in base64url.
fn thumbprint(public_key: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public_key);
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes()))
}

/// The key that signs new tokens, and all those that old and future ones verify with.
pub struct Keyring {
    pub(super) signing: SigningKey,
    verifying: HashMap<String, VerifyingKey>,
}

impl Keyring {
    /// `signing` signs and verifies, `extra_verifying` only verify. To change keys, make a new ring.
    pub fn new(signing: SigningKey, extra_verifying: Vec<VerifyingKey>) -> Self {
        let verifying = extra_verifying
            .into_iter()
            .chain([signing.verifying_key()])
            .map(|key| (key.kid.clone(), key))
            .collect();
        Self { signing, verifying }
    }

    pub(super) fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifying.get(kid)
    }
}

impl fmt::Debug for NewSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid()).finish_non_exhaustive()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("signing", &self.signing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kid_of_an_ed25519_key_is_its_thumbprint() {
        // RFC 8037, A.3.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = VerifyingKey::ed25519(x.try_into().unwrap());
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.algorithm(), "EdDSA");
    }

    #[test]
    fn a_stored_key_is_the_same_key_again() {
        let key = SigningKey::generate_ed25519();
        let stored = key.to_stored().unwrap();
        let again = SigningKey::from_ed25519_pkcs8(&stored.private_key_pkcs8).unwrap();
        assert_eq!((again.kid(), stored.kid.as_str()), (key.kid(), key.kid()));
        assert_eq!(VerifyingKey::ed25519(stored.public_key).kid(), key.kid());
        assert_eq!(SigningKey::from_ed25519_pkcs8(b"not a key").unwrap_err(), UnreadableKey);
    }

    #[test]
    fn a_secret_below_32_bytes_is_refused() {
        assert_eq!(SigningKey::hs256(&[7; 31]).unwrap_err(), ShortSecret);
        let key = SigningKey::hs256(&[7; 32]).unwrap();
        assert_eq!(key.algorithm(), "HS256");
        assert!(key.to_stored().is_none());
    }

    #[test]
    fn the_kid_of_a_secret_is_stable_and_no_plain_digest_of_it() {
        let secret = [7; 32];
        let kid = SigningKey::hs256(&secret).unwrap().kid().to_owned();
        assert_eq!(SigningKey::hs256(&secret).unwrap().kid(), kid);
        assert_ne!(SigningKey::hs256(&[8; 32]).unwrap().kid(), kid);
        let digest = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &secret));
        assert!(!digest.starts_with(&kid));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::hs256(b"open sesame open sesame open sesame").unwrap();
        let text =
            format!("{key:?} {:?} {:?}", key.verifying_key(), SigningKey::generate_ed25519().to_stored());
        assert!(!text.contains("sesame") && !text.contains("key_pkcs8"), "{text}");
    }
}
