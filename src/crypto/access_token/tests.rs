//! What passes for an access token, and the attacks that do not.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::crypto::{MasterKey, RefreshTokens, SessionSecret, SigningKey, VerifyingKey};

const NOW: Timestamp = Timestamp::from_unix_micros(1_700_000_000_999_999);
const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
/// A changed part of a header or of the claims.
type Change = fn(&mut Value);

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

/// A token of these two texts, signed as HS256 with `secret`.
fn forge(secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A well-signed token that differs from a valid one as said.
fn altered(tokens: &AccessTokens, header: Change, claims: Change) -> String {
    let token = text(&tokens.issue(&subject(), NOW));
    let (mut new_header, mut new_claims) = (part(&token, 0), part(&token, 1));
    header(&mut new_header);
    claims(&mut new_claims);
    forge(SECRET, &new_header.to_string(), &new_claims.to_string())
}

fn both_kinds() -> [AccessTokens; 2] {
    [tokens(SigningKey::generate_ed25519()), tokens(SigningKey::hs256(SECRET).unwrap())]
}

#[test]
fn a_token_says_what_it_was_issued_for() {
    for tokens in both_kinds() {
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
    let tokens = tokens(SigningKey::generate_ed25519());
    let subject = subject();
    let token = text(&tokens.issue(&subject, NOW));
    let kid = tokens.keyring.signing.kid();
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
fn another_library_verifies_it_with_the_public_key() {
    let key = SigningKey::generate_ed25519();
    let public_key = key.to_stored().unwrap().public_key;
    let token = text(&tokens(key).issue(&subject(), NOW));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verifier = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public_key);
    assert!(verifier.verify(message.as_bytes(), &signature).is_ok());
}

#[test]
fn time_is_the_callers_and_may_be_off_by_five_seconds() {
    for tokens in both_kinds() {
        let token = text(&tokens.issue(&subject(), NOW));
        let at = |seconds: i64| Timestamp::from_unix_micros((1_700_000_000 + seconds) * 1_000_000);
        // Twice, since the second round is answered from memory.
        for _ in 0..2 {
            assert_eq!(tokens.verify(&token, at(-6)), Err(InvalidToken::NotYetValid));
            assert!(tokens.verify(&token, at(-5)).is_ok());
            assert!(tokens.verify(&token, at(904)).is_ok());
            assert_eq!(tokens.verify(&token, at(905)), Err(InvalidToken::Expired));
        }
    }
}

#[test]
fn a_key_that_only_verifies_still_verifies_until_it_leaves_the_ring() {
    let old = SigningKey::generate_ed25519();
    let public_key = old.to_stored().unwrap().public_key;
    let token = text(&tokens(old).issue(&subject(), NOW));
    let verifying = vec![VerifyingKey::ed25519(public_key)];
    let ring = Keyring::new(SigningKey::generate_ed25519(), verifying);
    assert!(AccessTokens::new(ring, settings()).verify(&token, NOW).is_ok());
    let without = tokens(SigningKey::generate_ed25519());
    assert_eq!(without.verify(&token, NOW), Err(InvalidToken::UnknownKey));
}

#[test]
fn the_forged_tokens_of_these_tests_fail_for_no_other_reason() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    assert!(tokens.verify(&altered(&tokens, |_| {}, |_| {}), NOW).is_ok());
    for typ in ["AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let claims = part(&text(&tokens.issue(&subject(), NOW)), 1);
        let header = json!({"alg": "HS256", "kid": tokens.keyring.signing.kid(), "typ": typ});
        let token = forge(SECRET, &header.to_string(), &claims.to_string());
        assert!(tokens.verify(&token, NOW).is_ok(), "{typ}");
    }
}

#[test]
fn a_well_signed_token_with_the_wrong_header_is_refused() {
    use InvalidToken::{Malformed, UnknownKey, WrongSignature, WrongType};

    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let table: &[(Change, InvalidToken)] = &[
        (|h| h["alg"] = json!("none"), Malformed),
        (|h| h["alg"] = json!("HS512"), WrongSignature),
        (|h| h["alg"] = json!("EdDSA"), WrongSignature),
        (|h| _ = h.as_object_mut().unwrap().remove("alg"), Malformed),
        (|h| _ = h.as_object_mut().unwrap().remove("kid"), Malformed),
        (|h| h["kid"] = json!(""), UnknownKey),
        (|h| h["kid"] = json!("../../dev/null"), UnknownKey),
        (|h| h["kid"] = json!(7), Malformed),
        (|h| _ = h.as_object_mut().unwrap().remove("typ"), Malformed),
        (|h| h["typ"] = json!("JWT"), WrongType),
        (|h| h["typ"] = json!("rt+jwt"), WrongType),
        (|h| h["typ"] = json!("text/at+jwt"), WrongType),
        (|h| h["crit"] = json!(["exp"]), Malformed),
        (|h| h["crit"] = json!([]), Malformed),
        (|h| h["b64"] = json!(false), Malformed),
        (|h| h["zip"] = json!("DEF"), Malformed),
        (|h| h["jku"] = json!("https://evil.example/jwks.json"), Malformed),
        (|h| h["x5u"] = json!("https://evil.example/cert.pem"), Malformed),
        (|h| h["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), Malformed),
        (|h| h["cty"] = json!("JWT"), Malformed),
        (|h| *h = json!([]), Malformed),
    ];
    for (index, (change, expected)) in table.iter().enumerate() {
        let token = altered(&tokens, *change, |_| {});
        assert_eq!(tokens.verify(&token, NOW), Err(*expected), "row {index}: {}", part(&token, 0));
    }
}

#[test]
fn a_well_signed_token_with_the_wrong_claims_is_refused() {
    use InvalidToken::{Expired, Malformed, NotYetValid, WrongAudience, WrongIssuer};

    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let table: &[(Change, InvalidToken)] = &[
        (|c| c["iss"] = json!("https://id.example/"), WrongIssuer),
        (|c| c["iss"] = json!(["https://id.example"]), Malformed),
        (|c| c["aud"] = json!("EXAMPLE"), WrongAudience),
        (|c| c["aud"] = json!(["example", "other"]), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("aud"), Malformed),
        (|c| c["exp"] = json!(1_699_999_995), Expired),
        (|c| c["exp"] = json!(i64::MIN), Expired),
        (|c| c["exp"] = json!("1700000900"), Malformed),
        (|c| c["exp"] = json!(1_700_000_900.5), Malformed),
        (|c| c["exp"] = json!(u64::MAX), Malformed),
        (|c| c["exp"] = json!(1e300), Malformed),
        (|c| c["exp"] = json!(null), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("exp"), Malformed),
        (|c| c["nbf"] = json!(1_700_000_006), NotYetValid),
        (|c| c["nbf"] = json!("0"), Malformed),
        (|c| c["iat"] = json!(1_700_000_006), NotYetValid),
        (|c| c["iat"] = json!("1700000000"), Malformed),
        (|c| c["role"] = json!("root"), Malformed),
        (|c| c["sub"] = json!("1"), Malformed),
        (|c| c["tid"] = json!(""), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("sid"), Malformed),
        (|c| c["client_id"] = json!("other"), Malformed),
        (|c| c["jti"] = json!("1"), Malformed),
        (|c| *c = json!("claims"), Malformed),
    ];
    for (index, (change, expected)) in table.iter().enumerate() {
        let token = altered(&tokens, |_| {}, *change);
        assert_eq!(tokens.verify(&token, NOW), Err(*expected), "row {index}: {}", part(&token, 1));
    }
}

#[test]
fn a_name_that_occurs_twice_is_refused() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let token = text(&tokens.issue(&subject(), NOW));
    let (header, claims) = (part(&token, 0).to_string(), part(&token, 1).to_string());
    let twice = |json: &str, more: &str| format!("{},{more}}}", json.strip_suffix('}').unwrap());
    for (header, claims) in [
        (twice(&header, r#""alg":"HS256""#), claims.clone()),
        (twice(&header, r#""typ":"at+jwt""#), claims.clone()),
        (header.clone(), twice(&claims, r#""role":"owner""#)),
        (header.clone(), twice(&claims, r#""exp":9999999999"#)),
    ] {
        let forged = forge(SECRET, &header, &claims);
        assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::Malformed), "{header} {claims}");
    }
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    let key = SigningKey::generate_ed25519();
    let public_key = key.to_stored().unwrap().public_key;
    let tokens = tokens(key);
    let token = text(&tokens.issue(&subject(), NOW));
    let mut header = part(&token, 0);
    header["alg"] = json!("HS256");
    let claims = part(&token, 1).to_string();
    for secret in [public_key.to_vec(), URL_SAFE_NO_PAD.encode(public_key).into_bytes()] {
        let forged = forge(&secret, &header.to_string(), &claims);
        assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::WrongSignature));
        let forged = forge(&secret, &part(&token, 0).to_string(), &claims);
        assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::WrongSignature));
    }
}

#[test]
fn a_key_of_the_attackers_does_not_sign_under_our_kid() {
    let tokens = tokens(SigningKey::generate_ed25519());
    let token = text(&tokens.issue(&subject(), NOW));
    let theirs = SigningKey::generate_ed25519();
    let header = header(TYPE, Algorithm::EdDSA, tokens.keyring.signing.kid());
    let forged = jsonwebtoken::encode(&header, &part(&token, 1), &theirs.encoding).unwrap();
    assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::WrongSignature));
}

#[test]
fn no_changed_character_goes_unnoticed() {
    for tokens in both_kinds() {
        let token = text(&tokens.issue(&subject(), NOW));
        assert!(tokens.verify(&token, NOW).is_ok());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(tokens.verify(&changed, NOW).is_err(), "character {at}");
            assert!(tokens.verify(&token[..at], NOW).is_err(), "cut at {at}");
        }
        for changed in [format!("{token}="), format!("{token}A"), format!("{token}."), format!(" {token}")] {
            assert!(tokens.verify(&changed, NOW).is_err(), "{changed}");
        }
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let tokens = tokens(SigningKey::generate_ed25519());
    let refresh = RefreshTokens::new(&MasterKey::generate());
    let refresh =
        refresh.issue(TenantId::generate(NOW), SessionId::generate(NOW), 0, &SessionSecret::generate());
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
    for text in
        ["", ".", "..", "...", "a.b.c", "Bearer x", refresh.as_str(), &unsigned, "\u{e9}.\u{e9}.\u{e9}"]
    {
        assert_eq!(tokens.verify(text, NOW), Err(InvalidToken::Malformed), "{text:?}");
    }
    let token = text(&tokens.issue(&subject(), NOW));
    for long in ["x".repeat(1 << 20), format!("{token}{}", "A".repeat(1 << 20)), ".".repeat(1 << 20)] {
        assert_eq!(tokens.verify(&long, NOW), Err(InvalidToken::TooLong));
    }
}

#[test]
fn deeply_nested_json_is_refused() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let nested = "[".repeat(1300);
    let header = format!(r#"{{"alg":"HS256","x":{nested}"#);
    assert_eq!(tokens.verify(&forge(SECRET, &header, "{}"), NOW), Err(InvalidToken::Malformed));
}

#[test]
fn debug_shows_no_secret() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let token = tokens.issue(&subject(), NOW);
    let shown = format!("{token:?} {tokens:?}");
    assert!(!shown.contains(&text(&token)[..10]) && !shown.contains("a secret"), "{shown}");
    // The library's own keys, should one ever be shown.
    assert!(!format!("{:?}", DecodingKey::from_secret(SECRET)).contains("97, 32, 115"));
    assert!(!format!("{:?}", EncodingKey::from_secret(SECRET)).contains("97, 32, 115"));
}

#[test]
fn no_token_outlives_its_session() {
    for tokens in both_kinds() {
        let subject = TokenSubject { session_ends_at: NOW.plus(Duration::from_secs(60)), ..subject() };
        let token = tokens.issue(&subject, NOW);
        let ends_at = subject.session_ends_at.as_unix_seconds();
        assert_eq!(token.expires_at.as_unix_seconds(), ends_at);
        assert_eq!(tokens.verify(&text(&token), NOW).unwrap().expires_at.as_unix_seconds(), ends_at);
    }
}
