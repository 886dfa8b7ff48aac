//! Tokens of attackers. Each is refused as a call without any token is.
//!
//! Where the attack is about what a token says, it is signed with the service's own key, so that nothing
//! but what it says keeps it out.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use identity::crypto::MasterKey;
use identity::storage::{LaneSizes, Storage, StorageSettings, signing_keys};
use serde_json::{Value, json};
use tonic::Code;

use crate::fixture::{decode_token, refusal, refused, registered, visible};
use crate::support::service::{Engine, MASTER_KEY, TestDatabase, TestService, on_both_databases};

on_both_databases!(
    no_token_with_a_foreign_header_is_accepted,
    no_token_with_foreign_claims_is_accepted,
    no_token_with_another_signature_is_accepted,
    a_token_is_accepted_for_its_purpose_only,
);

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const HOUR: i64 = 3_600;

/// How the service signs.
enum Signer {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Hmac(Box<hmac::Key>),
}

/// A service, a token of it, and all that is needed to make others which are as good.
struct Target {
    service: TestService,
    token: String,
    refresh_token: String,
    header: Value,
    claims: Value,
    signer: Signer,
    /// In DER or raw; none of a secret.
    public_key: Option<Vec<u8>>,
}

impl Target {
    /// One for each algorithm.
    async fn all(engine: Engine) -> [Self; 3] {
        let eddsa = Self::start(engine, &[]).await;
        let rs256 = Self::start(engine, &[("IDENTITY_TOKEN_ALGORITHM", "RS256")]).await;
        [eddsa, rs256, Self::start(engine, &[("JWT_SECRET", SECRET)]).await]
    }

    async fn start(engine: Engine, variables: &[(&str, &str)]) -> Self {
        let service = TestService::start_with(TestDatabase::migrated(engine).await, variables).await;
        let ada = registered(&service, "ada@example.com").await;
        let (header, claims) = decode_token(&ada.access_token);
        let (signer, public_key) = match header["alg"].as_str().unwrap() {
            "HS256" => (Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()))), None),
            algorithm => {
                let (pkcs8, public_key) = stored_key(&service.database).await;
                let signer = if algorithm == "RS256" {
                    Signer::Rsa(RsaKeyPair::from_pkcs8(&pkcs8).unwrap())
                } else {
                    Signer::Ed25519(Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap())
                };
                (signer, Some(public_key))
            }
        };
        let (token, refresh_token) = (ada.access_token, ada.refresh_token);
        Self { service, token, refresh_token, header, claims, signer, public_key }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    /// A token of these two texts, signed by the service's own key.
    fn signed(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.signature(message.as_bytes())))
    }

    fn with_header(&self, change: impl Fn(&mut Value)) -> String {
        let mut header = self.header.clone();
        change(&mut header);
        self.signed(&header.to_string(), &self.claims.to_string())
    }

    fn with_claims(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = self.claims.clone();
        change(&mut claims);
        self.signed(&self.header.to_string(), &claims.to_string())
    }

    async fn accepts(&self, token: &str, what: &str) {
        let reply = self.service.client().get_user(Some(token), "").await;
        assert!(reply.is_ok(), "{} {what}: {reply:?}", self.header["alg"]);
    }

    async fn refuses(&self, token: &str, what: &str) {
        let client = self.service.client();
        let missing = client.get_user(None, "").await.unwrap_err();
        assert_eq!(refusal::<()>(Err(missing.clone())), refused(Code::Unauthenticated, "TOKEN_INVALID"));
        // Twice, since a service remembers what it has seen.
        for _ in 0..2 {
            let status = client.get_user(Some(token), "").await.expect_err(what);
            assert_eq!(visible(&status), visible(&missing), "{} {what}", self.header["alg"]);
        }
    }
}

/// The private and the public part of the only key in the database.
async fn stored_key(database: &TestDatabase) -> (Vec<u8>, Vec<u8>) {
    let settings = StorageSettings {
        url: database.parsed(),
        connections: LaneSizes::MIN,
        statement_limit: std::time::Duration::from_secs(60),
        queue_limit: std::time::Duration::from_secs(60),
    };
    let storage = Storage::new(&settings).unwrap();
    let key = signing_keys::list(&mut storage.read().await.unwrap()).await.unwrap().remove(0);
    let master_key = MasterKey::from_base64(MASTER_KEY).unwrap();
    let pkcs8 = master_key.open("signing key", &key.kid, &key.sealed_private_key).unwrap();
    (pkcs8.to_vec(), key.public_key)
}

fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// A token that is good by the key in its own header.
fn signed_by_its_own_key(header: &Value, claims: &str) -> String {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut header = header.clone();
    header["alg"] = json!("EdDSA");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    header["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let message = message(&header.to_string(), claims);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

/// A changed part of a header or of the claims.
type Change = fn(&mut Value);

async fn no_token_with_a_foreign_header_is_accepted(engine: Engine) {
    let changes: &[(&str, Change)] = &[
        ("alg none", |h| h["alg"] = json!("none")),
        ("alg None", |h| h["alg"] = json!("None")),
        ("alg NONE", |h| h["alg"] = json!("NONE")),
        ("alg nOnE", |h| h["alg"] = json!("nOnE")),
        ("alg empty", |h| h["alg"] = json!("")),
        ("alg null", |h| h["alg"] = json!(null)),
        ("alg missing", |h| _ = h.as_object_mut().unwrap().remove("alg")),
        ("alg in lower case", |h| h["alg"] = json!(h["alg"].as_str().unwrap().to_lowercase())),
        ("alg HS512", |h| h["alg"] = json!("HS512")),
        ("alg PS256", |h| h["alg"] = json!("PS256")),
        ("alg ES256", |h| h["alg"] = json!("ES256")),
        ("kid unknown", |h| h["kid"] = json!("unknown")),
        ("kid a path", |h| h["kid"] = json!("../../../../dev/null")),
        ("kid SQL", |h| h["kid"] = json!("' OR kid <> '")),
        ("kid missing", |h| _ = h.as_object_mut().unwrap().remove("kid")),
        ("kid a list", |h| h["kid"] = json!([h["kid"]])),
        ("jwk", |h| h["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"})),
        ("jku", |h| h["jku"] = json!("https://evil.example/jwks.json")),
        ("x5u", |h| h["x5u"] = json!("https://evil.example/cert.pem")),
        ("x5c", |h| h["x5c"] = json!(["AA=="])),
        ("crit", |h| h["crit"] = json!(["exp"])),
        ("crit empty", |h| h["crit"] = json!([])),
        ("crit b64", |h| (h["crit"], h["b64"]) = (json!(["b64"]), json!(false))),
        ("b64", |h| h["b64"] = json!(false)),
        ("zip", |h| h["zip"] = json!("DEF")),
        ("cty", |h| h["cty"] = json!("JWT")),
        ("typ missing", |h| _ = h.as_object_mut().unwrap().remove("typ")),
        ("typ JWT", |h| h["typ"] = json!("JWT")),
        ("typ of another token", |h| h["typ"] = json!("rt+jwt")),
        ("a list", |h| *h = json!([h.clone()])),
    ];
    for target in Target::all(engine).await {
        target.accepts(&target.with_header(|_| {}), "with members in another order").await;
        target
            .accepts(&target.with_header(|h| h["typ"] = json!("application/AT+JWT")), "by its whole type")
            .await;
        for (what, change) in changes {
            target.refuses(&target.with_header(change), what).await;
        }
        let claims = target.claims.to_string();
        for algorithm in ["none", "None", "NONE", "nOnE", ""] {
            let mut header = target.header.clone();
            header["alg"] = json!(algorithm);
            target.refuses(&format!("{}.", message(&header.to_string(), &claims)), "no signature").await;
        }
        target.refuses(&signed_by_its_own_key(&target.header, &claims), "a key of its own").await;
        let header = target.header.to_string();
        let header = header.strip_suffix('}').unwrap();
        for (name, value) in
            [("alg", &target.header["alg"]), ("alg", &json!("none")), ("kid", &target.header["kid"])]
        {
            for (what, text) in [
                ("a name twice", format!(r#"{header},"{name}":{value}}}"#)),
                ("a name twice, the other way round", format!(r#"{{"{name}":{value},{}}}"#, &header[1..])),
            ] {
                target.refuses(&target.signed(&text, &claims), what).await;
            }
        }
    }
}

async fn no_token_with_foreign_claims_is_accepted(engine: Engine) {
    let changes: &[(&str, Change)] = &[
        ("iss of another", |c| c["iss"] = json!("https://evil.example")),
        ("iss missing", |c| _ = c.as_object_mut().unwrap().remove("iss")),
        ("aud of another", |c| c["aud"] = json!("other")),
        ("aud in a list with others", |c| c["aud"] = json!([c["aud"], "other"])),
        ("aud in a list", |c| c["aud"] = json!([c["aud"]])),
        ("aud missing", |c| _ = c.as_object_mut().unwrap().remove("aud")),
        ("exp passed", |c| {
            (c["iat"], c["exp"]) = (json!(number(c, "iat") - HOUR), json!(number(c, "iat") - 1))
        }),
        ("exp negative", |c| c["exp"] = json!(-1)),
        ("exp 0", |c| c["exp"] = json!(0)),
        ("exp a string", |c| c["exp"] = json!(c["exp"].to_string())),
        ("exp with a fraction", |c| c["exp"] = json!(number(c, "exp") as f64 + 0.5)),
        ("exp null", |c| c["exp"] = json!(null)),
        ("exp missing", |c| _ = c.as_object_mut().unwrap().remove("exp")),
        ("exp a second beyond a day", |c| c["exp"] = json!(number(c, "iat") + 24 * HOUR + 1)),
        ("exp far ahead", |c| c["exp"] = json!(9_999_999_999_i64)),
        ("exp at the end of time", |c| c["exp"] = json!(i64::MAX)),
        ("exp beyond it", |c| c["exp"] = json!(u64::MAX)),
        ("exp out of all bounds", |c| c["exp"] = json!(1e300)),
        ("nbf ahead", |c| c["nbf"] = json!(number(c, "iat") + HOUR)),
        ("nbf a string", |c| c["nbf"] = json!("0")),
        ("iat ahead", |c| {
            (c["iat"], c["exp"]) = (json!(number(c, "iat") + HOUR), json!(number(c, "exp") + HOUR))
        }),
        ("iat long ago", |c| c["iat"] = json!(0)),
        ("iat missing", |c| _ = c.as_object_mut().unwrap().remove("iat")),
        ("client_id of another", |c| c["client_id"] = json!("other")),
        ("role unknown", |c| c["role"] = json!("root")),
        ("sub no id", |c| c["sub"] = json!("1")),
        ("sub of nobody", |c| c["sub"] = json!("018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e")),
        ("tid of nobody", |c| c["tid"] = json!("018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e")),
        ("sid of nobody", |c| c["sid"] = json!("018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e")),
        ("a list", |c| *c = json!([c.clone()])),
    ];
    for target in Target::all(engine).await {
        target.accepts(&target.with_claims(|_| {}), "with members in another order").await;
        let day = target.with_claims(|c| c["exp"] = json!(number(c, "iat") + 24 * HOUR));
        target.accepts(&day, "for a day").await;
        for (what, change) in changes {
            target.refuses(&target.with_claims(change), what).await;
        }
        let (header, claims) = (target.header.to_string(), target.claims.to_string());
        for name in ["exp", "sub", "role", "aud"] {
            let twice =
                format!(r#"{},"{name}":{}}}"#, claims.strip_suffix('}').unwrap(), target.claims[name]);
            target.refuses(&target.signed(&header, &twice), "a name twice").await;
        }
        target.refuses(&target.signed(&header, &format!("{claims}{claims}")), "two sets of claims").await;
    }
}

fn number(claims: &Value, name: &str) -> i64 {
    claims[name].as_i64().unwrap()
}

async fn no_token_with_another_signature_is_accepted(engine: Engine) {
    for target in Target::all(engine).await {
        let token = target.token.as_str();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for (what, other) in [
            ("none", String::new()),
            ("cut", signature[..signature.len() - 4].to_owned()),
            ("cut by a byte", URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1])),
            ("a byte longer", URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat())),
            ("a byte longer in front", URL_SAFE_NO_PAD.encode([&[0], &bytes[..]].concat())),
            ("zero", URL_SAFE_NO_PAD.encode(vec![0; bytes.len()])),
            ("padded", URL_SAFE.encode(&bytes)),
            ("padded, in the other alphabet", STANDARD.encode(&bytes)),
            ("with bits that mean nothing", loose(signature)),
            ("with a line feed", format!("{}%0A", signature)),
            ("with a dot more", format!("{signature}.{signature}")),
        ] {
            target.refuses(&format!("{message}.{other}"), what).await;
        }
        let standard = STANDARD_NO_PAD.encode(&bytes);
        if standard != signature {
            target.refuses(&format!("{message}.{standard}"), "in the other alphabet").await;
        }
        target.refuses(message, "without its part").await;
        target.refuses(&format!("{token}{}", "A".repeat(4096)), "far too long").await;
        // No header is that long; what becomes of the call is the transport's to say.
        let megabyte = format!("{token}{}", "A".repeat(1 << 20));
        target.service.client().get_user(Some(&megabyte), "").await.unwrap_err();

        // What is public is no secret (RS/HS confusion).
        let Some(public_key) = &target.public_key else { continue };
        let base64 = STANDARD.encode(public_key);
        let lines: Vec<_> =
            base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let mut header = target.header.clone();
        header["alg"] = json!("HS256");
        for secret in [public_key, base64.as_bytes(), pem.as_bytes(), pem.trim_end().as_bytes(), b""] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            for header in [&header, &target.header] {
                let message = self::message(&header.to_string(), &target.claims.to_string());
                let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
                target.refuses(&format!("{message}.{tag}"), "signed with the public key").await;
            }
        }
        target.accepts(token, "as it was").await;
    }
}

/// The same signature with another last character, which says nothing but in bits that do not count.
fn loose(signature: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(signature.len() - 1);
    let at = alphabet.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
    format!("{start}{}", alphabet[at + 1] as char)
}

async fn a_token_is_accepted_for_its_purpose_only(engine: Engine) {
    for target in Target::all(engine).await {
        target.refuses(&target.refresh_token, "a refresh token").await;
        let client = target.service.client();
        let result = client.refresh(&target.token).await;
        assert_eq!(refusal(result), refused(Code::Unauthenticated, "REFRESH_TOKEN_INVALID"));
        client.refresh(&target.refresh_token).await.unwrap();
        // In a message there is room for more than in a header, up to a limit.
        assert!(client.verify_token(&target.token).await.unwrap().active);
        let longer = format!("{}{}", target.token, "A".repeat(50_000));
        for text in [&target.refresh_token, &longer] {
            assert!(!client.verify_token(text).await.unwrap().active, "{}", text.len());
        }
        let result = client.verify_token(&"A".repeat(1 << 20)).await;
        assert_eq!(refusal(result), refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
        target.accepts(&target.token, "as it was").await;
    }
}
