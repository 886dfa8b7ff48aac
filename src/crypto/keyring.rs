//! The keys of a moment: what signs now and next, what verifies, and what others are told of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;

use super::signing_key::SigningKey;
use super::verifying_key::VerifyingKey;
use crate::domain::Timestamp;

/// The keys that sign tokens, each from its time on, and all those that old and future ones verify
/// with. It does not change: when the keys do, make a new ring.
pub struct Keyring {
    /// In the order of their times; the first of all signs before its time, too, since there is no other.
    signing: Vec<(Timestamp, Arc<SigningKey>)>,
    verifying: HashMap<String, VerifyingKey>,
    /// The key that belongs to the header of a token, as this service writes it.
    by_header: HashMap<String, String>,
    published: Arc<PublishedKeys>,
}

/// What others verify tokens with: a JWK set (RFC 7517, 5) of all public keys on the ring. A secret has
/// no public part, and is never in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKeys {
    /// The set, in JSON.
    pub json: String,
    /// A digest of it, in quotes: a strong entity tag (RFC 9110, 8.8.3).
    pub entity_tag: String,
}

impl Keyring {
    /// `signing` signs and verifies, `extra_verifying` only verify.
    pub fn new(signing: SigningKey, extra_verifying: Vec<VerifyingKey>) -> Self {
        let mut verifying = extra_verifying;
        verifying.push(signing.verifying_key());
        Self::scheduled((Timestamp::from_unix_micros(0), Arc::new(signing)), Vec::new(), verifying)
    }

    /// Of `first` and `others`, the one whose time came last signs. Only what is in `verifying` verifies.
    pub fn scheduled(
        first: (Timestamp, Arc<SigningKey>),
        others: Vec<(Timestamp, Arc<SigningKey>)>,
        verifying: Vec<VerifyingKey>,
    ) -> Self {
        let mut signing = others;
        signing.push(first);
        signing.sort_by_key(|(from, _)| *from);
        let published = Arc::new(PublishedKeys::of(&verifying));
        let by_header = verifying.iter().map(|key| (key.header().to_owned(), key.kid().to_owned())).collect();
        let verifying = verifying.into_iter().map(|key| (key.kid().to_owned(), key)).collect();
        Self { signing, verifying, by_header, published }
    }

    /// What others verify with.
    pub fn published(&self) -> &Arc<PublishedKeys> {
        &self.published
    }

    /// The key that signs at `now`.
    pub(super) fn signing_at(&self, now: Timestamp) -> &SigningKey {
        let due = self.signing.iter().rev().find(|(from, _)| *from <= now);
        let (_, key) = due.or(self.signing.first()).expect("a ring is made with a key that signs");
        key
    }

    pub(super) fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifying.get(kid)
    }

    /// The key of a token whose encoded header is exactly what this service writes.
    pub(super) fn find_by_header(&self, header: &str) -> Option<&VerifyingKey> {
        self.by_header.get(header).and_then(|kid| self.find(kid))
    }
}

impl PublishedKeys {
    fn of(keys: &[VerifyingKey]) -> Self {
        let set = JwkSet { keys: keys.iter().filter_map(VerifyingKey::jwk).cloned().collect() };
        let json = serde_json::to_string(&set).expect("a set of keys is strings, which are JSON");
        let digest = digest::digest(&digest::SHA256, json.as_bytes());
        let entity_tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest));
        Self { json, entity_tag }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("signing", &self.signing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::KeyAlgorithm;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_key_signs_from_its_time_on_and_the_first_of_all_before_it() {
        let keys = [30, 10, 20].map(|from| {
            let (key, _) = SigningKey::generate(KeyAlgorithm::EdDsa);
            (at(from), Arc::new(key))
        });
        let [first, second, third] = [1, 2, 0].map(|index: usize| keys[index].1.kid().to_owned());
        let [a, b, c] = keys;
        let ring = Keyring::scheduled(a, vec![b, c], Vec::new());
        for (now, kid) in [(0, &first), (10, &first), (19, &first), (20, &second), (30, &third), (99, &third)]
        {
            assert_eq!(ring.signing_at(at(now)).kid(), kid, "at {now}");
        }
    }

    #[test]
    fn published_are_all_public_keys_and_no_secret() {
        let [(_, ed25519), (_, rsa)] = [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256].map(SigningKey::generate);
        let public = [&ed25519, &rsa]
            .map(|key| VerifyingKey::from_public_key(key.algorithm, &key.public_key).unwrap());
        let secret = SigningKey::hs256(b"open sesame open sesame open sesame").unwrap();
        let ring = Keyring::new(secret, public.to_vec());
        let set: Value = serde_json::from_str(&ring.published().json).unwrap();
        let keys = set["keys"].as_array().unwrap();
        assert_eq!((keys.len(), set.as_object().unwrap().len()), (2, 1));
        let x = URL_SAFE_NO_PAD.encode(&ed25519.public_key);
        let common =
            |key: &str, alg: &str, kty: &str| json!({"kid": key, "alg": alg, "use": "sig", "kty": kty});
        let mut expected = common(&ed25519.kid, "EdDSA", "OKP");
        (expected["crv"], expected["x"]) = ("Ed25519".into(), x.into());
        assert_eq!(keys[0], expected);
        let mut expected = common(&rsa.kid, "RS256", "RSA");
        (expected["e"], expected["n"]) = ("AQAB".into(), keys[1]["n"].clone());
        assert_eq!(keys[1], expected);
        assert_eq!(keys[1]["n"].as_str().unwrap().len(), 342);
        let alone = Keyring::new(SigningKey::hs256(&[7; 32]).unwrap(), Vec::new());
        assert_eq!(alone.published().json, r#"{"keys":[]}"#);
        assert_ne!(alone.published().entity_tag, ring.published().entity_tag);
    }
}
