//! What passes for an access token, and the attacks that do not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity_client::{InvalidToken, Role, Uuid, Verifier, VerifierConfig};
use serde_json::{Value, json};

use crate::jwks::KeyServer;
use crate::tokens::{NOW, SECRET, Signer, claims, now};

/// A changed part of a header or of the claims.
type Change = fn(&mut Value);

/// A verifier that knows a key of either kind.
struct Setting {
    ed25519: Signer,
    rsa: Signer,
    verifier: Verifier,
}

impl Setting {
    async fn new() -> Self {
        let (ed25519, rsa) = (Signer::ed25519("ed"), Signer::rsa("rsa"));
        let server = KeyServer::start(&[&ed25519, &rsa]).await;
        let config = VerifierConfig::with_jwks(server.uri()).period(Duration::from_secs(3_600));
        Self { ed25519, rsa, verifier: Verifier::new(config).unwrap() }
    }

    fn signers(&self) -> [&Signer; 2] {
        [&self.ed25519, &self.rsa]
    }

    async fn refusal(&self, token: &str) -> Option<InvalidToken> {
        self.refusal_at(token, NOW).await
    }

    async fn refusal_at(&self, token: &str, unix_seconds: u64) -> Option<InvalidToken> {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(unix_seconds);
        match self.verifier.verify_at(token, now).await {
            Ok(_) => None,
            Err(identity_client::VerifyError::Invalid(invalid)) => Some(invalid),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A well-signed token that differs from a valid one as said.
fn altered(signer: &Signer, header: Change, claims_change: Change) -> String {
    let (mut new_header, mut new_claims) = (signer.header(), claims());
    header(&mut new_header);
    claims_change(&mut new_claims);
    signer.sign(&new_header.to_string(), &new_claims.to_string())
}

#[tokio::test]
async fn a_token_says_what_it_was_issued_for() {
    let setting = Setting::new().await;
    for signer in setting.signers() {
        // The second look is answered from memory.
        for token in [signer.token(), signer.token()] {
            let claims = setting.verifier.verify_at(&token, now()).await.unwrap();
            let id = |last: u128| Uuid::from_u128(0x018b_cfe5_6800_7000_8000_0000_0000_0000 + last);
            assert_eq!((claims.user_id, claims.tenant_id), (id(1), id(2)));
            assert_eq!((claims.session_id, claims.token_id), (id(3), id(4)));
            assert_eq!(claims.role, Role::Admin);
            assert_eq!((claims.issued_at, claims.expires_at), (now(), now() + Duration::from_secs(900)));
        }
    }
    for typ in ["AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let header = json!({"typ": typ, "kid": "ed", "alg": "EdDSA"});
        let token = setting.ed25519.sign(&header.to_string(), &claims().to_string());
        assert_eq!(setting.refusal(&token).await, None, "{typ}");
    }
}

#[tokio::test]
async fn a_token_counts_to_its_end_and_may_be_of_a_clock_a_minute_ahead() {
    let setting = Setting::new().await;
    for signer in setting.signers() {
        let token = signer.token();
        // Twice, since the second round is answered from memory.
        for _ in 0..2 {
            assert_eq!(setting.refusal_at(&token, NOW - 61).await, Some(InvalidToken::NotYetValid));
            assert_eq!(setting.refusal_at(&token, NOW - 60).await, None);
            assert_eq!(setting.refusal_at(&token, NOW + 899).await, None);
            assert_eq!(setting.refusal_at(&token, NOW + 900).await, Some(InvalidToken::Expired));
        }
    }
}

#[tokio::test]
async fn a_well_signed_token_with_the_wrong_header_is_refused() {
    use InvalidToken::{Malformed, UnknownKey, WrongSignature, WrongType};

    let setting = Setting::new().await;
    let table: &[(Change, InvalidToken)] = &[
        (|h| h["alg"] = json!("none"), WrongSignature),
        (|h| h["alg"] = json!("HS256"), WrongSignature),
        (|h| h["alg"] = json!("RS512"), WrongSignature),
        (|h| h["alg"] = json!("HS512"), WrongSignature),
        (|h| h["alg"] = json!("PS256"), WrongSignature),
        (|h| _ = h.as_object_mut().unwrap().remove("alg"), Malformed),
        (|h| _ = h.as_object_mut().unwrap().remove("kid"), Malformed),
        (|h| h["kid"] = json!(""), UnknownKey),
        (|h| h["kid"] = json!("../../dev/null"), UnknownKey),
        (|h| h["kid"] = json!(7), Malformed),
        (|h| h["kid"] = json!(["ed", "rsa"]), Malformed),
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
        (|h| h["x5c"] = json!(["AA"]), Malformed),
        (|h| h["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), Malformed),
        (|h| h["cty"] = json!("JWT"), Malformed),
        (|h| *h = json!([]), Malformed),
    ];
    for signer in setting.signers() {
        for (index, (change, expected)) in table.iter().enumerate() {
            let token = altered(signer, *change, |_| {});
            assert_eq!(setting.refusal(&token).await, Some(*expected), "row {index}");
        }
    }
}

#[tokio::test]
async fn a_well_signed_token_with_the_wrong_claims_is_refused() {
    use InvalidToken::{Expired, Malformed, NotYetValid, ValidTooLong, WrongAudience, WrongIssuer};

    let setting = Setting::new().await;
    let table: &[(Change, InvalidToken)] = &[
        (|c| c["iss"] = json!("identity/"), WrongIssuer),
        (|c| c["iss"] = json!(["identity"]), Malformed),
        (|c| c["aud"] = json!("IDENTITY"), WrongAudience),
        (|c| c["aud"] = json!(["identity", "other"]), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("aud"), Malformed),
        (|c| c["exp"] = json!(NOW), Expired),
        (|c| c["exp"] = json!(i64::MIN), Malformed),
        (|c| c["exp"] = json!((NOW + 900).to_string()), Malformed),
        (|c| c["exp"] = json!(1_700_000_900.5), Malformed),
        (|c| c["exp"] = json!(u64::MAX), Malformed),
        (|c| c["exp"] = json!(i64::MAX), ValidTooLong),
        (|c| c["exp"] = json!(NOW + 24 * 60 * 60 + 1), ValidTooLong),
        (|c| c["exp"] = json!(1e300), Malformed),
        (|c| c["exp"] = json!(null), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("exp"), Malformed),
        (|c| c["nbf"] = json!(NOW + 61), NotYetValid),
        (|c| c["nbf"] = json!("0"), Malformed),
        (|c| c["iat"] = json!(NOW + 61), NotYetValid),
        (|c| c["iat"] = json!(-1), ValidTooLong),
        (|c| c["iat"] = json!(NOW.to_string()), Malformed),
        (|c| c["role"] = json!("root"), Malformed),
        (|c| c["sub"] = json!("1"), Malformed),
        (|c| c["tid"] = json!(""), Malformed),
        (|c| _ = c.as_object_mut().unwrap().remove("sid"), Malformed),
        (|c| c["client_id"] = json!("other"), Malformed),
        (|c| c["jti"] = json!("1"), Malformed),
        (|c| *c = json!("claims"), Malformed),
    ];
    for signer in setting.signers() {
        for (index, (change, expected)) in table.iter().enumerate() {
            let token = altered(signer, |_| {}, *change);
            assert_eq!(setting.refusal(&token).await, Some(*expected), "row {index}");
        }
    }
}

#[tokio::test]
async fn a_name_that_occurs_twice_is_refused() {
    let setting = Setting::new().await;
    let (header, claims) = (setting.ed25519.header().to_string(), claims().to_string());
    let twice = |json: &str, more: &str| format!("{},{more}}}", json.strip_suffix('}').unwrap());
    for (header, claims) in [
        (twice(&header, r#""alg":"EdDSA""#), claims.clone()),
        (twice(&header, r#""kid":"ed""#), claims.clone()),
        (twice(&header, r#""typ":"at+jwt""#), claims.clone()),
        (header.clone(), twice(&claims, r#""role":"owner""#)),
        (header.clone(), twice(&claims, r#""exp":1700000900"#)),
    ] {
        let token = setting.ed25519.sign(&header, &claims);
        assert_eq!(setting.refusal(&token).await, Some(InvalidToken::Malformed), "{header} {claims}");
    }
}

#[tokio::test]
async fn neither_a_public_key_nor_a_key_of_another_kind_signs() {
    let setting = Setting::new().await;
    let [mut forged_ed, mut forged_rsa] = setting.signers().map(|signer| {
        let forge = |secret: Vec<u8>| Signer::secret(signer.kid, &secret);
        signer.public_bytes().into_iter().map(forge).collect::<Vec<_>>()
    });
    let mut forgers: Vec<_> = forged_ed.drain(..).chain(forged_rsa.drain(..)).collect();
    forgers.extend([
        Signer::ed25519("ed"),
        Signer::ed25519("rsa"),
        Signer::rsa("rsa"),
        Signer::rsa("ed"),
        Signer::secret("ed", b""),
    ]);
    for forger in &forgers {
        // Under its own algorithm, and under those of the keys.
        for algorithm in [forger.algorithm(), "EdDSA", "RS256"] {
            let header = json!({"alg": algorithm, "kid": forger.kid, "typ": "at+jwt"}).to_string();
            let token = forger.sign(&header, &claims().to_string());
            let refusal = setting.refusal(&token).await;
            assert_eq!(refusal, Some(InvalidToken::WrongSignature), "{algorithm} {}", forger.kid);
        }
    }
    // A verifier that has a secret takes nothing else.
    let with_secret = Verifier::new(VerifierConfig::with_secret(SECRET)).unwrap();
    with_secret.verify_at(&Signer::secret("any", SECRET).token(), now()).await.unwrap();
    let error = with_secret.verify_at(&setting.ed25519.token(), now()).await.unwrap_err();
    assert_eq!(error, InvalidToken::WrongSignature.into());
}

#[tokio::test]
async fn no_changed_character_goes_unnoticed() {
    let setting = Setting::new().await;
    for signer in setting.signers() {
        let token = signer.token();
        assert_eq!(setting.refusal(&token).await, None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(setting.refusal(&changed).await.is_some(), "character {at}");
            assert!(setting.refusal(&token[..at]).await.is_some(), "cut at {at}");
        }
        for changed in [format!("{token}="), format!("{token}A"), format!("{token}."), format!(" {token}")] {
            assert!(setting.refusal(&changed).await.is_some(), "{changed}");
        }
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let setting = Setting::new().await;
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
    for algorithm in ["none", "None", "NONE"] {
        let header = json!({"typ": "at+jwt", "kid": "ed", "alg": algorithm}).to_string();
        let claims = URL_SAFE_NO_PAD.encode(claims().to_string());
        let token = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(setting.refusal(&token).await, Some(InvalidToken::WrongSignature), "{algorithm}");
    }
    let nested = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":{}"#, "[".repeat(1300)));
    let nested = format!("{nested}.e30.AA");
    for text in ["", ".", "..", "...", "a.b.c", "Bearer x", &unsigned, &nested, "\u{e9}.\u{e9}.\u{e9}"] {
        assert_eq!(setting.refusal(text).await, Some(InvalidToken::Malformed), "{text:?}");
    }
    let token = setting.ed25519.token();
    for long in ["x".repeat(1 << 20), format!("{token}{}", "A".repeat(1 << 20)), ".".repeat(1 << 20)] {
        assert_eq!(setting.refusal(&long).await, Some(InvalidToken::TooLong));
    }
}
