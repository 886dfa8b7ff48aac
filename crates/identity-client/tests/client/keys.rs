//! Where the verifier's keys come from, and how often it asks for them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::crypto::KeyAlgorithm;
use identity::service::keys::Takeover;
use identity_client::{Client, ConfigError, InvalidToken, Role, Verifier, VerifierConfig, VerifyError};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::jwks::KeyServer;
use crate::service::{PASSWORD, Service, register};
use crate::tokens::{SECRET, Signer, now};

const HOUR: Duration = Duration::from_secs(3_600);

fn verifier(server: &KeyServer, period: Duration) -> Verifier {
    Verifier::new(VerifierConfig::with_jwks(server.uri()).period(period)).unwrap()
}

async fn verdict(verifier: &Verifier, token: &str) -> Result<(), VerifyError> {
    verifier.verify_at(token, now()).await.map(drop)
}

const UNKNOWN: Result<(), VerifyError> = Err(VerifyError::Invalid(InvalidToken::UnknownKey));

#[tokio::test]
async fn any_number_of_made_up_keys_causes_one_fetch_in_a_period() {
    let (key, other) = (Signer::ed25519("a"), Signer::ed25519("made up"));
    let server = KeyServer::start(&[&key]).await;
    let verifier = verifier(&server, HOUR);
    server.wait();
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, token) = (verifier.clone(), other.token());
            tokio::spawn(async move { verdict(&verifier, &token).await })
        })
        .collect();
    server.fetched(1).await;
    server.go_on();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), UNKNOWN);
    }
    assert_eq!(verdict(&verifier, &other.token()).await, UNKNOWN);
    assert_eq!(verdict(&verifier, &key.token()).await, Ok(()));
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_by_the_first_token_that_names_it_and_an_old_one_counts_no_more() {
    let (old, new) = (Signer::ed25519("old"), Signer::rsa("new"));
    let server = KeyServer::start(&[&old]).await;
    let verifier = verifier(&server, Duration::ZERO);
    let token = old.token();
    assert_eq!(verdict(&verifier, &token).await, Ok(()));
    assert_eq!(verdict(&verifier, &new.token()).await, UNKNOWN);
    server.publish(&[&old, &new]);
    assert_eq!(verdict(&verifier, &new.token()).await, Ok(()));
    assert_eq!(verdict(&verifier, &token).await, Ok(()));
    // What was verified before does not outlive its key.
    server.publish(&[&new]);
    assert_eq!(verdict(&verifier, &Signer::ed25519("made up").token()).await, UNKNOWN);
    assert_eq!(verdict(&verifier, &token).await, UNKNOWN);
}

#[tokio::test]
async fn keys_stay_when_no_others_can_be_fetched() {
    let (key, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let server = KeyServer::start(&[&key]).await;
    let verifier = verifier(&server, Duration::ZERO);
    assert_eq!(verdict(&verifier, &key.token()).await, Ok(()));
    let twice = json!({"keys": [other.jwk(), other.jwk()]}).to_string();
    let long = json!({"keys": [other.jwk()], "padding": "x".repeat(70_000)}).to_string();
    for (status, body) in [
        ("500 Internal Server Error", ""),
        ("404 Not Found", ""),
        ("301 Moved Permanently", ""),
        ("200 OK", "not JSON"),
        ("200 OK", "{}"),
        ("200 OK", &twice),
        ("200 OK", &long),
    ] {
        server.answer(status, "max-age=3600", body);
        let before = server.fetches();
        assert_eq!(verdict(&verifier, &other.token()).await, UNKNOWN, "{status} {:.20}", body);
        assert_eq!(server.fetches(), before + 1);
        assert_eq!(verdict(&verifier, &key.token()).await, Ok(()));
    }
    server.publish(&[&other]);
    assert_eq!(verdict(&verifier, &other.token()).await, Ok(()));
}

#[tokio::test]
async fn without_any_keys_no_token_is_judged() {
    let key = Signer::ed25519("a");
    let server = KeyServer::start(&[]).await;
    server.answer("503 Service Unavailable", "no-store", "not ready\n");
    let verifier = verifier(&server, Duration::ZERO);
    assert_eq!(verdict(&verifier, &key.token()).await, Err(VerifyError::KeysUnavailable));
    // What is no token is told apart even then.
    assert_eq!(verdict(&verifier, "x").await, Err(InvalidToken::Malformed.into()));
    server.publish(&[&key]);
    assert_eq!(verdict(&verifier, &key.token()).await, Ok(()));
    // Someone who signs with a secret publishes none.
    server.publish(&[]);
    assert_eq!(verdict(&verifier, &Signer::ed25519("b").token()).await, UNKNOWN);
}

#[tokio::test]
async fn keys_are_asked_for_again_by_themselves_when_they_are_old() {
    let key = Signer::ed25519("a");
    let server = KeyServer::start(&[]).await;
    server.publish_for(&[&key], "max-age=1");
    let verifier = verifier(&server, HOUR);
    let first = server.fetched(1).await;
    assert!(first.starts_with("GET /.well-known/jwks.json HTTP/1.1\r\n"), "{first}");
    assert!(!first.contains("if-none-match"), "{first}");
    server.answer("304 Not Modified", "max-age=1", "");
    let second = server.fetched(2).await;
    assert!(second.contains("if-none-match: \"one\"\r\n"), "{second}");
    server.fetched(3).await;
    assert_eq!(verdict(&verifier, &key.token()).await, Ok(()));
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_take_the_fetch_along() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let server = KeyServer::start(&[&old]).await;
    let verifier = verifier(&server, Duration::ZERO);
    assert_eq!(verdict(&verifier, &old.token()).await, Ok(()));
    server.wait();
    server.publish(&[&new]);
    let fetches = server.fetches();
    let token = new.token();
    tokio::select! {
        biased;
        verdict = verdict(&verifier, &token) => panic!("{verdict:?}"),
        _ = server.fetched(fetches + 1) => {}
    }
    server.go_on();
    assert_eq!(verdict(&verifier, &token).await, Ok(()));
    assert_eq!(server.fetches(), fetches + 1);
}

#[tokio::test]
async fn keys_that_are_not_for_access_tokens_are_left_aside() {
    let (good, secret) = (Signer::ed25519("good"), Signer::secret("secret", SECRET));
    let (encryption, other_alg) = (Signer::ed25519("encryption"), Signer::ed25519("other algorithm"));
    let mut keys = vec![good.jwk(), secret.jwk(), encryption.jwk(), other_alg.jwk()];
    keys[2]["use"] = json!("enc");
    keys[3]["alg"] = json!("ES256");
    keys.extend([
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "ec"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "short"}),
        json!({"kty": "RSA", "n": "", "e": "", "kid": "empty"}),
        json!({"no": "key"}),
        json!(7),
    ]);
    let server = KeyServer::start(&[]).await;
    server.answer("200 OK", "max-age=3600", &json!({ "keys": keys }).to_string());
    let verifier = verifier(&server, HOUR);
    assert_eq!(verdict(&verifier, &good.token()).await, Ok(()));
    for other in [secret, encryption, other_alg] {
        assert_eq!(verdict(&verifier, &other.token()).await, UNKNOWN, "{}", other.kid);
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    for uri in ["", "nonsense", "/.well-known/jwks.json", "ftp://example.com/", "http:///x"] {
        let result = Verifier::new(VerifierConfig::with_jwks(uri));
        assert!(matches!(result, Err(ConfigError::InvalidUri { .. })), "{uri}: {result:?}");
    }
    let result = Verifier::new(VerifierConfig::with_secret(&SECRET[..31]));
    assert!(matches!(result, Err(ConfigError::ShortSecret)), "{result:?}");
    let shown = format!("{:?}", VerifierConfig::with_secret(b"sesame, sesame"));
    assert!(!shown.contains("sesame") && !shown.contains("115"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_of_a_service_is_good_while_its_keys_change_and_none_of_a_retired_key() {
    let service = Service::start(&[("IDENTITY_KEY_PROPAGATION", "1s")]).await;
    let client = service.client();
    let config = VerifierConfig::with_jwks(service.jwks_uri()).period(Duration::ZERO);
    let verifier = Verifier::new(config).unwrap();
    let login = register(&client, "ada@example.com").await;
    let first = login.tokens.access_token;
    let claims = verifier.verify(&first).await.unwrap();
    assert_eq!((claims.user_id, claims.tenant_id), (login.user.id, login.user.tenant.id));
    assert_eq!((claims.role, claims.expires_at), (Role::Owner, login.tokens.access_token_expires_at));
    assert_eq!(Some(claims), client.verify_token(&first).await.unwrap());

    let custody = service.custody(KeyAlgorithm::Rs256);
    let kid = custody.rotate(Takeover::Propagated).await.unwrap();
    while header_of(&login_again(&client, &verifier).await)["kid"] != kid.as_str() {
        verifier.verify(&first).await.unwrap();
    }
    assert_eq!(header_of(&login_again(&client, &verifier).await)["alg"], "RS256");

    custody.retire(header_of(&first)["kid"].as_str().unwrap()).await.unwrap();
    let made_up = Signer::ed25519("made up").token();
    while verifier.verify(&first).await.is_ok() {
        // Makes it look for other keys, which it else does as often as the service says.
        assert_eq!(verdict(&verifier, &made_up).await, UNKNOWN);
        sleep(Duration::from_millis(10)).await;
    }
    login_again(&client, &verifier).await;
}

/// The token of a new session, which is good.
async fn login_again(client: &Client, verifier: &Verifier) -> String {
    let token = client.login("ada@example.com", PASSWORD).await.unwrap().tokens.access_token;
    verifier.verify(&token).await.unwrap();
    token
}

fn header_of(token: &str) -> Value {
    let (header, _) = token.split_once('.').unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_service_with_a_secret_are_verified_with_it() {
    let secret = std::str::from_utf8(SECRET).unwrap();
    let service = Service::start(&[("JWT_SECRET", secret)]).await;
    let login = register(&service.client(), "ada@example.com").await;
    let verifier = Verifier::new(VerifierConfig::with_secret(secret)).unwrap();
    let claims = verifier.verify(&login.tokens.access_token).await.unwrap();
    assert_eq!((claims.user_id, claims.tenant_id), (login.user.id, login.user.tenant.id));
    assert_eq!(claims.expires_at, login.tokens.access_token_expires_at);
    let other = Verifier::new(VerifierConfig::with_secret(secret.to_uppercase())).unwrap();
    let refusal = other.verify(&login.tokens.access_token).await;
    assert_eq!(refusal, Err(InvalidToken::WrongSignature.into()));
}
