//! Signatures of Project Wycheproof: those known to pass where they should not.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::PublicKeyComponents;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::crypto::jws::Jws;
use identity::crypto::{KeyAlgorithm, SigningKey, VerifyingKey};
use serde_json::Value;

/// Called valid, and refused here: they have a character that is none of base64url (RFC 7515, 2), which a
/// decoder may not skip (RFC 4648, 3.3).
const STRICTER: [u64; 2] = [372, 373];
/// Called invalid for their padding, which they have none of: letter for letter the valid vector 357.
const MISLABELLED: [u64; 2] = [367, 370];

fn verifying_key(jwk: &Value) -> Option<VerifyingKey> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    match jwk["alg"].as_str()? {
        "HS256" => Some(SigningKey::hs256(&part("k")).unwrap().verifying_key()),
        "RS256" => {
            let der = PublicKeyComponents { n: part("n"), e: part("e") }.as_der().unwrap();
            Some(VerifyingKey::from_public_key(KeyAlgorithm::Rs256, der.as_ref()).unwrap())
        }
        // Not accepted here; and there are none for EdDSA.
        _ => None,
    }
}

/// As an access token is verified, but for what its header and its claims have to say.
fn verifies(jws: &str, key: &VerifyingKey) -> bool {
    let Some(parts) = Jws::parse(jws) else { return false };
    let header = jsonwebtoken::decode_header(jws);
    let is_for_key = header.is_ok_and(|header| format!("{:?}", header.alg) == key.algorithm());
    is_for_key && parts.payload_signed_with(key).is_ok()
}

#[test]
fn every_vector_for_an_algorithm_of_ours_ends_as_it_should() {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/json_web_signature_test.json")).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        let jwk = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        let Some(key) = verifying_key(jwk) else { continue };
        for vector in group["tests"].as_array().unwrap() {
            let id = vector["tcId"].as_u64().unwrap();
            let is_valid = vector["result"] == "valid" || MISLABELLED.contains(&id);
            let expected = is_valid && !STRICTER.contains(&id);
            // Some are objects: the other serialisation.
            let jws = vector["jws"].as_str().map_or_else(|| vector["jws"].to_string(), str::to_owned);
            assert_eq!(verifies(&jws, &key), expected, "{id}: {}", vector["comment"]);
            *(if expected { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!((valid, invalid), (18, 255));
}

#[test]
fn a_key_verifies_nothing_of_another_algorithm() {
    let (rsa, _) = SigningKey::generate(KeyAlgorithm::Rs256);
    let (ed25519, _) = SigningKey::generate(KeyAlgorithm::EdDsa);
    let secret = SigningKey::hs256(&[7; 32]).unwrap();
    for key in [rsa, ed25519, secret].map(|key| key.verifying_key()) {
        for length in [0, 32, 64, 256, 512] {
            assert!(!key.has_signed(b"message", &vec![0; length]), "{} {length}", key.algorithm());
        }
    }
}
