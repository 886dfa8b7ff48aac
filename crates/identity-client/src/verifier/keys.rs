//! The keys that tokens are verified with (RFC 7517), and what was verified with them.

use std::collections::HashMap;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::token::Checked;

/// Tokens whose signature need not be checked again; about 2 MB.
const CACHED_TOKENS: usize = 10_000;

/// One moment's keys. Others start with nothing verified: what is remembered was signed with keys that may
/// no longer count.
pub(super) struct KeySet {
    keys: Keys,
    /// Tokens that passed, by SHA-256 of their text.
    pub(super) checked: Cache<[u8; 32], Checked>,
}

enum Keys {
    Published(HashMap<String, Key>),
    /// The service derives the name of a secret from it; there is only this one.
    Secret(Key),
}

/// A key, which has one algorithm and is never tried with another.
pub(super) enum Key {
    Ed25519(ParsedPublicKey),
    Rsa(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// Why a document is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidKeySet {
    #[error("the keys are no JWK set")]
    Malformed(#[from] serde_json::Error),
    #[error("two keys have one kid")]
    Ambiguous,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// No keys at all.
    pub(super) fn empty() -> Self {
        Self::of(Keys::Published(HashMap::new()))
    }

    /// HS256 with this secret.
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self::of(Keys::Secret(Key::Secret(Box::new(key))))
    }

    /// The keys of a JWK set. Those that are not for signatures, or of a kind that the service does not use,
    /// are left aside (RFC 7517, 5).
    pub(super) fn parse(document: &[u8]) -> Result<Self, InvalidKeySet> {
        let document: Document = serde_json::from_slice(document)?;
        let mut keys = HashMap::new();
        for jwk in document.keys.into_iter().filter_map(|key| Jwk::deserialize(key).ok()) {
            let Some(key) = jwk.to_key() else { continue };
            if keys.insert(jwk.kid, key).is_some() {
                return Err(InvalidKeySet::Ambiguous);
            }
        }
        Ok(Self::of(Keys::Published(keys)))
    }

    fn of(keys: Keys) -> Self {
        Self { keys, checked: Cache::new(CACHED_TOKENS) }
    }

    pub(super) fn find(&self, kid: &str) -> Option<&Key> {
        match &self.keys {
            Keys::Published(keys) => keys.get(kid),
            Keys::Secret(key) => Some(key),
        }
    }
}

impl Key {
    /// The algorithm's name in JOSE.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
            Self::Secret(_) => "HS256",
        }
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) | Self::Rsa(key) => key.verify_sig(message, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl Jwk {
    fn to_key(&self) -> Option<Key> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                Key::Ed25519(ParsedPublicKey::new(&ED25519, decode(self.x.as_ref())?).ok()?)
            }
            ("RSA", None) => {
                let key = RsaPublicKeyComponents { n: decode(self.n.as_ref())?, e: decode(self.e.as_ref())? };
                Key::Rsa(key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?)
            }
            _ => return None,
        };
        self.alg.as_deref().is_none_or(|alg| alg == key.algorithm()).then_some(key)
    }
}

fn decode(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}
