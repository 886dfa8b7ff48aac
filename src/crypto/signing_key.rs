//! The keys that access tokens are signed with.
//!
//! Ed25519 (RFC 8037) or RSASSA-PKCS1-v1_5 with SHA-256 for keys that the service makes, HMAC-SHA256 for the
//! secret of the system that this service replaces. When a key is published, used and retired is decided
//! elsewhere.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

use super::master_key;
use super::verifying_key::{KeyAlgorithm, UnreadableKey, Verifier, VerifyingKey};

/// The secret is shorter than the output of SHA-256 (RFC 7518, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token secret must have at least {} bytes", SigningKey::MIN_SECRET_BYTES)]
pub struct ShortSecret;

/// A key in the form in which it is stored.
pub struct NewSigningKey {
    /// The key's RFC 7638 thumbprint.
    pub kid: String,
    /// What it is for.
    pub algorithm: KeyAlgorithm,
    /// The public key, as [`VerifyingKey::from_public_key`] reads it.
    pub public_key: Vec<u8>,
    /// The private key in PKCS#8 (RFC 5958); to be sealed before it leaves the process.
    pub private_key_pkcs8: Zeroizing<Vec<u8>>,
}

/// A key that signs, and verifies what it signed. `Debug` shows nothing secret.
pub struct SigningKey {
    signer: Signer,
    verifying: VerifyingKey,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Hmac(Box<hmac::Key>),
}

impl SigningKey {
    /// The least length of a secret for HMAC-SHA256 (RFC 7518, 3.2).
    pub const MIN_SECRET_BYTES: usize = 32;

    /// A new key, and the form to store it in. For RS256, of 2,048 bits: that takes some tenths of a
    /// second.
    pub fn generate(algorithm: KeyAlgorithm) -> (Self, NewSigningKey) {
        let pkcs8 = match algorithm {
            KeyAlgorithm::EdDsa => Ed25519KeyPair::generate()
                .and_then(|pair| pair.to_pkcs8v1())
                .map(|document| Zeroizing::new(document.as_ref().to_vec())),
            KeyAlgorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| pair.as_der())
                .map(|document| Zeroizing::new(document.as_ref().to_vec())),
        }
        .expect("AWS-LC makes keys as long as there is memory");
        let (key, public_key) = Self::read(algorithm, &pkcs8).expect("what AWS-LC wrote it can read");
        let stored =
            NewSigningKey { kid: key.kid().to_owned(), algorithm, public_key, private_key_pkcs8: pkcs8 };
        (key, stored)
    }

    /// The key that [`NewSigningKey::private_key_pkcs8`] holds.
    ///
    /// # Errors
    /// [`UnreadableKey`] for anything else.
    pub fn from_pkcs8(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Result<Self, UnreadableKey> {
        Self::read(algorithm, pkcs8).map(|(key, _)| key)
    }

    /// The key, and its public part in the form in which it is stored.
    fn read(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Result<(Self, Vec<u8>), UnreadableKey> {
        let unreadable = UnreadableKey(algorithm);
        let (signer, public_key) = match algorithm {
            KeyAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| unreadable)?;
                let public_key = pair.public_key().as_ref().to_vec();
                (Signer::Ed25519(pair), public_key)
            }
            KeyAlgorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| unreadable)?;
                let public_key = pair.public_key().as_der().map_err(|_| unreadable)?.as_ref().to_vec();
                (Signer::Rsa(pair), public_key)
            }
        };
        let verifying = VerifyingKey::from_public_key(algorithm, &public_key)?;
        Ok((Self { signer, verifying }, public_key))
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
        let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret));
        let verifying = VerifyingKey::new(
            URL_SAFE_NO_PAD.encode(kid),
            Algorithm::HS256,
            Verifier::Hmac(key.clone()),
            None,
        );
        Ok(Self { signer: Signer::Hmac(key), verifying })
    }

    /// The key's id, which every token it signs carries.
    pub fn kid(&self) -> &str {
        self.verifying.kid()
    }

    /// The algorithm's name in JOSE: `EdDSA`, `RS256` or `HS256`.
    pub fn algorithm(&self) -> &'static str {
        self.verifying.algorithm()
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.verifying.clone()
    }

    /// The signature of `message`.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .expect("a key that was read signs, into a buffer as long as its modulus");
                signature
            }
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    /// The header of every token that this key signs, encoded.
    pub(super) fn header(&self) -> &str {
        self.verifying.header()
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;
    use aws_lc_rs::rsa::PublicKeyComponents;

    use super::*;

    const BOTH: [KeyAlgorithm; 2] = [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256];

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn the_kid_of_an_ed25519_key_is_its_thumbprint() {
        // RFC 8037, A.3.
        let x = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let key = VerifyingKey::from_public_key(KeyAlgorithm::EdDsa, &x).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.algorithm(), "EdDSA");
    }

    #[test]
    fn the_kid_of_an_rsa_key_is_its_thumbprint() {
        // RFC 7638, 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
                 jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqz\
                 s8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-\
                 G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let components = PublicKeyComponents { n: decoded(n), e: decoded("AQAB") };
        let key = VerifyingKey::from_public_key(KeyAlgorithm::Rs256, components.as_der().unwrap().as_ref());
        let key = key.unwrap();
        assert_eq!(key.kid(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(key.algorithm(), "RS256");
    }

    #[test]
    fn a_stored_key_is_the_same_key_again() {
        for algorithm in BOTH {
            let (key, stored) = SigningKey::generate(algorithm);
            let again = SigningKey::from_pkcs8(algorithm, &stored.private_key_pkcs8).unwrap();
            let verifying = VerifyingKey::from_public_key(algorithm, &stored.public_key).unwrap();
            assert_eq!([again.kid(), verifying.kid(), &stored.kid], [key.kid(); 3]);
            assert_eq!([again.algorithm(), verifying.algorithm()], [algorithm.as_str(); 2]);
            assert!(verifying.has_signed(b"message", &again.sign(b"message")));
            assert!(!verifying.has_signed(b"other", &again.sign(b"message")));
        }
    }

    #[test]
    fn what_is_no_key_of_the_algorithm_is_refused() {
        let [(_, ed25519), (_, rsa)] = BOTH.map(SigningKey::generate);
        for (algorithm, other) in [(KeyAlgorithm::EdDsa, rsa), (KeyAlgorithm::Rs256, ed25519)] {
            for bytes in [&b"not a key"[..], &[0; 32][..31], &other.private_key_pkcs8] {
                let error = SigningKey::from_pkcs8(algorithm, bytes).unwrap_err();
                assert_eq!(error, UnreadableKey(algorithm));
            }
            for bytes in [&b"not a key"[..], &other.public_key] {
                assert!(VerifyingKey::from_public_key(algorithm, bytes).is_err());
            }
        }
        // A modulus of 1,024 bits.
        let short = PublicKeyComponents { n: vec![0xc1; 128], e: vec![1, 0, 1] };
        let short = short.as_der().unwrap();
        assert!(VerifyingKey::from_public_key(KeyAlgorithm::Rs256, short.as_ref()).is_err());
    }

    #[test]
    fn a_secret_below_32_bytes_is_refused() {
        assert_eq!(SigningKey::hs256(&[7; 31]).unwrap_err(), ShortSecret);
        let key = SigningKey::hs256(&[7; 32]).unwrap();
        assert_eq!(key.algorithm(), "HS256");
        assert!(key.verifying_key().jwk().is_none());
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
        let stored = SigningKey::generate(KeyAlgorithm::EdDsa).1;
        let text = format!("{key:?} {:?} {stored:?}", key.verifying_key());
        assert!(!text.contains("sesame") && !text.contains("key_pkcs8"), "{text}");
    }
}
