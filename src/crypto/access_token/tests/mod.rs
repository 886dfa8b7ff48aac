//! What an access token says, and how long it counts.

mod attacks;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::crypto::{KeyAlgorithm, NewSigningKey, SigningKey, VerifyingKey};

const NOW: Timestamp = Timestamp::from_unix_micros(1_700_000_000_999_999);
const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn settings() -> TokenSettings {
    TokenSettings {
        issuer: "https://id.example".to_owned(),
        audience: "example".to_owned(),
        access_ttl: Duration::from_secs(900),
    }
}

fn tokens(key: SigningKey) -> AccessTokens {
    AccessTokens::new(Keyring::new(key, Vec::new()), settings())
}

fn generate() -> SigningKey {
    SigningKey::generate(KeyAlgorithm::EdDsa).0
}

fn public(key: &NewSigningKey) -> VerifyingKey {
    VerifyingKey::from_public_key(key.algorithm, &key.public_key).unwrap()
}

/// The id of the key that signs.
fn kid(tokens: &AccessTokens) -> String {
    tokens.ring.load().keys.signing_at(NOW).kid().to_owned()
}

fn subject() -> TokenSubject {
    TokenSubject {
        tenant_id: TenantId::generate(NOW),
        user_id: UserId::generate(NOW),
        session_id: SessionId::generate(NOW),
        role: Role::Admin,
        session_ends_at: NOW.plus(Duration::from_secs(90 * 24 * 60 * 60)),
    }
}

fn text(token: &AccessToken) -> String {
    token.text.expose_secret().to_owned()
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

fn every_kind() -> [AccessTokens; 3] {
    [generate(), SigningKey::generate(KeyAlgorithm::Rs256).0, SigningKey::hs256(SECRET).unwrap()].map(tokens)
}

#[test]
fn a_token_says_what_it_was_issued_for() {
    for tokens in every_kind() {
        let subject = subject();
        let token = tokens.issue(&subject, NOW);
        assert_eq!(token.expires_at.as_unix_micros(), 1_700_000_900_000_000);
        // The second look is answered from memory.
        for _ in 0..2 {
            let claims = tokens.verify(&text(&token), NOW).unwrap();
            assert_eq!((claims.tenant_id, claims.user_id), (subject.tenant_id, subject.user_id));
            assert_eq!((claims.session_id, claims.role), (subject.session_id, subject.role));
            assert_eq!(claims.issued_at.as_unix_micros(), 1_700_000_000_000_000);
            assert_eq!(claims.expires_at, token.expires_at);
        }
        let other = tokens.issue(&subject, NOW);
        let id = |token| tokens.verify(&text(token), NOW).unwrap().token_id;
        assert_ne!(id(&token), id(&other));
    }
}

#[test]
fn a_token_has_the_header_and_the_claims_of_rfc_9068() {
    let tokens = tokens(generate());
    let subject = subject();
    let token = text(&tokens.issue(&subject, NOW));
    let kid = kid(&tokens);
    assert_eq!(part(&token, 0), json!({"alg": "EdDSA", "kid": kid, "typ": "at+jwt"}));
    let claims = part(&token, 1);
    let expected = json!({
        "iss": "https://id.example", "aud": "example", "sub": subject.user_id.to_string(),
        "client_id": "identity", "tid": subject.tenant_id.to_string(), "sid": subject.session_id.to_string(),
        "role": "admin", "iat": 1_700_000_000, "exp": 1_700_000_900, "jti": claims["jti"],
    });
    assert_eq!(claims, expected);
}

#[test]
fn a_library_verifies_it_with_the_published_keys() {
    for algorithm in [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256] {
        let tokens = tokens(SigningKey::generate(algorithm).0);
        let token = text(&tokens.issue(&subject(), NOW));
        let published: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&tokens.published().json).unwrap();
        let key = published.find(&kid(&tokens)).unwrap();
        let mut validation = Validation::new(algorithm.as_str().parse::<Algorithm>().unwrap());
        validation.set_audience(&["example"]);
        validation.set_issuer(&["https://id.example"]);
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(key).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(decoded.claims["role"], "admin");
    }
}

#[test]
fn a_token_counts_to_its_end_and_may_be_of_a_clock_a_minute_ahead() {
    for tokens in every_kind() {
        let token = text(&tokens.issue(&subject(), NOW));
        let at = |seconds: i64| Timestamp::from_unix_micros((1_700_000_000 + seconds) * 1_000_000);
        // Twice, since the second round is answered from memory.
        for _ in 0..2 {
            assert_eq!(tokens.verify(&token, at(-61)), Err(InvalidToken::NotYetValid));
            assert!(tokens.verify(&token, at(-60)).is_ok());
            assert!(tokens.verify(&token, at(899)).is_ok());
            assert_eq!(tokens.verify(&token, at(900)), Err(InvalidToken::Expired));
        }
    }
}

#[test]
fn a_key_that_only_verifies_still_verifies_until_it_leaves_the_ring() {
    let (old, stored) = SigningKey::generate(KeyAlgorithm::EdDsa);
    let tokens = tokens(old);
    let token = text(&tokens.issue(&subject(), NOW));
    tokens.exchange(Keyring::new(generate(), vec![public(&stored)]));
    // The second look is answered from memory.
    for _ in 0..2 {
        assert!(tokens.verify(&token, NOW).is_ok());
    }
    tokens.exchange(Keyring::new(generate(), Vec::new()));
    for _ in 0..2 {
        assert_eq!(tokens.verify(&token, NOW), Err(InvalidToken::UnknownKey));
    }
}

#[test]
fn a_token_is_signed_with_the_key_whose_time_has_come() {
    let (first, next) = (Arc::new(generate()), Arc::new(generate()));
    let later = NOW.plus(Duration::from_secs(60));
    let verifying = vec![first.verifying_key(), next.verifying_key()];
    let ring = Keyring::scheduled((NOW, Arc::clone(&first)), vec![(later, Arc::clone(&next))], verifying);
    let tokens = AccessTokens::new(ring, settings());
    for (now, key) in [(NOW, &first), (later, &next)] {
        let token = text(&tokens.issue(&subject(), now));
        assert_eq!(part(&token, 0)["kid"], key.kid());
        assert!(tokens.verify(&token, now).is_ok());
    }
}

#[tokio::test]
async fn tokens_of_unknown_keys_are_told_of_once_however_many_come() {
    let tokens = tokens(generate());
    let foreign = text(&self::tokens(generate()).issue(&subject(), NOW));
    for _ in 0..3 {
        assert_eq!(tokens.verify(&foreign, NOW), Err(InvalidToken::UnknownKey));
        assert_eq!(tokens.verify("a.b.c", NOW), Err(InvalidToken::Malformed));
    }
    tokens.unknown_key().await;
    let again = std::pin::pin!(tokens.unknown_key());
    assert!(futures_util::poll!(again).is_pending());
}

#[test]
fn debug_shows_no_secret() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let token = tokens.issue(&subject(), NOW);
    let shown = format!("{token:?} {tokens:?}");
    assert!(!shown.contains(&text(&token)[..10]) && !shown.contains("a secret"), "{shown}");
}

#[test]
fn no_token_outlives_its_session() {
    for tokens in every_kind() {
        let subject = TokenSubject { session_ends_at: NOW.plus(Duration::from_secs(60)), ..subject() };
        let token = tokens.issue(&subject, NOW);
        let ends_at = subject.session_ends_at.as_unix_seconds();
        assert_eq!(token.expires_at.as_unix_seconds(), ends_at);
        assert_eq!(tokens.verify(&text(&token), NOW).unwrap().expires_at.as_unix_seconds(), ends_at);
    }
}
