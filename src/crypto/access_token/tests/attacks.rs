//! Texts that are no access tokens of the service, though some of them look like one.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::*;
use crate::crypto::{MasterKey, RefreshTokens, SessionSecret};

/// A changed part of a header or of the claims.
type Change = fn(&mut Value);

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

#[test]
fn the_forged_tokens_of_these_tests_fail_for_no_other_reason() {
    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    assert!(tokens.verify(&altered(&tokens, |_| {}, |_| {}), NOW).is_ok());
    for typ in ["AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let claims = part(&text(&tokens.issue(&subject(), NOW)), 1);
        let header = json!({"alg": "HS256", "kid": kid(&tokens), "typ": typ});
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
        (|h| h["alg"] = json!("None"), Malformed),
        (|h| h["alg"] = json!("NONE"), Malformed),
        (|h| h["alg"] = json!("nOnE"), Malformed),
        (|h| h["alg"] = json!(""), Malformed),
        (|h| h["alg"] = json!("RS256"), WrongSignature),
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
        (|h| h["x5c"] = json!(["AA"]), Malformed),
        (|h| h["kid"] = json!(["x"]), Malformed),
        (|h| *h = json!([]), Malformed),
    ];
    for (index, (change, expected)) in table.iter().enumerate() {
        let token = altered(&tokens, *change, |_| {});
        assert_eq!(tokens.verify(&token, NOW), Err(*expected), "row {index}: {}", part(&token, 0));
    }
}

#[test]
fn a_well_signed_token_with_the_wrong_claims_is_refused() {
    use InvalidToken::{Expired, Malformed, NotYetValid, ValidTooLong, WrongAudience, WrongIssuer};

    let tokens = tokens(SigningKey::hs256(SECRET).unwrap());
    let table: &[(Change, InvalidToken)] = &[
        (|c| c["iss"] = json!("https://id.example/"), WrongIssuer),
        (|c| c["iss"] = json!(["https://id.example"]), Malformed),
        (|c| c["aud"] = json!("EXAMPLE"), WrongAudience),
        (|c| c["aud"] = json!(["example", "other"]), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("aud"), Malformed),
        (|c| c["exp"] = json!(1_700_000_000), Expired),
        (|c| c["exp"] = json!(i64::MIN), Expired),
        (|c| c["exp"] = json!(1_700_000_000 + 24 * 60 * 60 + 1), ValidTooLong),
        (|c| c["exp"] = json!(i64::MAX), ValidTooLong),
        (|c| c["iat"] = json!(i64::MIN), ValidTooLong),
        (|c| c["exp"] = json!("1700000900"), Malformed),
        (|c| c["exp"] = json!(1_700_000_900.5), Malformed),
        (|c| c["exp"] = json!(u64::MAX), Malformed),
        (|c| c["exp"] = json!(1e300), Malformed),
        (|c| c["exp"] = json!(null), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("exp"), Malformed),
        (|c| c["nbf"] = json!(1_700_000_061), NotYetValid),
        (|c| c["nbf"] = json!("0"), Malformed),
        (|c| c["iat"] = json!(1_700_000_061), NotYetValid),
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
        (twice(&header, r#""kid":"x""#), claims.clone()),
        (header.clone(), twice(&claims, r#""role":"owner""#)),
        (header.clone(), twice(&claims, r#""exp":9999999999"#)),
    ] {
        let forged = forge(SECRET, &header, &claims);
        assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::Malformed), "{header} {claims}");
    }
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    for algorithm in [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256] {
        let (key, stored) = SigningKey::generate(algorithm);
        let tokens = tokens(key);
        let token = text(&tokens.issue(&subject(), NOW));
        let mut header = part(&token, 0);
        header["alg"] = json!("HS256");
        let claims = part(&token, 1).to_string();
        let base64 = base64::engine::general_purpose::STANDARD.encode(&stored.public_key);
        let lines: Vec<_> =
            base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let url_safe = URL_SAFE_NO_PAD.encode(&stored.public_key);
        for secret in [&stored.public_key, url_safe.as_bytes(), pem.as_bytes(), pem.trim_end().as_bytes()] {
            for header in [&header, &part(&token, 0)] {
                let forged = forge(secret, &header.to_string(), &claims);
                assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::WrongSignature));
            }
        }
    }
}

#[test]
fn a_key_of_the_attackers_does_not_sign_under_our_kid() {
    for algorithm in [KeyAlgorithm::EdDsa, KeyAlgorithm::Rs256] {
        let tokens = tokens(SigningKey::generate(algorithm).0);
        let token = text(&tokens.issue(&subject(), NOW));
        let (message, _) = token.rsplit_once('.').unwrap();
        let signature = SigningKey::generate(algorithm).0.sign(message.as_bytes());
        let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(tokens.verify(&forged, NOW), Err(InvalidToken::WrongSignature));
    }
}

#[test]
fn a_signature_has_one_text() {
    for tokens in every_kind() {
        let token = text(&tokens.issue(&subject(), NOW));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let padded = base64::engine::general_purpose::URL_SAFE.encode(&bytes);
        let standard = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes);
        // The last character has bits that mean nothing: the next one of the alphabet says the same.
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (start, last) = signature.split_at(signature.len() - 1);
        let at = alphabet.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
        let loose = format!("{start}{}", alphabet[at + 1] as char);
        let longer = URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat());
        let zero = URL_SAFE_NO_PAD.encode([&[0], &bytes[..]].concat());
        let cut = URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1]);
        for other in [padded, loose, longer, zero, cut, format!("{signature}\n"), String::new()] {
            assert!(tokens.verify(&format!("{message}.{other}"), NOW).is_err(), "{other}");
        }
        assert_eq!(tokens.verify(&format!("{message}.{standard}"), NOW).is_ok(), standard == signature);
    }
}

#[test]
fn no_changed_character_goes_unnoticed() {
    for tokens in every_kind() {
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
    let tokens = tokens(generate());
    let refresh = RefreshTokens::new(&MasterKey::generate().into());
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
