//! Makes tokens, good ones and others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

/// The time that tests verify at.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A key that signs.
pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    key: Key,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Secret(Vec<u8>),
}

impl Signer {
    pub(crate) fn ed25519(kid: &'static str) -> Self {
        Self { kid, key: Key::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    pub(crate) fn rsa(kid: &'static str) -> Self {
        Self { kid, key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn secret(kid: &'static str, secret: &[u8]) -> Self {
        Self { kid, key: Key::Secret(secret.to_vec()) }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Ed25519(_) => "EdDSA",
            Key::Rsa(_) => "RS256",
            Key::Secret(_) => "HS256",
        }
    }

    /// What a JWK set says of it.
    pub(crate) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.key {
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()),
                "kid": self.kid, "alg": "EdDSA", "use": "sig"})
            }
            Key::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": encode(n), "e": encode(e), "kid": self.kid, "alg": "RS256", "use": "sig"})
            }
            Key::Secret(secret) => json!({"kty": "oct", "k": encode(secret), "kid": self.kid}),
        }
    }

    /// The public key in the forms in which an attacker may take it for a secret.
    pub(crate) fn public_bytes(&self) -> Vec<Vec<u8>> {
        match &self.key {
            Key::Ed25519(pair) => {
                vec![
                    pair.public_key().as_ref().to_vec(),
                    pair.public_key().as_der().unwrap().as_ref().to_vec(),
                ]
            }
            Key::Rsa(pair) => {
                vec![
                    pair.public_key().as_ref().to_vec(),
                    pair.public_key().as_der().unwrap().as_ref().to_vec(),
                ]
            }
            Key::Secret(_) => Vec::new(),
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "kid": self.kid, "typ": "at+jwt"})
    }

    /// A token of these two texts.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = match &self.key {
            Key::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            Key::Secret(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that is in order at [`NOW`].
    pub(crate) fn token(&self) -> String {
        self.sign(&self.header().to_string(), &claims().to_string())
    }
}

pub(crate) fn claims() -> Value {
    json!({
        "iss": "identity", "aud": "identity", "client_id": "identity", "role": "admin",
        "sub": "018bcfe5-6800-7000-8000-000000000001", "tid": "018bcfe5-6800-7000-8000-000000000002",
        "sid": "018bcfe5-6800-7000-8000-000000000003", "jti": "018bcfe5-6800-7000-8000-000000000004",
        "iat": NOW, "exp": NOW + 900,
    })
}
