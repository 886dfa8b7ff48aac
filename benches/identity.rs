//! What one thing costs: a hash, a token, a query, a whole GetUser call.
//!
//! `cargo bench --bench identity`; figures are in `docs/performance.md`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and exports nothing")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use identity::crypto::{
    AccessTokens, Cost, Hasher, HasherSettings, KeyAlgorithm, Keyring, SigningKey, Terms, TokenSettings,
    TokenSubject,
};
use identity::domain::{Clock as _, Password, Role, SessionId, SystemClock, TenantId, Timestamp, UserId};
use identity::storage::{LaneSizes, Storage, StorageSettings, users};
use secrecy::ExposeSecret as _;
use support::service::{Engine, PASSWORD, TestService, registration};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// One password check at the costs that are in use, on the hasher's own thread.
fn passwords(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("password");
    group.sample_size(10);
    for cost in [10, 12] {
        let hasher = Hasher::start(HasherSettings::new(Cost::new(cost).unwrap())).unwrap();
        let password = Password::new(PASSWORD.to_owned()).unwrap();
        let hash = runtime.block_on(hasher.reserve(&Terms::SYSTEM).unwrap().hash(&password)).unwrap();
        group.bench_function(format!("verify at cost {cost}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut slot = hasher.reserve(&Terms::SYSTEM).unwrap();
                black_box(slot.verify(&password, Some(&hash)).await.unwrap());
            });
        });
    }
}

fn access_tokens(key: SigningKey) -> AccessTokens {
    let settings = TokenSettings {
        issuer: "identity".to_owned(),
        audience: "identity".to_owned(),
        access_ttl: Duration::from_secs(900),
    };
    AccessTokens::new(Keyring::new(key, Vec::new()), settings)
}

fn subject(now: Timestamp) -> TokenSubject {
    TokenSubject {
        tenant_id: TenantId::generate(now),
        user_id: UserId::generate(now),
        session_id: SessionId::generate(now),
        role: Role::Owner,
        session_ends_at: now.plus(Duration::from_secs(90 * 24 * 60 * 60)),
    }
}

/// Signing a token, verifying one for the first time, and verifying one that was seen before.
fn tokens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token");
    let now = SystemClock.now();
    let subject = subject(now);
    for (name, key) in [
        ("EdDSA", SigningKey::generate(KeyAlgorithm::EdDsa).0),
        ("RS256", SigningKey::generate(KeyAlgorithm::Rs256).0),
        ("HS256", SigningKey::hs256(&[7; 32]).unwrap()),
    ] {
        let tokens = access_tokens(key);
        group.bench_function(format!("sign with {name}"), |bencher| {
            bencher.iter(|| black_box(tokens.issue(&subject, now)));
        });
        let token = tokens.issue(&subject, now);
        group.bench_function(format!("verify {name}, seen before"), |bencher| {
            bencher.iter(|| black_box(tokens.verify(token.text.expose_secret(), now).unwrap()));
        });
    }
}

/// What a token that was never seen costs, in signatures verified by the bare library over the same
/// bytes, taking turns; and one that was seen. Fails beyond the limits that are promised.
fn verification(_: &mut Criterion) {
    const ROUNDS: usize = 60;
    const TOKENS: usize = 100;
    const MOST_SIGNATURES: f64 = 1.2;
    const MOST_WHEN_SEEN: f64 = 1e-6;

    let now = SystemClock.now();
    let subject = subject(now);
    let each = |took: Duration| took.as_secs_f64() / TOKENS as f64;
    for (algorithm, verification) in [
        (KeyAlgorithm::EdDsa, &ED25519 as &'static dyn VerificationAlgorithm),
        (KeyAlgorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    ] {
        let (key, stored) = SigningKey::generate(algorithm);
        let public_key = ParsedPublicKey::new(verification, &stored.public_key).unwrap();
        let tokens = access_tokens(key);
        let (mut bare, mut new, mut seen, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let issued: Vec<_> = (0..TOKENS).map(|_| tokens.issue(&subject, now)).collect();
            let texts: Vec<_> = issued.iter().map(|token| token.text.expose_secret()).collect();
            let signed: Vec<_> = texts
                .iter()
                .map(|text| {
                    let (message, signature) = text.rsplit_once('.').unwrap();
                    (message.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap())
                })
                .collect();
            let started = Instant::now();
            for (message, signature) in &signed {
                black_box(public_key.verify_sig(message, signature)).unwrap();
            }
            bare.push(each(started.elapsed()));
            for took in [&mut new, &mut seen] {
                let started = Instant::now();
                for text in &texts {
                    black_box(tokens.verify(text, now)).unwrap();
                }
                took.push(each(started.elapsed()));
            }
            ratios.push(new[new.len() - 1] / bare[bare.len() - 1]);
        }
        let [bare, new, seen, ratio] = [bare, new, seen, ratios].map(median);
        let name = algorithm.as_str();
        println!(
            "{name}: a signature {:.1} µs, a new token {:.1} µs ({ratio:.2} signatures), a seen one {:.2} µs",
            1e6 * bare,
            1e6 * new,
            1e6 * seen
        );
        assert!(ratio <= MOST_SIGNATURES, "a new token with {name} costs {ratio:.2} signatures");
        assert!(seen < MOST_WHEN_SEEN, "a seen token with {name} costs {:.2} µs", 1e6 * seen);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A registered user on a running service, and what it takes to ask for it.
struct Registered {
    service: TestService,
    token: String,
    tenant_id: TenantId,
    user_id: UserId,
}

impl Registered {
    async fn on(engine: Engine) -> Self {
        let service = TestService::start(engine).await;
        let reply = service.client().register(registration("ada@example.com")).await.unwrap();
        let user = reply.user.unwrap();
        Self {
            service,
            token: reply.access_token,
            tenant_id: TenantId::parse(&user.tenant_id).unwrap(),
            user_id: UserId::parse(&user.id).unwrap(),
        }
    }
}

/// Finding a user by id, and a whole GetUser call from a client on the same machine.
fn look_ups(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("look-up");
    group.measurement_time(Duration::from_secs(8));
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let registered = runtime.block_on(Registered::on(engine));
        let settings = StorageSettings {
            url: registered.service.database.parsed(),
            connections: LaneSizes::each(4.try_into().unwrap()),
            statement_limit: Duration::from_secs(60),
            queue_limit: Duration::from_secs(60),
        };
        let storage = runtime.block_on(async { Storage::new(&settings).unwrap() });
        let (tenant_id, user_id) = (registered.tenant_id, registered.user_id);
        group.bench_function(format!("find a user by id, {engine:?}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut conn = storage.read().await.unwrap();
                black_box(users::find(&mut conn, tenant_id, user_id).await.unwrap().unwrap());
            });
        });
        let client = runtime.block_on(async { registered.service.client() });
        group.bench_function(format!("GetUser round trip, {engine:?}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                black_box(client.get_user(Some(&registered.token), "").await.unwrap());
            });
        });
        drop(storage);
        runtime.block_on(registered.service.stop());
    }
}

criterion_group!(benches, passwords, tokens, verification, look_ups);
criterion_main!(benches);
